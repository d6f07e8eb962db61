"""The tournament: which way of adapting is worth it here, asked fairly."""
