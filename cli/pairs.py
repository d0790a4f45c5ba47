"""A file of pairs as a query: what `turnpoint generate` reads."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.errors import DataError
from core.samplers import NegativeSampler, Query, TakesFeatures, TakesPopularity
from core.samplers.base import FEATURES


def read_pairs(file: Path, sampler: NegativeSampler) -> Query:
    """The tensors of a safetensors file that the sampler takes; float32, strata int64.

    Raises:
        DataError: it cannot be read, lacks users or positives, or a tensor has another shape, a
            number that is not finite, or a stratum that there is not.
    """
    try:
        found = {name: t for name, t in load_file(file).items() if name in sampler.inputs}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read as safetensors: {error}") from error
    for name in ("users", "positives"):
        if name not in found:
            raise DataError(f"{file} has no tensor {name!r}; it needs users and positives")
    rows, features = len(found["users"]), {}
    if isinstance(sampler, TakesFeatures):
        features = {f"{FEATURES}{name}": width for name, width in sampler.features.items()}
    widths = {"users": sampler.dim, "positives": sampler.dim, **features}
    for name, tensor in found.items():
        _check(file, name, tensor, [rows, widths[name]] if name in widths else [rows])
    threshold, strata = found.get("threshold"), found.get("popularity")
    if strata is not None and isinstance(sampler, TakesPopularity):
        _check_strata(file, strata, sampler.strata)
    return Query(
        found["users"].float(),
        found["positives"].float(),
        threshold=None if threshold is None else threshold.float(),
        item_features={
            name.removeprefix(FEATURES): found[name].float() for name in features if name in found
        },
        popularity=None if strata is None else strata.long(),
    )


def _check(file: Path, name: str, tensor: Tensor, shape: list[int]) -> None:
    if list(tensor.shape) != shape:
        raise DataError(f"{file}: {name} {list(tensor.shape)} must be {shape}, B = {shape[0]}")
    bad = ~tensor.isfinite()
    if bad.any():
        row = int(bad.reshape(len(tensor), -1).any(1).nonzero()[0])
        raise DataError(f"{file}: {name} is not finite in row {row}")


def _check_strata(file: Path, strata: Tensor, number: int) -> None:
    if strata.is_floating_point() or bool(((strata < 0) | (strata >= number)).any()):
        raise DataError(f"{file}: popularity must be whole numbers in [0, {number})")
