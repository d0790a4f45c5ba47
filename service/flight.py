"""A batch on its way back from the device, and the judgement over each of its jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from core.errors import NonFiniteError, OutOfRangeError, TurnpointError
from core.samplers.base import FEATURES
from service.codecs import Inputs
from service.job import Job, Tensors, spans
from service.staging import Arrival


@dataclass(frozen=True)
class Flight:
    """A batch on its way back.

    Attributes:
        jobs: in order.
        answers: of each, on the host.
        transition: (B,) t* of all rows, on the host.
        sound: (4, B) bool: score, threshold, features, and law or negatives are finite.
        arrival: before which nothing on the host may be read.
    """

    jobs: Sequence[Job]
    answers: Sequence[Tensors]
    transition: Tensor
    sound: Tensor
    arrival: Arrival

    def done(self) -> bool:
        """Whether `land` would not wait."""
        return self.arrival.query()

    def land(self) -> list[Tensors | TurnpointError]:
        """Wait; then each job's answer, or why it is refused."""
        self.arrival.synchronize()
        found: list[Tensors | TurnpointError] = []
        for job, answer, rows in zip(self.jobs, self.answers, spans(self.jobs), strict=True):
            try:
                _judge(job, answer, self.sound[:, rows])
            except TurnpointError as error:
                found.append(error)
                continue
            if job.observe is not None:
                job.observe(self.transition[rows])
            found.append(answer)
        return found


def _judge(job: Job, answer: Tensors, sound: Tensor) -> None:
    """Refuse a job that has a row which is not sound, by the first such row.

    Raises:
        NonFiniteError: a number that is not finite, or a score, or a law.
        OutOfRangeError: float16 was asked for and cannot hold a number.
    """
    if not sound.all():
        _refuse(job.inputs, sound)
    if job.params.torch_dtype == torch.float16:
        for name, tensor in answer.items():
            if not tensor.isfinite().all():
                raise OutOfRangeError(
                    f"dtype = 'float16' cannot hold {name}, which goes beyond 65504; "
                    "ask for bfloat16 or float32"
                )


def _refuse(inputs: Inputs, sound: Tensor) -> NoReturn:
    """Name what is not sound: a number that was sent, a score, or what came of them."""
    score, threshold, features, settled = (
        None if rows.all() else int((~rows).nonzero()[0]) for rows in sound
    )
    if score is not None:
        for name in ("users", "positives"):
            _refuse_row(name, score, getattr(inputs, name)[score])
        raise NonFiniteError(
            f"users and positives row {score} are finite, but their score overflows float32; "
            "embeddings must be of the magnitude that the model was trained on"
        )
    if threshold is not None and inputs.threshold is not None:
        raise NonFiniteError(
            f"threshold row {threshold} holds {float(inputs.threshold[threshold])}; "
            "every threshold must be finite"
        )
    if features is not None:
        for name, table in inputs.item_features.items():
            _refuse_row(FEATURES + name, features, table[features])
        raise NonFiniteError(
            f"item_features row {features} is finite, but overflows float32 in its sum; "
            "features must be of the magnitude that the model was trained on"
        )
    raise NonFiniteError(
        f"users row {settled} is finite, but its law overflows float32; "
        "embeddings must be of the magnitude that the model was trained on"
    )


def _refuse_row(name: str, row: int, values: Tensor) -> None:
    """Raises NonFiniteError where a row that was sent holds what is not finite."""
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise NonFiniteError(
            f"{name} row {row} holds {float(values[bad[0]])} in column {int(bad[0])}; "
            "every number must be finite"
        )
