"""`turnpoint models`: what the registry holds, and which version is live."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer(help="List, show and pin published models.", invoke_without_command=True)


@app.callback()
def models(
    context: typer.Context,
    registry: Annotated[str, typer.Option(help="a folder or fsspec address")],
) -> None:
    """List, show and pin published models."""
    context.obj = registry
    if context.invoked_subcommand is None:
        list_models(context)


@app.command("list")
def list_models(context: typer.Context) -> None:
    """One line a model: name, live version, number of versions."""
    from core.registry import Registry

    registry = Registry(context.obj)
    names = registry.models()
    if not names:
        typer.echo(f"nothing is published in {registry.address}")
    for name in names:
        typer.echo(f"{name}  live {registry.live(name)}  {len(registry.versions(name))} version(s)")


@app.command("show")
def show(
    context: typer.Context,
    name: str,
    version: Annotated[str | None, typer.Argument(help="default: the live one")] = None,
) -> None:
    """The manifest of a version, and the versions there are."""
    from core.errors import CheckpointMissingError
    from core.registry import Registry

    registry = Registry(context.obj)
    chosen = version or registry.live(name)
    if chosen is None:
        raise CheckpointMissingError(
            f"model {name!r} has no live version in {registry.address}; name a version, or publish"
        )
    manifest = asdict(registry.manifest(name, chosen))
    versions = registry.versions(name)
    typer.echo(json.dumps({"version": chosen, **manifest, "versions": versions}, indent=2))


@app.command("live")
def live(context: typer.Context, name: str, version: str) -> None:
    """Make a version live: pin it, or roll back to it. Services pick it up by themselves."""
    from core.registry import Registry

    registry = Registry(context.obj)
    before = registry.live(name)
    registry.set_live(name, version)
    typer.echo(f"{name}: {version} is live (was {before})")
