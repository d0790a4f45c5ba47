"""A cell of a table: what is trained, what is tried on validation, what it is compared with."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from core.errors import ConfigError
from trainer.config import TrainConfig
from trainer.defaults import DEFAULTS, config_for

Settings = Mapping[str, Any]  # fields of TrainConfig; `transition.rule` is a field of a field
Stage = Mapping[str, Sequence[Any]]  # a grid over some of them

TRIAL, FINAL = "trial", "final"
TRIAL_SEED = 0


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        label: its name, unique in the table.
        data: a name in `bench.quality.data.SETS`.
        encoder: a name in `trainer.encoders.ENCODERS`.
        settings: what all its runs have in common, over the encoder's defaults.
        space: the stages of its search, in order. Each is a grid over some fields, the others at
            the best so far; none means that nothing is searched.
        against: the label of the cell that it is compared with, its base; None for a base.
        rivals: labels of others over the same base that it is compared with, too.
        seeds: of the final runs.
    """

    label: str
    data: str
    encoder: str
    settings: Settings = field(default_factory=dict)
    space: tuple[Stage, ...] = ()
    against: str | None = None
    seeds: tuple[int, ...] = (0,)
    rivals: tuple[str, ...] = ()

    @property
    def budget(self) -> int:
        """How many trials it has."""
        return sum(math.prod(map(len, stage.values())) for stage in self.space)


@dataclass(frozen=True)
class Job:
    """One training run of a cell.

    Attributes:
        cell: whose it is.
        kind: `trial` is validated only; `final` is judged on test as well.
        chosen: the settings that were searched, over the cell's.
        seed: of everything random but the split.
    """

    cell: Cell
    kind: str
    chosen: Settings
    seed: int = TRIAL_SEED

    @cached_property
    def settings(self) -> Settings:
        """What the cell, its search or the encoder's defaults name, sorted.

        A field that is searched is named in every trial, so that the trial of another stage that
        has its default is the same run.
        """
        cell = self.cell
        named = {**DEFAULTS[cell.encoder], **cell.settings, **self.chosen}
        resolved = flat(resolve(cell.encoder, named).as_dict())
        searched = {name: resolved[name] for stage in cell.space for name in stage}
        return dict(sorted({**named, **searched}.items()))

    @property
    def config(self) -> TrainConfig:
        """The resolved configuration."""
        return resolve(self.cell.encoder, {**self.settings, "seed": self.seed})

    @cached_property
    def key(self) -> str:
        """Names the run: what is the same run in two cells, or in two tables, is done once."""
        named = (self.kind, self.cell.data, self.cell.encoder, self.settings, self.seed)
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]

    @property
    def trial(self) -> "Job":
        """The trial that trains with the same settings and seed, whether it is one or not."""
        return Job(self.cell, TRIAL, self.chosen, self.seed)

    def __str__(self) -> str:
        chosen = " ".join(f"{name}={value}" for name, value in self.chosen.items())
        return f"{self.cell.label} {self.kind} {chosen or 'as it is'} seed={self.seed}"


def resolve(encoder: str, settings: Settings) -> TrainConfig:
    """The settings over the encoder's defaults.

    Raises:
        ConfigError: no such encoder or field, or a value that cannot work.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    parts: dict[str, dict[str, Any]] = {}
    for name in settings.keys() - plain.keys():
        outer, inner = name.split(".")
        parts.setdefault(outer, {})[inner] = settings[name]
    try:
        config = config_for(encoder, **plain)
        return replace(
            config,
            **{outer: replace(getattr(config, outer), **inner) for outer, inner in parts.items()},
        )
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{encoder}: {error}; settings are fields of TrainConfig") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of fields beside the others, their names joined by a dot."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def overridden(cells: Sequence[Cell], settings: Settings) -> list[Cell]:
    """The same cells with some settings changed for all of them, and out of their searches."""
    return [
        replace(
            cell,
            settings={**cell.settings, **settings},
            space=tuple(
                kept
                for stage in cell.space
                if (kept := {name: tried for name, tried in stage.items() if name not in settings})
            ),
        )
        for cell in cells
    ]
