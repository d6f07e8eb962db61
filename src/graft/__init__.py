"""graft: adapt a language model to your task the cheapest way that works, and prove it."""
