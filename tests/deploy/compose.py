"""A compose file as `docker compose` reads it: variables replaced, files laid over each other."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MAIN, SECURE = "docker-compose.yml", "docker-compose.secure.yml"
# ${NAME}, ${NAME:-default}, ${NAME:+instead}, ${NAME:?why}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[-+?])(?P<operand>[^}]*))?\}")


def variables(*files: str) -> dict[str, str | None]:
    """Name -> default of every variable in them, None where there is none."""
    text = "\n".join((ROOT / file).read_text() for file in files)
    found = {}
    for match in VARIABLE.finditer(text):
        default = match["operand"] if match["operator"] == "-" else None
        assert found.setdefault(match["name"], default) == default, "two defaults"
    return found


def loaded(*files: str, **environment: str) -> dict[str, Any]:
    """The files, the later over the earlier."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = _over(merged, yaml.safe_load(_replaced((ROOT / file).read_text(), environment)))
    return merged


def _replaced(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        given = environment.get(match["name"], "")
        match match["operator"]:
            case "+":
                return match["operand"] if given else ""
            case "?" if not given:
                raise ValueError(match["operand"])
            case _:
                return given or match["operand"] or ""

    return VARIABLE.sub(value, text)


def _over(below: Any, above: Any) -> Any:
    """Mappings are merged; a list is followed by the other; anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = below.keys() & above.keys()
        return {**below, **above, **{key: _over(below[key], above[key]) for key in both}}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above
