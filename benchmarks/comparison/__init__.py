"""Ways to adapt one real encoder, compared by `graft compare` on real data; what was learned is in ../README.md."""
