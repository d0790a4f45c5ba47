"""Results on disk: whoever has the folder can go on, and several may at once.

    <out>/runs/<key>.json         a finished run
    <out>/runs/<key>.safetensors  what a final run leaves by user, see `Store.arrays`
    <out>/runs/<key>/             the state of one that is not finished, or of a trial
    <out>/runs/<key>.lock         locked by the process that is at it; its pid, for people
    <out>/data/<set>-<split>.json which data these results are about

The lock is the kernel's (flock), not the file's existence: it ends with its process, however that
ends, so that none is ever stale and nobody has to judge whether a pid is still the same process.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.numpy
from numpy.typing import NDArray

from bench.quality.cells import FINAL, Job
from bench.quality.search import Result
from core.errors import ConfigError
from core.stores import LocalStore


class Store:
    """The folder of results.

    Args:
        root: made if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)
        self._finished: dict[str, Result] = {}  # they never change

    def result(self, job: Job) -> Result | None:
        """Of a finished run; None before."""
        if job.key not in self._finished:
            try:
                text = (self.runs / f"{job.key}.json").read_bytes()
            except FileNotFoundError:
                return None
            self._finished[job.key] = json.loads(text)
        return self._finished[job.key]

    def arrays(self, job: Job) -> dict[str, NDArray]:
        """Of a finished final run, by user.

        Of each test split int64 `<split>/users` [V], those with pairs in it, and float64
        `<split>/recall@20` [V], theirs; float32 `projection` [U, 2] of everybody.
        """
        return safetensors.numpy.load_file(self.runs / f"{job.key}.safetensors")

    def state(self, job: Job) -> Path:
        """The folder for what an unfinished run needs to go on."""
        return self.runs / job.key

    def hand_over(self, trial: Job, final: Job) -> Result | None:
        """Give what a finished trial has learnt to a final run that has not begun.

        Returns:
            the trial's result, or None where there is nothing to give.
        """
        found = self.result(trial)
        if found is None or not self.state(trial).exists():
            return None
        if not self.state(final).exists():
            copy = self.state(final).with_suffix(".copy")  # a folder appears as a whole
            shutil.copytree(self.state(trial), copy, dirs_exist_ok=True)
            copy.rename(self.state(final))
        return found

    def forget(self, job: Job) -> None:
        """Let a run's state go."""
        shutil.rmtree(self.state(job), ignore_errors=True)

    @contextmanager
    def claimed(self, job: Job) -> Iterator[bool]:
        """Whether the run is this process's to do: unfinished, and nobody else is at it."""
        lock = self.runs / f"{job.key}.lock"
        with lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            # Whoever opened the file before it was removed finds the result here.
            yield self.result(job) is None
            if self.result(job) is not None:
                lock.unlink(missing_ok=True)

    def finish(self, job: Job, result: Result, arrays: Mapping[str, NDArray] | None = None) -> None:
        """Keep a result, as a whole or not at all; the state of a final run and of its trial go."""
        files = LocalStore(self.runs)
        if arrays:
            files.replace(f"{job.key}.safetensors", safetensors.numpy.save(dict(arrays)))
        files.replace(f"{job.key}.json", json.dumps(result, indent=1).encode())
        if job.kind == FINAL:
            for done in (job, job.trial):
                self.forget(done)

    def pin(self, data: str, split: str, fingerprint: str, description: str) -> None:
        """Tie the folder to a data set.

        Raises:
            ConfigError: it holds results about another one of that name.
        """
        folder = self.root / "data"
        folder.mkdir(exist_ok=True)
        file = folder / f"{data}-{split}.json"
        told = {"fingerprint": fingerprint, "description": description}
        if not file.exists():
            LocalStore(folder).replace(file.name, json.dumps(told, indent=1).encode())
        if (there := json.loads(file.read_bytes())["fingerprint"]) != fingerprint:
            raise ConfigError(
                f"{self.root} has results about another {data} ({there}, this one is "
                f"{fingerprint}): choose another folder with --out, or the data of that one"
            )
