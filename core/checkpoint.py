"""A checkpoint: two files, `model.safetensors` and `manifest.json`; never a pickle.

The manifest says what the weights are and holds their sha256, so a truncated or altered checkpoint
cannot be loaded. Anything that reads safetensors and JSON can read both.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from core.errors import CheckpointCorruptError, CheckpointRefusedError, ConfigError
from core.samplers import HasLaw, NegativeSampler, Query, draw, rebuild
from core.transition import Transition

SCHEMA = 1
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds.

    Attributes:
        schema: of this file; `SCHEMA`.
        method: adar, ...
        dim: d.
        num_steps: T.
        schedule: the noise schedule's name.
        denoiser: film or moment.
        scales: the running scales, for people; the weights hold the authoritative ones.
        transition: the default rule and its parameters.
        config: `sampler`, which rebuilds the sampler, and whatever the trainer resolved.
        metrics: of the run that published it, fractions in [0, 1].
        created_at: UTC, ISO 8601 with microseconds.
        sha256: of the weights file, hexadecimal.
        size: of the weights file, in bytes.
    """

    method: str
    dim: int
    num_steps: int
    schedule: str
    denoiser: str
    scales: Mapping[str, float]
    transition: Mapping[str, Any]
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    sha256: str
    size: int
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    schema: int = SCHEMA

    @property
    def version(self) -> str:
        """A name that sorts by time and tells weights apart: `20261121T093000123456-1a2b3c4d`."""
        moment = datetime.fromisoformat(self.created_at)
        return f"{moment:%Y%m%dT%H%M%S%f}-{self.sha256[:8]}"


@dataclass(frozen=True)
class Checkpoint:
    """The bytes of a checkpoint, as published."""

    weights: bytes
    manifest: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> content."""
        return {WEIGHTS_FILE: self.weights, MANIFEST_FILE: self.manifest}


def pack(
    sampler: NegativeSampler,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Checkpoint:
    """The checkpoint of a sampler, as bytes.

    Args:
        sampler: trained.
        config: the resolved training configuration, JSON-serialisable.
        metrics: of this version, e.g. validation recall.
    """
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in cast(nn.Module, sampler).state_dict().items()
    }
    weights = safetensors.torch.save(state)
    summary = sampler.summary()
    manifest = Manifest(
        method=sampler.method,
        dim=sampler.dim,
        num_steps=sampler.num_steps,
        schedule=summary["schedule"],
        denoiser=summary["denoiser"],
        scales=summary["scales"],
        transition=summary["transition"],
        config={**(config or {}), "sampler": summary["sampler"]},
        metrics=metrics or {},
        sha256=hashlib.sha256(weights).hexdigest(),
        size=len(weights),
    )
    return Checkpoint(weights, json.dumps(asdict(manifest), indent=2).encode())


def read_manifest(content: bytes) -> Manifest:
    """Parse `manifest.json`.

    Raises:
        CheckpointCorruptError: not JSON, or fields missing or unknown.
        CheckpointRefusedError: written by a newer Turnpoint.
    """
    try:
        values = json.loads(content)
        manifest = Manifest(**values)
        datetime.fromisoformat(manifest.created_at)
    except (ValueError, TypeError) as error:
        raise CheckpointCorruptError(f"manifest cannot be read: {error}") from error
    if manifest.schema != SCHEMA:
        raise CheckpointRefusedError(
            f"manifest has schema {manifest.schema!r}; this Turnpoint reads {SCHEMA}: "
            "publish it again with this version, or upgrade"
        )
    return manifest


def unpack(
    checkpoint: Checkpoint, device: torch.device | str = "cpu"
) -> tuple[NegativeSampler, Manifest]:
    """Verify a checkpoint and rebuild its sampler on a device, in evaluation mode.

    Raises:
        CheckpointCorruptError: size or sha256 differ from the manifest's, or a file cannot be read.
        CheckpointRefusedError: the weights do not fit the config, or are not finite.
    """
    manifest = read_manifest(checkpoint.manifest)
    size, digest = len(checkpoint.weights), hashlib.sha256(checkpoint.weights).hexdigest()
    if size != manifest.size:
        raise CheckpointCorruptError(
            f"weights have {size} bytes, the manifest says {manifest.size}: truncated"
        )
    if digest != manifest.sha256:
        raise CheckpointCorruptError(
            f"weights have sha256 {digest[:12]}..., not {manifest.sha256[:12]}...: altered"
        )
    try:
        state = safetensors.torch.load(checkpoint.weights)
        sampler = rebuild(manifest.method, manifest.config["sampler"])
        sampler.load_state_dict(state)
    except SafetensorError as error:
        raise CheckpointCorruptError(f"weights are no safetensors file: {error}") from error
    except (ConfigError, KeyError, RuntimeError) as error:
        raise CheckpointRefusedError(f"weights do not fit their manifest: {error}") from error
    if (sampler.dim, sampler.num_steps) != (manifest.dim, manifest.num_steps):
        raise CheckpointRefusedError(
            f"manifest says dim {manifest.dim}, num_steps {manifest.num_steps}; its config says "
            f"{sampler.dim}, {sampler.num_steps}"
        )
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointRefusedError(f"weights are not finite: {name}")
    return sampler.eval().requires_grad_(requires_grad=False).to(device), manifest


def warm_up(sampler: NegativeSampler, rows: int = 64) -> None:
    """Run the whole chain once on unit Gaussian pairs; first calls are slow, and must not be bad.

    Raises:
        CheckpointRefusedError: a sample is not finite.
    """
    device = sampler.device
    generator = torch.Generator(device).manual_seed(0)
    users, positives = torch.randn(2, rows, sampler.dim, generator=generator, device=device)
    query = Query(users, positives)
    queries = {"its chain": query}
    if isinstance(sampler, HasLaw):
        rules = (Transition("fixed", hardness=1.0), sampler.transition)
        queries = {f"rule {rule.rule}": replace(query, transition=rule) for rule in rules}
    for what, query in queries.items():
        if not draw(sampler, query, 1, generator).negatives.isfinite().all():
            raise CheckpointRefusedError(
                f"samples are not finite in the warm-up ({what}, {rows} Gaussian rows)"
            )
