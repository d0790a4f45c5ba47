"""A publisher that dies of SIGKILL at a chosen point: `python -m tests.core.publish_killed`.

For each line `<folder> <point> <torn> <careless>` on its input it forks a child, which publishes
into that folder and kills itself when it is about to make its `point`-th call that touches files.
`sys.setprofile` sees every function that is written in C, so no such call is forgotten. If `torn`
is 1 and that call is a write, half of what was to be written is there. It answers with one line:
the name of that call, or `published` where the point lies behind the end.
"""

import io
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from core.checkpoint import Checkpoint, pack
from core.registry import LATEST, Registry
from core.samplers import ADAR, ADARConfig
from core.stores import LocalStore

PURE = {"fspath", "fileno"}  # touch nothing


class CarelessStore(LocalStore):
    """The negative control: writes in place, LATEST first."""

    def create(self, path: str, files: Mapping[str, bytes]) -> None:
        folder = self.root / path
        folder.mkdir(parents=True)
        (folder.parent / LATEST).write_bytes(folder.name.encode())
        for name, content in files.items():
            (folder / name).write_bytes(content)


def main() -> None:
    torch.set_num_threads(1)  # a fork takes no other threads along
    sampler = ADAR(ADARConfig(dim=4, hidden=4, num_steps=3)).eval()
    for line in sys.stdin:
        folder, point, torn, careless = line.split()
        registry, checkpoint = Registry(folder), pack(sampler)
        if careless == "1":
            registry.store = CarelessStore(Path(folder))
        if (child := os.fork()) == 0:
            publish(registry, checkpoint, int(point), torn == "1")
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            print("published", flush=True)


def publish(registry: Registry, checkpoint: Checkpoint, point: int, torn: bool) -> None:
    """In the child: to the end, or to that point; never returns."""
    calls = 0

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal calls
        if event != "c_call" or not touches_files(function):
            return
        calls += 1
        if calls == point:
            if torn and function.__name__ == "write":
                content = frame.f_locals["content"]
                function(content[: len(content) // 2])
                function.__self__.flush()
            os.write(1, function.__name__.encode() + b"\n")
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    try:
        registry.publish("demo", checkpoint)
    except BaseException:
        os.write(1, b"failed\n")
        os._exit(1)
    os._exit(0)


def touches_files(function: Any) -> bool:
    """Whether it is one of the operating system's, or a method of an open file."""
    if function.__name__ in PURE:
        return False
    return function.__module__ in {"posix", "_io"} or isinstance(function.__self__, io.IOBase)


if __name__ == "__main__":
    main()
