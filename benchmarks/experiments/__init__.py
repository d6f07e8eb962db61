"""The small forms of recipes/experiments, run: their reports, and one table of what came out."""
