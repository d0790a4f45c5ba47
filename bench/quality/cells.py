"""A cell of a table: what is trained, what is tried on validation, what it is compared with."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        seeds: of the final runs.
    """

    label: str
    data: str
    encoder: str
    settings: Settings = field(default_factory=dict)
    space: tuple[Stage, ...] = ()
    against: str | None = None
    seeds: tuple[int, ...] = (0,)

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

    @property
    def settings(self) -> Settings:
        """Everything that is not left to `TrainConfig`'s own defaults, sorted."""
        named = {**DEFAULTS[self.cell.encoder], **self.cell.settings, **self.chosen}
        return dict(sorted(named.items()))

    @property
    def config(self) -> TrainConfig:
        """The resolved configuration."""
        return resolve(self.cell.encoder, {**self.settings, "seed": self.seed})

    @property
    def key(self) -> str:
        """Names the run: what is the same run in two cells, or in two tables, is done once."""
        named = (self.kind, self.cell.data, self.cell.encoder, self.settings, self.seed)
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        chosen = " ".join(f"{name}={value}" for name, value in self.chosen.items())
        return f"{self.cell.label} {self.kind} {chosen or 'as it is'} seed={self.seed}"


def resolve(encoder: str, settings: Settings) -> TrainConfig:
    """The settings over the encoder's defaults.

    Raises:
        ConfigError: no such encoder or field, or a value that cannot work.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    try:
        config = config_for(encoder, **plain)
        for name in settings.keys() - plain.keys():
            outer, inner = name.split(".")
            part = replace(getattr(config, outer), **{inner: settings[name]})
            config = replace(config, **{outer: part})
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{encoder}: {error}; settings are fields of TrainConfig") from error
    return config


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
