"""A request in the model thread's terms, the caller's ticket for it, and what it came to."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Generator, Tensor

from core.chain import Law
from core.samplers import NegativeSampler, Query
from core.transition import Transition
from service.codecs import Inputs
from service.params import Params

Tensors = dict[str, Tensor]
LawSource = Callable[[Query, Generator], Law]


@dataclass(frozen=True)
class Job:
    """One request, resolved: nothing about it can change any more.

    Attributes:
        sampler: of the one version that answers.
        inputs: arrays, shapes checked.
        params: scalars.
        rule: for t*.
        seed: of the request's own noise.
        wanted: what to answer with, see `params.RETURNS`.
        size: bytes held until it is answered, of body and answer.
        caller: whose share of the service it counts against.
        deadline: on `time.monotonic`'s clock; past it the job is dropped.
        observe: called in the model thread with t*, (B,) on the host.
        law: answers for the law, from the sampler or a cache; None: the sampler generates.
    """

    sampler: NegativeSampler
    inputs: Inputs
    params: Params
    rule: Transition
    seed: int
    wanted: tuple[str, ...]
    size: int
    caller: str = ""
    deadline: float | None = None
    observe: Callable[[Tensor], None] | None = None
    law: LawSource | None = None


@dataclass(frozen=True)
class Result:
    """What a job came to.

    Attributes:
        tensors: name -> tensor, in the order of the answer.
        queue_seconds: from acceptance to its turn.
        sample_seconds: from there to its answer on the host, in the batch that it was part of.
    """

    tensors: dict[str, Tensor]
    queue_seconds: float
    sample_seconds: float


@dataclass(frozen=True, eq=False)
class Ticket:
    """An accepted job.

    Attributes:
        job: what to compute.
        future: of the event loop; cancelled when the caller hangs up.
        at: when it was accepted, on `time.monotonic`'s clock.
    """

    job: Job
    future: asyncio.Future[Result]
    at: float = field(default_factory=time.monotonic)


def spans(jobs: Sequence[Job]) -> Iterator[slice]:
    """Where each job's rows are among those of the batch."""
    end = 0
    for job in jobs:
        begin, end = end, end + job.inputs.rows
        yield slice(begin, end)
