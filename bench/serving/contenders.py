"""Who takes part."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bench.serving.wires import LISTS, RAW, SAFETENSORS, Wire

TURNPOINT = "turnpoint octet-stream"  # what the others are compared with
KERNEL, ECHO = "floor: kernel", "floor: echo"


@dataclass(frozen=True)
class Case:
    """What is asked of everybody.

    Attributes:
        registry: where the checkpoint is.
        model: its name.
        rows: B.
        n: negatives per row.
        dim: d.
    """

    registry: Path
    model: str
    rows: int
    n: int
    dim: int


@dataclass(frozen=True)
class Contender:
    """A process, and how to ask it.

    Attributes:
        name: in the tables.
        command: arguments of `python -m`; contenders with the same ones share a process.
        wire: None where nothing is served and the process measures itself.
        path: of the request.
        needs: a package that must be there.
    """

    name: str
    command: tuple[object, ...]
    wire: Wire | None
    path: str = ""
    needs: str | None = None

    @property
    def why_not(self) -> str | None:
        """Why it cannot take part."""
        if self.needs is None or importlib.util.find_spec(self.needs):
            return None
        return f"{self.needs} is not installed; see bench/requirements.txt"


def everybody(case: Case) -> list[Contender]:
    """All of them, the floor and Turnpoint side by side."""
    where = ("--registry", case.registry, "--model", case.model)
    n, size = ("--n", case.n), ("--n", case.n, "--rows", case.rows)
    serve = ("cli.main", "serve", "--registry", case.registry)
    path = f"/negatives?model={case.model}&n={case.n}"
    answer = case.rows * case.n * case.dim * 4
    found = [
        Contender(KERNEL, ("bench.serving.kernel", *where, *size), None),
        Contender(ECHO, ("bench.serving.echo", "--size", answer), RAW, "/"),
        Contender(TURNPOINT, serve, RAW, path),
        Contender("turnpoint safetensors", serve, SAFETENSORS, path),
        Contender("turnpoint json", serve, LISTS, f"/negatives?model={case.model}"),
    ]
    mosec, litserve = "bench.serving.mosec_server", "bench.serving.litserve_server"
    for workers in (1, 2):
        many = ("--workers", workers)
        name = "" if workers == 1 else f", {workers} workers"
        found += [
            Contender(
                f"mosec binary{name}", (mosec, *where, *n, *many), RAW, "/inference", "mosec"
            ),
            Contender(
                f"litserve binary{name}",
                (litserve, *where, *n, *many, "--kind", "binary"),
                RAW,
                "/binary",
                "litserve",
            ),
        ]
    for how, threads, name in (
        ("coefficients", 1, "the law alone, in process, 1 thread"),
        ("looped", 1, "looped, in process, 1 thread"),
        ("looped", 0, "looped, in process"),
        ("stopped", 0, "looped to min t*, in process"),
    ):
        way = ("--how", how, "--threads", threads)
        in_process = ("bench.serving.kernel", *where, *size, *way)
        found.append(Contender(name, in_process, None))
    lists = (litserve, *where, *n, "--kind", "json")
    return [
        *found,
        Contender("litserve json", lists, LISTS, "/json", "litserve"),
        Contender("naive fastapi", ("bench.serving.naive", *where), LISTS, "/negatives"),
    ]
