"""The dashboards' JSON as Grafana reads it: panels, and queries with their variables filled in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Any]:
    """uid -> dashboard."""
    read = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
    return {dashboard["uid"]: dashboard for dashboard in read}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Its panels, without the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(panel: dict[str, Any], dashboard: dict[str, Any], window: str) -> Iterator[str]:
    """The PromQL of each target: every variable at All, `$__rate_interval` as given."""
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", window)
        for variable in dashboard["templating"]["list"]:
            query = query.replace(f"${variable['name']}", variable["allValue"])
        yield query
