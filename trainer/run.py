"""A training run between two epochs: everything that the next epoch depends on, and its file.

The file is one safetensors (never a pickle), replaced atomically, so that a run that was killed
goes on from its last whole epoch and ends exactly as an uninterrupted one would.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from core.samplers import DiffusionSampler
from trainer.distributed import begin_alike
from trainer.encoders import Encoder
from trainer.state_file import (
    below,
    check_same,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    write_state,
)

STATE_FILE = "training.safetensors"
_NEVER = float("-inf")
_FREE_TO_CHANGE = {"epochs", "patience", "device"}


@dataclass
class Diffusion:
    """The generative sampler, its optimiser, and the generator of its noise.

    The noise has a generator of its own, so that batches and sampled negatives are the same with
    and without a generative method: comparisons are paired. `loss` is the sampler's; among several
    workers its gradients are averaged.
    """

    sampler: DiffusionSampler
    optimizer: optim.Optimizer
    generator: torch.Generator

    def __post_init__(self) -> None:
        begin_alike(self.sampler)


@dataclass
class Run:
    """Models, optimisers, randomness and the record so far.

    Attributes:
        encoder: being trained.
        optimizer: the encoder's.
        diffusion: the sampler and its optimiser, or None for plain training.
        generator: draws batches and sampled negatives.
        epoch: whole epochs done.
        seconds: training time of each, without evaluation.
        history: the validations, each with its `epoch`.
        best_epoch: the epoch of the best validation; 0 before the first.
        best_metric: its value.
        evaluations_since_best: validations since then.
        best_histogram: (T+1) counts of t* in the best epoch.
        best_state: weights of the best epoch, by the names of `_modules`.
    """

    encoder: Encoder
    optimizer: optim.Optimizer
    diffusion: Diffusion | None
    generator: torch.Generator
    epoch: int = 0
    seconds: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_metric: float = _NEVER
    evaluations_since_best: int = 0
    best_histogram: list[int] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def note(self, metrics: dict[str, float], value: float, histogram: list[int]) -> None:
        """Record a validation; where `value` is the best so far, keep the weights."""
        self.history.append({"epoch": self.epoch, **metrics})
        self.evaluations_since_best += 1
        if value > self.best_metric:
            self.best_epoch, self.best_metric = self.epoch, value
            self.evaluations_since_best = 0
            self.best_histogram = histogram
            self.best_state = {k: v.detach().clone() for k, v in self._weights().items()}

    def restore_best(self) -> None:
        """Put the best epoch's weights in place; nothing happens before the first validation."""
        if self.best_state:
            self._set_weights(self.best_state)

    def save(self, folder: Path, config: dict[str, Any]) -> None:
        """Write the state to `folder`, in place of an older one, atomically."""
        tensors = {f"now/{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_state.items()}
        for part, optimizer in self._optimizers().items():
            tensors |= optimizer_tensors(part, optimizer)
        tensors["random/torch"] = torch.get_rng_state()
        if self.generator.device.type == "cuda":  # where dropout on a device draws from
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.generator.device)
        for name, generator in self._generators().items():
            tensors[f"random/{name}"] = generator.get_state()
        record = {name: getattr(self, name) for name in _RECORD}
        write_state(folder / STATE_FILE, tensors, {"config": config, "record": record})

    def load(self, folder: Path, config: dict[str, Any]) -> bool:
        """Take the state in `folder` up, if there is one; whether there was.

        Raises:
            ConfigError: it belongs to a run with another configuration.
            CheckpointCorruptError: it cannot be read.
        """
        file = folder / STATE_FILE
        if not file.exists():
            return False
        tensors, metadata = read_state(file, ("config", "record"))
        check_same(metadata["config"], config, _FREE_TO_CHANGE, file)
        for name in _RECORD:
            setattr(self, name, metadata["record"][name])
        self._set_weights(below("now/", tensors))
        self.best_state = below("best/", tensors)
        for part, optimizer in self._optimizers().items():
            restore_optimizer(optimizer, below(f"{part}/", tensors))
        torch.set_rng_state(tensors["random/torch"])
        if self.generator.device.type == "cuda" and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self.generator.device)
        for name, generator in self._generators().items():
            generator.set_state(tensors[f"random/{name}"])
        return True

    def _modules(self) -> dict[str, Encoder | nn.Module]:
        modules: dict[str, Encoder | nn.Module] = {"encoder": self.encoder}
        if self.diffusion is not None:
            modules["sampler"] = self.diffusion.sampler
        return modules

    def _optimizers(self) -> dict[str, optim.Optimizer]:
        optimizers = {"encoder_optimizer": self.optimizer}
        if self.diffusion is not None:
            optimizers["diffusion_optimizer"] = self.diffusion.optimizer
        return optimizers

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"run": self.generator}
        if self.diffusion is not None:
            generators["diffusion"] = self.diffusion.generator
        return generators

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{part}/{name}": tensor
            for part, module in self._modules().items()
            for name, tensor in module.state_dict().items()
        }

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        for part, module in self._modules().items():
            module.load_state_dict(below(f"{part}/", weights))


_RECORD = (
    "epoch",
    "seconds",
    "history",
    "best_epoch",
    "best_metric",
    "evaluations_since_best",
    "best_histogram",
)
