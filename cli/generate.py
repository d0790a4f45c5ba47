"""`turnpoint generate`: negatives in bulk, without a service."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

CHUNK_ROWS = 2048
WRITTEN = ("negatives", "transition", "weights", "items")


def generate(
    registry: Annotated[str, typer.Option(help="a folder or fsspec address")],
    model: Annotated[str, typer.Option(help="name of the model")],
    input: Annotated[  # noqa: A002
        Path,
        typer.Option(
            help="safetensors with users and positives [B, d]; by method: threshold [B], "
            "popularity [B], item_features.NAME [B, f]"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="safetensors for negatives [B, n, d], transition [B], weights and items [B, n]"
        ),
    ],
    n: Annotated[int, typer.Option(help="negatives per row, at least 1")] = 1,
    transition: Annotated[
        str | None, typer.Option(help="rule for t*; default: the checkpoint's")
    ] = None,
    progress: Annotated[
        float | None,
        typer.Option(help="of training, 0 to 1, which gdnsm's difficulty follows", min=0, max=1),
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

    from cli.pairs import read_pairs
    from cli.threads import use_threads
    from core.checkpoint import unpack
    from core.errors import CheckpointMissingError, OutOfRangeError
    from core.registry import Registry
    from core.samplers import HasLaw, draw
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
    pairs = replace(read_pairs(input, sampler), transition=rule, progress=progress)
    generator = torch.Generator().manual_seed(seed)
    starts = range(0, len(pairs.users), CHUNK_ROWS)
    chunks = [
        draw(sampler, pairs.rows(slice(start, start + CHUNK_ROWS)), n, generator)
        for start in track(starts, "generating")
    ]
    parts = {name: [getattr(chunk, name) for chunk in chunks] for name in WRITTEN}
    tensors = {name: torch.cat(whole) for name, whole in parts.items() if whole[0] is not None}
    metadata = {"model": model, "version": chosen, "seed": str(seed)}
    save_file(tensors, output, metadata)
    typer.echo(f"{output}: {len(pairs.users)} rows x {n} negatives from {model} {chosen}")
