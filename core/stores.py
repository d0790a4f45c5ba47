"""Where a registry keeps its files: a directory, or an fsspec address such as `s3://bucket/registry`.

A folder of files becomes visible as a whole and goes as a whole, or not at all: on a file system it
is written beside its place, synced and renamed; on an object store the last file makes it visible,
and goes first.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import fsspec

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")


@runtime_checkable
class Store(Protocol):
    """Files under one root. Paths are relative, with forward slashes."""

    def read(self, path: str) -> bytes:
        """The content; FileNotFoundError where there is none."""
        ...

    def folders(self, path: str) -> list[str]:
        """The names of the folders below; empty where there is none."""
        ...

    def create(self, path: str, files: Mapping[str, bytes]) -> None:
        """A new folder with its files in order, visible as a whole; FileExistsError if there."""
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Put content in a file's place, atomically."""
        ...

    def remove(self, path: str, files: Sequence[str]) -> None:
        """Remove a folder of `create`: its files in this order, so that the first one hides it."""
        ...

    def sweep(self, path: str, older: float) -> list[str]:
        """Remove what a killed writer left half done below, if it is older than `older` seconds."""
        ...


class LocalStore:
    """A directory: fsync, then rename, then fsync of the parent."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return (self.root / path).read_bytes()

    def folders(self, path: str) -> list[str]:
        """Names of the folders, without those still being written."""
        folder = self.root / path
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")

    def create(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write to a hidden folder beside the target, then rename it."""
        target = self.root / path
        if target.exists():
            raise FileExistsError(target)
        draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        draft.mkdir(parents=True)
        try:
            for name, content in files.items():
                _write_synced(draft / name, content)
            _sync_folder(draft)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync_folder(target.parent)

    def replace(self, path: str, content: bytes) -> None:
        """Write beside the file, then rename over it."""
        target = self.root / path
        draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        try:
            _write_synced(draft, content)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def remove(self, path: str, files: Sequence[str]) -> None:  # noqa: ARG002
        """Make it a draft again, in one step; then it is safe to be slow, or killed."""
        target = self.root / path
        draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        target.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)

    def sweep(self, path: str, older: float) -> list[str]:
        """Drafts, by the age of the last write to each."""
        folder = self.root / path
        found = (
            [p for p in folder.glob(".*") if _DRAFT.fullmatch(p.name)] if folder.is_dir() else []
        )
        stale = [p for p in found if _age_seconds(p) > older]
        for draft in stale:
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink()
        return sorted(p.name for p in stale)


class RemoteStore:
    """An fsspec address, e.g. `s3://bucket/registry`; single-object writes are atomic there."""

    def __init__(self, address: str) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(address)
        # Another process publishes: a cached listing would hide its versions.
        self.fs.use_listings_cache = False

    def read(self, path: str) -> bytes:
        """The content of an object."""
        return bytes(self.fs.cat_file(f"{self.root}/{path}"))

    def folders(self, path: str) -> list[str]:
        """Names of the common prefixes."""
        self.fs.invalidate_cache()
        try:
            entries = self.fs.ls(f"{self.root}/{path}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def create(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write the objects in order; the last one makes the version visible."""
        last = f"{self.root}/{path}/{list(files)[-1]}"
        if self.fs.exists(last):
            raise FileExistsError(last)
        for name, content in files.items():
            self.fs.pipe_file(f"{self.root}/{path}/{name}", content)

    def replace(self, path: str, content: bytes) -> None:
        """Overwrite one object."""
        self.fs.pipe_file(f"{self.root}/{path}", content)

    def remove(self, path: str, files: Sequence[str]) -> None:
        """Remove the objects in order."""
        for name in files:
            self.fs.rm_file(f"{self.root}/{path}/{name}")

    def sweep(self, path: str, older: float) -> list[str]:  # noqa: ARG002
        """Nothing: weights without a manifest are no version; a bucket's own rules expire them."""
        return []


def _age_seconds(draft: Path) -> float:
    """Since the last write to it or to what is in it; 0 if it went away meanwhile."""
    try:
        touched = [draft.stat().st_mtime, *(p.stat().st_mtime for p in draft.glob("*"))]
    except FileNotFoundError:
        return 0.0
    return time.time() - max(touched)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
