"""Benchmarks: one file for each, and one for each thing that they share. `python -m benchmarks` runs them all."""
