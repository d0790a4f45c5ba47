"""What a process that serves asks of its allocator and of its garbage collector."""

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
# Blocks above this size go back to the system when they are freed; glibc takes no larger number.
KEPT_BLOCK = 32 * 2**20
KEPT = 64 * 2**20  # bytes of freed memory that stay with each thread's arena


def reuse_freed_memory() -> None:
    """Have glibc keep the memory of one answer for the next: a page that comes back costs a fault.

    Of 2048 x 8 x 64 float32 that is 4 MiB and, by default, hundreds of faults a request. Where the
    C library is another, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def settle_garbage() -> None:
    """Leave what the start has made to the end: no later collection looks through it again."""
    gc.collect()
    gc.freeze()
