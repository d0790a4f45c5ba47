"""An encoder made by a function of the caller's: `--encoder external:module:factory`.

The module is imported from the path of Python, the working folder included, and runs with all the
rights of the trainer, as any program that one starts.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.base import Encoder

PREFIX = "external:"


def from_entry_point(
    name: str, interactions: Interactions, dim: int, generator: torch.Generator
) -> Encoder:
    """What `factory(interactions, dim, generator)` of a module gives.

    Args:
        name: `external:module:factory`; both parts may have dots.
        interactions: the data, as every encoder is given it.
        dim: d that is asked for.
        generator: to draw first values from.

    Raises:
        ConfigError: there is no such function, it failed, or what it gave is no encoder.
    """
    make = _found(name)
    try:
        encoder = make(interactions, dim, generator)
    except Exception as error:
        raise ConfigError(
            f"{name} failed as factory(interactions, dim, generator): "
            f"{type(error).__name__}: {error}"
        ) from error
    if missing := [what for what in _members() if not hasattr(encoder, what)]:
        raise ConfigError(
            f"{name} gave a {type(encoder).__name__}, which is no encoder: it has no "
            f"{', '.join(missing)}; see trainer.encoders.Encoder"
        )
    if encoder.dim != dim:
        raise ConfigError(
            f"{name} gave an encoder of dimension {encoder.dim}, {dim} was asked for: make it take "
            f"`dim`, or give --dim {encoder.dim}"
        )
    if not list(encoder.parameters()):
        raise ConfigError(
            f"{name} gave an encoder without parameters, so there is nothing to train; learn a "
            "model for tables that are trained elsewhere with `turnpoint follow --snapshot`"
        )
    checked: Encoder = encoder
    return checked


def _found(name: str) -> Callable[..., Any]:
    module_name, colon, factory_name = name.removeprefix(PREFIX).partition(":")
    if not (colon and module_name and factory_name):
        raise ConfigError(f"{name!r} is no entry point; write external:module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look into the working folder
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{name}: cannot import {module_name!r} ({error}); it is looked for in the working "
            "folder and on PYTHONPATH"
        ) from error
    for part in factory_name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name}: {module_name!r} has nothing called {factory_name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name} is a {type(found).__name__}; it must be a function or a class")
    made: Callable[..., Any] = found
    return made


def _members() -> list[str]:
    """What the protocol asks for."""
    ours = [name for name in vars(Encoder) if not name.startswith("_")]
    return sorted({*Encoder.__annotations__, *ours})
