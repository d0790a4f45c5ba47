"""Encoders by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.base import Encoded, Encoder, HasAuxiliary, ReadsSequences
from trainer.encoders.cl4srec import CL4SRec
from trainer.encoders.external import PREFIX, from_entry_point
from trainer.encoders.gru4rec import GRU4Rec
from trainer.encoders.lightgcn import LightGCN
from trainer.encoders.mf import MF
from trainer.encoders.mmlightgcn import MultiModalLightGCN
from trainer.encoders.ngcf import NGCF
from trainer.encoders.sasrec import SASRec
from trainer.encoders.vbpr import VBPR

__all__ = [
    "ENCODERS",
    "MF",
    "NGCF",
    "VBPR",
    "CL4SRec",
    "Encoded",
    "Encoder",
    "GRU4Rec",
    "HasAuxiliary",
    "LightGCN",
    "MultiModalLightGCN",
    "Options",
    "ReadsSequences",
    "SASRec",
    "make",
]


@dataclass(frozen=True)
class Options:
    """What some encoders have beside d.

    Attributes:
        dropout: in [0, 1), of the encoders that have one.
        max_length: the longest sequence, of the encoders that read them.
        contrast: weight of the contrastive loss, of CL4SRec.
        temperature: of that loss's softmax.
    """

    dropout: float = 0.0
    max_length: int = 50
    contrast: float = 0.1
    temperature: float = 1.0


PLAIN = Options()

Maker = Callable[[Interactions, int, Options, torch.Generator], Encoder]

ENCODERS: dict[str, Maker] = {
    "mf": lambda data, dim, _, rng: MF(data.num_users, data.num_items, dim, generator=rng),
    "lightgcn": lambda data, dim, _, rng: LightGCN(
        data.train, data.num_users, data.num_items, dim, generator=rng
    ),
    "ngcf": lambda data, dim, has, rng: NGCF(
        data.train, data.num_users, data.num_items, dim, message_dropout=has.dropout, generator=rng
    ),
    "vbpr": lambda data, dim, _, rng: VBPR(data, dim, generator=rng),
    "mmlightgcn": lambda data, dim, _, rng: MultiModalLightGCN(data, dim, generator=rng),
    "gru4rec": lambda data, dim, has, rng: GRU4Rec(
        data, dim, has.max_length, has.dropout, generator=rng
    ),
    "sasrec": lambda data, dim, has, rng: SASRec(
        data, dim, has.max_length, has.dropout, generator=rng
    ),
    "cl4srec": lambda data, dim, has, rng: CL4SRec(
        data, dim, has.max_length, has.dropout, has.contrast, has.temperature, generator=rng
    ),
}


def make(
    name: str, interactions: Interactions, dim: int, seed: int, options: Options = PLAIN
) -> Encoder:
    """The encoder of that name, its first values drawn from `seed`.

    Args:
        name: a key of `ENCODERS`, or `external:module:factory`.
        interactions: gives the sizes, a graph its edges (those of train only), sequences, and
            features of items.
        dim: d >= 1.
        seed: seeds the first values.
        options: what some encoders have beside d.

    Returns:
        the encoder, float32, on the CPU.

    Raises:
        ConfigError: no encoder has that name, or a setting does not fit it.
    """
    if dim < 1:
        raise ConfigError(f"an encoder needs a dimension of at least 1, not {dim}")
    generator = torch.Generator().manual_seed(seed)
    if name.startswith(PREFIX):
        return from_entry_point(name, interactions, dim, generator)
    if name not in ENCODERS:
        raise ConfigError(f"no encoder is called {name!r}; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name](interactions, dim, options, generator)
