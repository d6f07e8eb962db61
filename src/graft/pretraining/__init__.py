"""Making a base from nothing: text is gathered, a tokenizer and a model are trained on it."""
