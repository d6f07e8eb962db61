"""Measurements of graft on real models and data: `python -m benchmarks` runs them all, resuming what is done."""
