"""What the model thread does with the jobs of one batch: prepare, sample, finish.

The jobs share one computation of the law, or of what is generated without one, and each draws its
own noise from its own seed. No stage
looks at a number on the device, which would make the host wait for it: whether a row is sound comes
back with the answer, and its job is refused then. Until then such a row is computed along as zeros,
which cannot harm the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from core.chain import Law
from core.noise import Noise
from core.samplers import Generates, Query
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
        features: (B,) bool, so are the item's features given.
    """

    query: Query
    score: Tensor
    threshold: Tensor
    features: Tensor


@dataclass(frozen=True)
class Own:
    """What a batch came to for one of its jobs.

    Attributes:
        transition: (B,) t*.
        negatives: (B, n, d); None where it wants none.
        weights: (B, n), where the negatives differ in theirs.
        items: (B, n), which items of a catalogue they are.
        law: where there is one.
    """

    transition: Tensor
    negatives: Tensor | None
    weights: Tensor | None = None
    items: Tensor | None = None
    law: Law | None = None


@dataclass(frozen=True)
class Sampled:
    """What a batch came to.

    Attributes:
        transition: (B,) t* of all rows.
        settled: (B,) bool, the law is finite, or what was generated without one.
        own: of each job.
    """

    transition: Tensor
    settled: Tensor
    own: Sequence[Own]


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
    users, positives = _zeroed(users, finite), _zeroed(positives, finite)
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
    features, described = {}, finite
    for name in jobs[0].inputs.item_features:  # then all have it
        table = memory.upload([job.inputs.item_features[name] for job in jobs])
        told = table.sum(-1).isfinite()
        features[name], described = _zeroed(table, told), described & told
    strata = [job.inputs.popularity for job in jobs if job.inputs.popularity is not None]
    query = Query(
        users,
        positives,
        jobs[0].rule,
        torch.cat(wanted) if wanted else None,
        features,
        jobs[0].params.progress,
        memory.upload(strata).long() if strata else None,
    )
    return Prepared(query, finite, known, described)


def _zeroed(rows: Tensor, sound: Tensor) -> Tensor:
    """Zeros in place of rows that are not sound; looking for one is cheap on a CPU alone."""
    if rows.device.type == "cpu" and sound.all():
        return rows
    return rows.masked_fill(~sound.unsqueeze(-1), 0)


def sample(jobs: Sequence[Job], query: Query) -> Sampled:
    """What all rows come to, each job by its own generator.

    The rule `random` draws t* from a job's generator too; such a job is alone.
    On the CPU torch's generator takes the low 32 bits of a seed; seeds equal there draw alike.
    """
    device = jobs[0].sampler.device
    generators = [torch.Generator(device).manual_seed(job.seed) for job in jobs]
    if jobs[0].law is None:
        return _generated(jobs, query, generators)
    return _drawn(jobs, jobs[0].law(query, generators[0]), generators)


def _drawn(jobs: Sequence[Job], law: Law, generators: Sequence[torch.Generator]) -> Sampled:
    """Each job's draws of the law of its rows."""
    settled = (law.mean + law.std).sum(-1).isfinite()
    laws = [Law(law.transition[rows], law.mean[rows], law.std[rows]) for rows in spans(jobs)]
    draws = [
        own.draw(job.params.n, generator) if {"negatives", "scores"} & set(job.wanted) else None
        for job, own, generator in zip(jobs, laws, generators, strict=True)
    ]
    own = [Own(law.transition, drawn, law=law) for law, drawn in zip(laws, draws, strict=True)]
    return Sampled(law.transition, settled, own)


def _generated(jobs: Sequence[Job], query: Query, generators: Sequence[torch.Generator]) -> Sampled:
    """One run of the chain for all, n negatives of each row."""
    sampler, n = cast("Generates", jobs[0].sampler), jobs[0].params.n
    found = sampler.generate(query, n, Noise(generators, [job.inputs.rows for job in jobs]))
    own = [
        Own(
            found.transition[rows],
            found.negatives[rows],
            None if found.weights is None else found.weights[rows],
            None if found.items is None else found.items[rows],
        )
        for rows in spans(jobs)
    ]
    return Sampled(found.transition, found.negatives.sum((-2, -1)).isfinite(), own)


def finish(jobs: Sequence[Job], prepared: Prepared, sampled: Sampled, memory: Memory) -> Flight:
    """The tensors of the answers, each in its dtype, on their way to the host."""
    answers = [
        _answer(job, prepared.query.users[rows], own)
        for job, rows, own in zip(jobs, spans(jobs), sampled.own, strict=True)
    ]
    sound = [prepared.score, prepared.threshold, prepared.features, sampled.settled]
    flat = [tensor for answer in answers for tensor in answer.values()]
    (transition, judged, *host), arrival = memory.download(
        [sampled.transition, torch.stack(sound), *flat]
    )
    landed = iter(host)
    answers = [{name: next(landed) for name in answer} for answer in answers]
    return Flight(jobs, answers, transition, judged, arrival)


def _answer(job: Job, users: Tensor, own: Own) -> Tensors:
    """What the job wants, in its order and dtype, on the device."""
    answer: Tensors = {}
    if "negatives" in job.wanted and own.negatives is not None:
        answer["negatives"] = own.negatives
        if own.weights is not None:
            answer["weights"] = own.weights
    if "transition" in job.wanted:
        answer["transition"] = own.transition.long()
    if "distribution" in job.wanted and own.law is not None:
        answer |= {"mean": own.law.mean, "std": own.law.std}
    if "scores" in job.wanted and own.negatives is not None:
        answer["scores"] = torch.einsum("bd,bnd->bn", users, own.negatives)
    if "items" in job.wanted and own.items is not None:
        answer["items"] = own.items
    dtype = job.params.torch_dtype
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in answer.items()
    }
