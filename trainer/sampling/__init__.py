"""Baseline samplers that pick negatives among the catalogue's items."""
