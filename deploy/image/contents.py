"""What must not be in an image."""

import re
from pathlib import Path

from deploy.image.container import Image

UID = 10001
BUILD_TOOLS = {"cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake"}
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
OURS = ("turnpoint==", "turnpoint-client==")
TORCH = "torch=="  # the Dockerfile pins it


def inspect(image: Image) -> dict[str, set[str]]:
    """What was looked for -> what of it was found."""
    return {
        "no compilers": _programs(image) & BUILD_TOOLS,
        "no package at a version that is not locked": _installed(image) - _locked(),
        "nothing in /opt that its user could change": _writable(image),
    }


def _programs(image: Image) -> set[str]:
    folders = [image.root / path for path in ("usr/bin", "usr/local/bin", "opt/turnpoint/bin")]
    return {file.name for folder in folders if folder.is_dir() for file in folder.iterdir()}


def _installed(image: Image) -> set[str]:
    """`name==version` of everybody else's packages."""
    folders = image.root.glob("opt/turnpoint/lib/python3*/site-packages/*.dist-info")
    stems = (folder.name.removesuffix(".dist-info") for folder in folders)
    names = {_canonical("==".join(stem.rsplit("-", 1))) for stem in stems}
    return {name for name in names if not name.startswith((*OURS, TORCH))}


def _locked() -> set[str]:
    lines = CONSTRAINTS.read_text().splitlines()
    pins = (line.partition(";")[0].strip() for line in lines if not line.startswith("#"))
    return {_canonical(pin) for pin in pins if pin}


def _canonical(requirement: str) -> str:
    """A requirement with its name as package indexes compare it."""
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _writable(image: Image) -> set[str]:
    files = (file for file in (image.root / "opt").rglob("*") if not file.is_symlink())
    stats = ((file, file.stat()) for file in files)
    return {str(file) for file, stat in stats if stat.st_uid == UID or stat.st_mode & 0o022}
