"""What becomes of a batch whose computation failed."""

import traceback
from collections.abc import Sequence

from core.errors import UnavailableError
from service.compute import compute
from service.job import Job, Tensors
from service.staging import Memory

Outcome = Tensors | Exception
# How the allocators of the CPU and of pinned memory say it; that of CUDA has a class of its own.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


def outcomes(jobs: Sequence[Job], memory: Memory) -> list[Outcome]:
    """Compute a batch and wait for it: an answer or an error per job.

    Raises:
        Exception: see `mend`.
    """
    try:
        return [*compute(jobs, memory).land()]
    except Exception as error:
        return mend(jobs, memory, error)


def mend(jobs: Sequence[Job], memory: Memory, error: Exception) -> list[Outcome]:
    """Compute a failed batch in parts, so that an error is that of the job which causes it.

    Out of memory: in halves, by rows; a job that does not fit alone is told so. Anything else: each
    job alone, once.

    Raises:
        Exception: the error itself, where no computation is possible any more.
    """
    if is_fatal(error):
        raise error
    traceback.clear_frames(error.__traceback__)  # they hold the tensors of the attempt
    if len(jobs) == 1:
        return [_too_large(jobs[0]) if is_out_of_memory(error) else error]
    parts = _halves(jobs) if is_out_of_memory(error) else [[job] for job in jobs]
    return [outcome for part in parts for outcome in outcomes(part, memory)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at a time may succeed."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def is_fatal(error: Exception) -> bool:
    """Whether the device is lost: after a CUDA error every further call fails in this process."""
    return (
        isinstance(error, RuntimeError)
        and "CUDA error" in str(error)
        and not is_out_of_memory(error)
    )


def _halves(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    """Two parts of about the same number of rows, neither of them empty."""
    half, rows, cut = sum(job.inputs.rows for job in jobs) / 2, 0, 0
    while cut < len(jobs) - 1 and rows < half:
        rows, cut = rows + jobs[cut].inputs.rows, cut + 1
    return [jobs[:cut], jobs[cut:]]


def _too_large(job: Job) -> UnavailableError:
    return UnavailableError(
        f"the service has no memory for {job.inputs.rows} rows with n = {job.params.n} now: "
        "ask for fewer rows or a smaller n, or again after Retry-After"
    )
