"""`turnpoint serve`."""

import os
import sys
from typing import Annotated

import typer


def serve(
    registry: Annotated[
        str | None, typer.Option(help="a folder or fsspec address; default: .turnpoint/registry")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="model of requests that name none; default: the only one")
    ] = None,
    host: Annotated[str | None, typer.Option(help="address to bind; default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="port to bind; 0 is a free one")] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="print the resolved settings and stop")
    ] = False,
) -> None:
    """Serve negatives. Flags win over `TURNPOINT_*` variables, which win over the defaults."""
    from service.settings import load_settings
    from service.settings import print_config as rendered

    settings = load_settings(
        {"registry": {"address": registry, "model": model}, "server": {"host": host, "port": port}}
    )
    if print_config:
        typer.echo(rendered(settings))
        return
    from service.server import serve as run  # torch; a wrong setting is told before it loads

    code = run(settings, on_ready=lambda address: typer.echo(f"serving on {address}"))
    if code:
        sys.stderr.flush()
        os._exit(code)  # an orderly exit would wait for a thread that is stuck
