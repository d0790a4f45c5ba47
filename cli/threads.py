"""Torch's threads, set on purpose."""

import os

import torch


def use_threads(threads: int | None) -> None:
    """As many as asked for, else one per core that this process may use.

    Workers that torchrun started on one machine share its cores.
    """
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // workers))
