"""The file of a training state: one safetensors (never a pickle), replaced atomically.

What training goes on from after a kill: tensors by name, plain values as JSON in the metadata.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, optim

from core.errors import CheckpointCorruptError, ConfigError
from core.stores import LocalStore

Tensors = dict[str, Tensor]


def write_state(file: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write the state, in place of an older one, atomically; the folder is made where missing."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {name: json.dumps(value) for name, value in plain.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    LocalStore(file.parent).replace(file.name, safetensors.torch.save(whole, metadata))


def read_state(file: Path, names: Sequence[str]) -> tuple[Tensors, dict[str, Any]]:
    """The tensors, and the plain values of these names.

    Raises:
        CheckpointCorruptError: it cannot be read, or a name is missing.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, {name: json.loads(metadata[name]) for name in names}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(f"{file} cannot be read: {error}") from error


def optimizer_tensors(part: str, optimizer: optim.Optimizer) -> Tensors:
    """What an optimiser remembers, below `part/`."""
    return {
        f"{part}/{index}/{name}": tensor
        for index, slots in optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
    }


def restore_optimizer(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, `part/` taken off."""
    slots: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        index, slot = name.split("/")
        slots.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def below(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Those whose names begin so, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def check_same(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], free: Collection[str], file: Path
) -> None:
    """That a state belongs to this configuration, but for the names that are free to change.

    Raises:
        ConfigError: otherwise.
    """
    wanted = json.loads(json.dumps(wanted))
    differing = [
        f"{name}: {saved.get(name)!r} there, {wanted.get(name)!r} now"
        for name in sorted(saved.keys() | wanted.keys())
        if name not in free and saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise ConfigError(
            f"{file} belongs to another run ({'; '.join(differing)}): "
            "resume with its settings, or choose another folder"
        )
