"""Freed memory stays for the next answer; what the start has made is not looked through again."""

import gc
import subprocess
import sys

import pytest

from service.process import settle_garbage

SCRIPT = """
import queue, resource, threading, torch
from service.process import reuse_freed_memory
{call}
asked, answers = queue.SimpleQueue(), queue.SimpleQueue()
def compute() -> None:  # as the model thread does, for another thread to send and drop
    while asked.get():
        rows = [torch.ones(512, 64) for _ in range(40)]
        answers.put(torch.ones(2048, 8, 64))
threading.Thread(target=compute).start()
for call in range(40):
    if call == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    body = bytearray(2**20)
    asked.put(True)
    answers.get()
asked.put(False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of glibc")
def test_the_memory_of_an_answer_is_used_again() -> None:
    assert 4 * faults("reuse_freed_memory()") < faults("")


def test_what_the_start_has_made_is_left_alone() -> None:
    try:
        settle_garbage()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
