"""Benchmarks: paired in one run, quoted as ratios, each with the command that reproduces it."""
