"""`turnpoint publish`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint


def publish(
    registry: Annotated[str, typer.Option(help="a folder or fsspec address")],
    model: Annotated[str, typer.Option(help="name to publish under")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="folder that holds model.safetensors and manifest.json")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="safetensors with items [I, d]: publishes a catalogue of them instead"),
    ] = None,
    candidates: Annotated[
        int, typer.Option(help="M, of a catalogue: each negative is the hardest of so many")
    ] = 32,
) -> None:
    """Publish a checkpoint folder, e.g. one copied from another registry, and make it live.

    Or publish the items of an encoder that is trained elsewhere, as a model of method catalogue.
    """
    from core.errors import ConfigError
    from core.registry import Registry

    if checkpoint is not None and items is None:
        packed = _folder(checkpoint)
    elif items is not None and checkpoint is None:
        packed = _catalogue(items, candidates)
    else:
        raise ConfigError("name one of the two: a checkpoint folder, or --items FILE")
    version = Registry(registry).publish(model, packed)
    typer.echo(f"{model}: {version} is live")


def _folder(folder: Path) -> "Checkpoint":
    """What a registry holds of a version.

    Raises:
        CheckpointMissingError: one of its files cannot be read.
    """
    from core.checkpoint import MANIFEST_FILE, WEIGHTS_FILE, Checkpoint
    from core.errors import CheckpointMissingError

    try:
        return Checkpoint(
            weights=(folder / WEIGHTS_FILE).read_bytes(),
            manifest=(folder / MANIFEST_FILE).read_bytes(),
        )
    except OSError as error:
        raise CheckpointMissingError(
            f"{folder} is no checkpoint folder ({error.strerror}: {error.filename}); "
            f"it must hold {WEIGHTS_FILE} and {MANIFEST_FILE}"
        ) from error


def _catalogue(file: Path, candidates: int) -> "Checkpoint":
    """A catalogue's sampler of a file's tensor `items`.

    Raises:
        DataError: it cannot be read, or has no such matrix.
    """
    from safetensors import SafetensorError, safe_open

    from core.checkpoint import pack
    from core.errors import DataError
    from core.samplers import Catalogue

    try:
        with safe_open(file, "pt") as tensors:
            table = tensors.get_tensor("items")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} has no tensor 'items' that can be read: {error}") from error
    if table.ndim != 2:
        raise DataError(f"{file}: items {list(table.shape)} must be [I, d]")
    return pack(Catalogue.of(table, candidates=candidates))
