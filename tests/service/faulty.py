"""`turnpoint` whose model thread meets a fault: `python -m tests.service.faulty FAULT serve …`.

Every request does what it should but the one with the seed 13.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from cli.main import main
from service import compute as module
from service.job import Job

UNLUCKY = 13


def dead() -> NoReturn:
    raise SystemExit("nothing that a thread survives")


def lost() -> NoReturn:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def asserted() -> None:
    """The real thing, on a machine that has a GPU: an index beyond the end, found in the kernel."""
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")].cpu()


def hung() -> None:
    time.sleep(3600)  # in C, without the interpreter's lock, as a kernel that never ends


def poisoned() -> NoReturn:
    raise ZeroDivisionError("poison")


FAULTS = {fault.__name__: fault for fault in (dead, lost, asserted, hung, poisoned)}


def inject(fault: Callable[[], object]) -> None:
    """Have the unlucky request meet it."""
    real = module.sample

    def sample(jobs: Sequence[Job], query: Any) -> Any:
        if any(job.seed == UNLUCKY for job in jobs):
            fault()
        return real(jobs, query)

    module.sample = sample


if __name__ == "__main__":
    inject(FAULTS[sys.argv.pop(1)])
    main()
