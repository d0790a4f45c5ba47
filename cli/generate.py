"""`turnpoint generate`: negatives in bulk, without a service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ROWS = 2048


def generate(
    registry: Annotated[str, typer.Option(help="a folder or fsspec address")],
    model: Annotated[str, typer.Option(help="name of the model")],
    input: Annotated[  # noqa: A002
        Path, typer.Option(help="safetensors with users and positives [B, d]; threshold [B]")
    ],
    output: Annotated[
        Path, typer.Option(help="safetensors for negatives [B, n, d] and transition [B]")
    ],
    n: Annotated[int, typer.Option(help="negatives per row, at least 1")] = 1,
    transition: Annotated[
        str | None, typer.Option(help="rule for t*; default: the checkpoint's")
    ] = None,
    seed: Annotated[int, typer.Option(help="same seed, same negatives")] = 0,
    version: Annotated[str | None, typer.Option(help="default: the live one")] = None,
    threads: Annotated[
        int | None, typer.Option(help="torch threads; default: one per core")
    ] = None,
) -> None:
    """Generate negatives for a file of pairs, offline."""
    import torch
    from rich.progress import track
    from safetensors.torch import save_file

    from cli.threads import use_threads
    from core.checkpoint import unpack
    from core.errors import CheckpointMissingError, OutOfRangeError
    from core.registry import Registry
    from core.samplers import HasLaw, Query, draw
    from core.transition import Transition

    use_threads(threads)
    store = Registry(registry)
    chosen = version or store.live(model)
    if chosen is None:
        raise CheckpointMissingError(
            f"model {model!r} has no live version in {registry}; `turnpoint models` lists what has"
        )
    sampler, _ = unpack(store.read(model, chosen))
    rule = Transition()
    if isinstance(sampler, HasLaw):
        rule = sampler.transition.override(transition)
    elif transition is not None:
        raise OutOfRangeError(f"--transition is for adar; {model} is of {sampler.method}")
    if n < 1:
        raise OutOfRangeError(f"n = {n}; it must be at least 1")
    users, positives, threshold = _read(input, sampler.dim)
    generator = torch.Generator().manual_seed(seed)
    negatives = torch.empty(len(users), n, sampler.dim)
    stops = torch.empty(len(users), dtype=torch.int64)
    for start in track(range(0, len(users), CHUNK_ROWS), "generating"):
        rows = slice(start, start + CHUNK_ROWS)
        mu = None if threshold is None else threshold[rows]
        query = Query(users[rows], positives[rows], rule, mu)
        drawn = draw(sampler, query, n, generator)
        negatives[rows], stops[rows] = drawn.negatives, drawn.transition
    metadata = {"model": model, "version": chosen, "seed": str(seed)}
    save_file({"negatives": negatives, "transition": stops}, output, metadata)
    typer.echo(f"{output}: {len(users)} rows x {n} negatives from {model} {chosen}")


def _read(input: Path, dim: int) -> "tuple[Tensor, Tensor, Tensor | None]":  # noqa: A002
    """Users and positives [B, d], and the threshold [B] where there is one, float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from core.errors import DataError

    try:
        tensors = {name: tensor.float() for name, tensor in load_file(input).items()}
        users, positives = tensors["users"], tensors["positives"]
    except (OSError, SafetensorError) as error:
        raise DataError(f"{input} cannot be read as safetensors: {error}") from error
    except KeyError as error:
        raise DataError(f"{input} has no tensor {error}; it needs users and positives") from error
    shape = (len(users), dim)
    if users.shape != shape or positives.shape != shape:
        raise DataError(
            f"{input}: users {tuple(users.shape)} and positives {tuple(positives.shape)} must both "
            f"be [B, {dim}]"
        )
    threshold = tensors.get("threshold")
    if threshold is not None and threshold.shape != users.shape[:1]:
        raise DataError(f"{input}: threshold {tuple(threshold.shape)} must be [{len(users)}]")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            row = int((~tensor.isfinite()).reshape(len(tensor), -1).any(1).nonzero()[0])
            raise DataError(f"{input}: {name} is not finite in row {row}")
    return users, positives, threshold
