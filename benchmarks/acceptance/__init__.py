"""Does each method work on real data? MiniLM on trec and sst2, stories260K on tiny_shakespeare, three seeds."""
