"""The requirements of one target as pip reads them: `python3 needs.py service > needs.txt`.

They come from the two pyproject.toml files alone, so that a change of our code leaves the layer of
everybody else's as it is.
"""

import sys
import tomllib
from pathlib import Path


def project(file: str) -> dict:
    """The `[project]` table."""
    return tomllib.loads(Path(file).read_text())["project"]


ours, client = project("pyproject.toml"), project("client/pyproject.toml")
needs = ours["dependencies"] + ours["optional-dependencies"][sys.argv[1]] + client["dependencies"]
print("\n".join(needs))
