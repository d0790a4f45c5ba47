"""`turnpoint publish`."""

from pathlib import Path
from typing import Annotated

import typer


def publish(
    checkpoint: Annotated[
        Path, typer.Argument(help="folder that holds model.safetensors and manifest.json")
    ],
    registry: Annotated[str, typer.Option(help="a folder or fsspec address")],
    model: Annotated[str, typer.Option(help="name to publish under")],
) -> None:
    """Publish a checkpoint folder, e.g. one copied from another registry, and make it live."""
    from core.checkpoint import MANIFEST_FILE, WEIGHTS_FILE, Checkpoint
    from core.errors import CheckpointMissingError
    from core.registry import Registry

    try:
        packed = Checkpoint(
            weights=(checkpoint / WEIGHTS_FILE).read_bytes(),
            manifest=(checkpoint / MANIFEST_FILE).read_bytes(),
        )
    except OSError as error:
        raise CheckpointMissingError(
            f"{checkpoint} is no checkpoint folder ({error.strerror}: {error.filename}); "
            f"it must hold {WEIGHTS_FILE} and {MANIFEST_FILE}"
        ) from error
    version = Registry(registry).publish(model, packed)
    typer.echo(f"{model}: {version} is live")
