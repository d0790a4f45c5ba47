"""What the model thread does with one job: prepare, sample, finish."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import ConfigError, NonFiniteError, OutOfRangeError
from core.samplers import NegativeSampler, Query
from core.transition import Transition
from service.cache.laws import LawSource
from service.codecs import Inputs
from service.params import Params


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
        deadline: on `time.monotonic`'s clock; past it the job is dropped.
        observe: called in the model thread with t*, (B,).
        law: answers for the law, e.g. from a cache; default: the sampler.
    """

    sampler: NegativeSampler
    inputs: Inputs
    params: Params
    rule: Transition
    seed: int
    wanted: tuple[str, ...]
    size: int
    deadline: float | None = None
    observe: Callable[[Tensor], None] | None = None
    law: LawSource | None = None


@torch.inference_mode()
def compute(job: Job) -> dict[str, Tensor]:
    """The three stages of a job."""
    query = prepare(job)
    return finish(job, query, sample(job, query))


def prepare(job: Job) -> Query:
    """float32 inputs on the sampler's device, checked, with mu- per row.

    Raises:
        NonFiniteError: a number that is not finite, or a score that is not.
    """
    inputs, device = job.inputs, job.sampler.device
    users, positives = (rows.to(device, torch.float32) for rows in (inputs.users, inputs.positives))
    # Not finite where any factor is not (inf 0 = nan), and where finite factors overflow:
    # one pass over the rows tells of everything that could go wrong below.
    score = (users * positives).sum(-1)
    if not score.isfinite().all():
        _refuse_first({"users": users, "positives": positives}, score)
    given = None if inputs.threshold is None else inputs.threshold.to(device, torch.float32)
    if given is not None and not given.isfinite().all():
        row = int((~given.isfinite()).nonzero()[0])
        raise NonFiniteError(
            f"threshold row {row} holds {float(given[row])}; every threshold must be finite"
        )
    return Query(users, positives, job.rule, job.params.threshold(given, score))


def sample(job: Job, query: Query) -> dict[str, Tensor]:
    """t*, the law there, and the draws, by the request's own generator.

    On the CPU torch's generator takes the low 32 bits of a seed; seeds equal there draw alike.

    Raises:
        NonFiniteError: inputs so large that the law overflows float32.
    """
    generator = torch.Generator(job.sampler.device).manual_seed(job.seed)
    law = (job.law or job.sampler.law)(query, generator)
    settled = (law.mean + law.std).sum(-1).isfinite()
    if not settled.all():
        raise NonFiniteError(
            f"users row {int((~settled).nonzero()[0])} is finite, but its law overflows float32; "
            "embeddings must be of the magnitude that the model was trained on"
        )
    if job.observe is not None:
        job.observe(law.transition)
    found = {"transition": law.transition, "mean": law.mean, "std": law.std}
    if {"negatives", "scores"} & set(job.wanted):
        found["negatives"] = law.draw(job.params.n, generator)
    return found


def finish(job: Job, query: Query, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the answer, in its dtype, on the CPU.

    Raises:
        OutOfRangeError: float16 was asked for and cannot hold a number.
    """
    answer: dict[str, Tensor] = {}
    if "negatives" in job.wanted:
        answer["negatives"] = found["negatives"]
    if "transition" in job.wanted:
        answer["transition"] = found["transition"].long()
    if "distribution" in job.wanted:
        answer |= {"mean": found["mean"], "std": found["std"]}
    if "scores" in job.wanted:
        answer["scores"] = torch.einsum("bd,bnd->bn", query.users, found["negatives"])
    dtype = job.params.torch_dtype
    for name, tensor in answer.items():
        if tensor.is_floating_point() and tensor.dtype != dtype:
            answer[name] = tensor.to(dtype)
            if dtype == torch.float16 and not answer[name].isfinite().all():
                raise OutOfRangeError(
                    f"dtype = 'float16' cannot hold {name}, which goes beyond 65504; "
                    "ask for bfloat16 or float32"
                )
    return {name: tensor.cpu() for name, tensor in answer.items()}


def usable_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"TURNPOINT_SERVER__DEVICE = {name!r} cannot be used here ({reason}): "
            "set it to cpu, or install a CUDA build of torch on a machine with a GPU"
        ) from error
    return device


def _refuse_first(fields: dict[str, Tensor], score: Tensor) -> None:
    """Name the first number that is not finite, or the first score."""
    for name, values in fields.items():
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise NonFiniteError(
                f"{name} row {row} holds {float(values[row, column])} in column {column}; "
                "every number must be finite"
            )
    row = int((~score.isfinite()).nonzero()[0])
    raise NonFiniteError(
        f"users and positives row {row} are finite, but their score overflows float32; "
        "embeddings must be of the magnitude that the model was trained on"
    )
