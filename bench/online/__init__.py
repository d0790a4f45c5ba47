"""The online loop beside in-process co-training, measured."""
