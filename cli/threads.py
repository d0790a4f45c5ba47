"""Torch's threads, set on purpose."""

import os

import torch


def use_threads(threads: int | None) -> None:
    """As many as asked for, else one per core that this process may use."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
