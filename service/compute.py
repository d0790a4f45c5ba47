"""What the model thread does with the jobs of one batch: prepare, sample, finish.

The jobs share one computation of the law, and each draws its own noise from its own seed. No stage
looks at a number on the device, which would make the host wait for it: whether a row is sound comes
back with the answer, and its job is refused then. Until then such a row is computed along as zeros,
which cannot harm the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.chain import Law
from core.samplers import Query
from service.flight import Flight
from service.job import Job, Tensors, spans
from service.staging import Memory


@dataclass(frozen=True)
class Prepared:
    """The rows of a batch on the device.

    Attributes:
        query: of all jobs, one after another; zeros where a row is not sound.
        score: (B,) bool, the positive's score is finite.
        threshold: (B,) bool, so is the threshold given.
    """

    query: Query
    score: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class Sampled:
    """What a batch came to.

    Attributes:
        transition: (B,) t* of all rows.
        settled: (B,) bool, the law is finite.
        laws: of each job.
        draws: (B, n, d) of each job; None where it wants none.
    """

    transition: Tensor
    settled: Tensor
    laws: Sequence[Law]
    draws: Sequence[Tensor | None]


@torch.inference_mode()
def compute(jobs: Sequence[Job], memory: Memory) -> Flight:
    """The three stages of a batch whose jobs `batching.kind` lets together."""
    prepared = prepare(jobs, memory)
    return finish(jobs, prepared, sample(jobs, prepared.query), memory)


def prepare(jobs: Sequence[Job], memory: Memory) -> Prepared:
    """All rows on the device, with mu- per row, and whether they are sound."""
    users = memory.upload([job.inputs.users for job in jobs])
    positives = memory.upload([job.inputs.positives for job in jobs])
    # Not finite where any factor is not (inf 0 = nan), and where finite factors overflow:
    # one pass over the rows tells of everything that could go wrong below.
    score = (users * positives).sum(-1)
    finite = score.isfinite()
    if users.device.type != "cpu" or not finite.all():
        bad = ~finite.unsqueeze(-1)
        users, positives = users.masked_fill(bad, 0), positives.masked_fill(bad, 0)
        score = score.nan_to_num(0, 0, 0)
    given, known = None, finite
    if jobs[0].inputs.threshold is not None:  # then all have one
        parts = [job.inputs.threshold for job in jobs if job.inputs.threshold is not None]
        given = memory.upload(parts)
        known, given = given.isfinite(), given.nan_to_num(0, 0, 0)
    bounds = [
        job.params.threshold(None if given is None else given[rows], score[rows])
        for job, rows in zip(jobs, spans(jobs), strict=True)
    ]
    wanted = [bound for bound in bounds if bound is not None]
    query = Query(users, positives, jobs[0].rule, torch.cat(wanted) if wanted else None)
    return Prepared(query, finite, known)


def sample(jobs: Sequence[Job], query: Query) -> Sampled:
    """The law of all rows at their t*, and each job's draws by its own generator.

    The rule `random` draws t* from a job's generator too; such a job is alone.
    On the CPU torch's generator takes the low 32 bits of a seed; seeds equal there draw alike.
    """
    sampler = jobs[0].sampler
    generators = [torch.Generator(sampler.device).manual_seed(job.seed) for job in jobs]
    law = (jobs[0].law or sampler.law)(query, generators[0])
    settled = (law.mean + law.std).sum(-1).isfinite()
    laws = [Law(law.transition[rows], law.mean[rows], law.std[rows]) for rows in spans(jobs)]
    draws = [
        own.draw(job.params.n, generator) if {"negatives", "scores"} & set(job.wanted) else None
        for job, own, generator in zip(jobs, laws, generators, strict=True)
    ]
    return Sampled(law.transition, settled, laws, draws)


def finish(jobs: Sequence[Job], prepared: Prepared, sampled: Sampled, memory: Memory) -> Flight:
    """The tensors of the answers, each in its dtype, on their way to the host."""
    answers = [
        _answer(job, prepared.query.users[rows], law, drawn)
        for job, rows, law, drawn in zip(
            jobs, spans(jobs), sampled.laws, sampled.draws, strict=True
        )
    ]
    sound = torch.stack([prepared.score, prepared.threshold, sampled.settled])
    flat = [tensor for answer in answers for tensor in answer.values()]
    (transition, sound, *host), arrival = memory.download([sampled.transition, sound, *flat])
    landed = iter(host)
    answers = [{name: next(landed) for name in answer} for answer in answers]
    return Flight(jobs, answers, transition, sound, arrival)


def _answer(job: Job, users: Tensor, law: Law, draws: Tensor | None) -> Tensors:
    """What the job wants, in its order and dtype, on the device."""
    answer: Tensors = {}
    if "negatives" in job.wanted and draws is not None:
        answer["negatives"] = draws
    if "transition" in job.wanted:
        answer["transition"] = law.transition.long()
    if "distribution" in job.wanted:
        answer |= {"mean": law.mean, "std": law.std}
    if "scores" in job.wanted and draws is not None:
        answer["scores"] = torch.einsum("bd,bnd->bn", users, draws)
    dtype = job.params.torch_dtype
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in answer.items()
    }
