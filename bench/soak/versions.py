"""Versions to publish, good ones and corrupt ones, and what each good one answers.

Everybody asks for the same pairs, and with the same seed where one is named, so an answer can be
compared with what its version must say, computed here by `core` alone: a version that nobody
published, or an answer that mixes two, is noticed.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.serving.checkpoint import made, pairs
from bench.serving.wires import Floats
from core.checkpoint import MANIFEST_FILE, Checkpoint, pack, read_manifest
from core.registry import LATEST, Registry
from core.samplers import NegativeSampler, Query

DIM, STEPS, ROWS, N, SEED = 64, 20, 32, 2, 7
MODEL = "soak"
# Each way of being corrupt, and what `swaps_total{result}` must call it.
CORRUPT = {
    "truncated": "corrupt",
    "altered": "corrupt",
    "dimension": "refused",
    "not finite": "refused",
    "half written": "missing",
}


@dataclass(frozen=True)
class Truth:
    """What a version answers to `pairs(ROWS, DIM)`.

    Attributes:
        law: mean and std beside each other, [B, 2 d]; needs no seed, so it may come from a cache.
        negatives: with `SEED`, [B, n, d].
    """

    law: Floats
    negatives: Floats


class Publisher:
    """Publishes versions of one model and knows what the good ones answer.

    Attributes:
        truth: by version; one is in it before a service can see it.
    """

    def __init__(self, folder: Path, denoiser: str = "moment") -> None:
        self.registry = Registry(folder)
        self.denoiser = denoiser
        self.truth: dict[str, Truth] = {}
        self._count = 0

    def good(self) -> str:
        """Publish a version that answers unlike all before it; its name."""
        self._count += 1
        sampler = made(self.denoiser, DIM, STEPS, seed=self._count)
        checkpoint = pack(sampler)
        version = read_manifest(checkpoint.manifest).version
        self.truth[version] = _answer(sampler)
        self.registry.publish(MODEL, checkpoint)
        return version

    def corrupt(self, how: str) -> str:
        """Put a version there that must never be live, and let LATEST name it; its name.

        `Registry.publish` would refuse it, so this writes past it, as a broken publisher would.
        """
        self._count += 1
        dim = DIM // 2 if how == "dimension" else DIM
        sampler = made(self.denoiser, dim, STEPS, seed=self._count)
        if how == "not finite":
            with torch.no_grad():
                next(sampler.parameters()).view(-1)[0] = torch.nan
        checkpoint = pack(sampler)
        version = read_manifest(checkpoint.manifest).version
        files = _damaged(checkpoint, how).files
        if how == "half written":
            del files[MANIFEST_FILE]
        self.registry.store.create(f"{MODEL}/{version}", files)
        self.registry.store.replace(f"{MODEL}/{LATEST}", version.encode())
        return version


def _damaged(checkpoint: Checkpoint, how: str) -> Checkpoint:
    weights = bytearray(checkpoint.weights)
    if how in {"truncated", "half written"}:
        del weights[-len(weights) // 3 :]
    if how == "altered":
        weights[-1] ^= 1
    return dataclasses.replace(checkpoint, weights=bytes(weights))


def _answer(sampler: NegativeSampler) -> Truth:
    users, positives = torch.from_numpy(pairs(ROWS, DIM))
    generator = torch.Generator().manual_seed(SEED)
    with torch.inference_mode():
        law = sampler.law(Query(users, positives, sampler.transition), generator)
        drawn = law.draw(N, generator)
    return Truth(torch.cat([law.mean, law.std], 1).numpy(), drawn.numpy())


def told_truly(version: str, told: Floats, truth: Mapping[str, Truth]) -> str:
    """What is wrong with an answer, a law or negatives; empty if nothing is."""
    if version not in truth:
        return f"version {version!r} was never published"
    right = truth[version].law if told.ndim == 2 else truth[version].negatives
    if told.shape != right.shape:
        return f"the answer has shape {told.shape}"
    # Sums may come in another order there; versions differ by far more.
    if not np.allclose(told, right, rtol=1e-4, atol=1e-6):
        return f"the answer is not what version {version!r} says"
    return ""
