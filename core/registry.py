"""The registry: where checkpoints are published and found.

    <registry>/<model>/<version>/model.safetensors
    <registry>/<model>/<version>/manifest.json
    <registry>/<model>/LATEST                         the live version's name

A version becomes visible all at once or not at all: on a file system it is written beside its
place, synced and renamed; on an object store its manifest comes last, and a version without one is
none.
LATEST is replaced after that, atomically. Readers verify what they read (`core.checkpoint`).
"""

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import fsspec

from core.checkpoint import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    Manifest,
    read_manifest,
    unpack,
    warm_up,
)
from core.errors import CheckpointMissingError, ConfigError

LATEST = "LATEST"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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


class Registry:
    """Models and their versions at one address.

    Args:
        address: a directory, or an fsspec address such as `s3://bucket/registry`.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        remote = "://" in self.address
        self.store: Store = (
            RemoteStore(self.address) if remote else LocalStore(Path(self.address).expanduser())
        )

    def models(self) -> list[str]:
        """The names of the models that have a live version."""
        names = [name for name in self.store.folders("") if _NAME.fullmatch(name)]
        return [name for name in names if self.live(name) is not None]

    def versions(self, model: str) -> list[str]:
        """A model's versions, oldest first."""
        return [v for v in self.store.folders(checked_name(model)) if self._is_whole(model, v)]

    def live(self, model: str) -> str | None:
        """The version that LATEST names, or None where nothing is published."""
        try:
            content = self.store.read(f"{checked_name(model)}/{LATEST}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return content.decode(errors="replace").strip() or None

    def manifest(self, model: str, version: str) -> Manifest:
        """A version's manifest.

        Raises:
            CheckpointMissingError: no such version.
            CheckpointCorruptError, CheckpointRefusedError: see `read_manifest`.
        """
        return read_manifest(self._read(model, version, MANIFEST_FILE))

    def read(self, model: str, version: str) -> Checkpoint:
        """A version's bytes, not yet verified.

        Raises:
            CheckpointMissingError: no such version.
        """
        return Checkpoint(
            weights=self._read(model, version, WEIGHTS_FILE),
            manifest=self._read(model, version, MANIFEST_FILE),
        )

    def publish(self, model: str, checkpoint: Checkpoint) -> str:
        """Verify, warm up, store and make live; the new version's name.

        Raises:
            CheckpointError: the checkpoint would be refused by a service; nothing was written.
        """
        sampler, manifest = unpack(checkpoint)
        warm_up(sampler)
        self.store.create(f"{checked_name(model)}/{manifest.version}", checkpoint.files)
        self.set_live(model, manifest.version)
        return manifest.version

    def set_live(self, model: str, version: str) -> None:
        """Point LATEST at a version: publishing's last step, pinning and rolling back.

        Raises:
            CheckpointMissingError: no such version.
        """
        if not self._is_whole(checked_name(model), checked_name(version)):
            raise CheckpointMissingError(self._missing(model, version))
        self.store.replace(f"{model}/{LATEST}", f"{version}\n".encode())

    def _is_whole(self, model: str, version: str) -> bool:
        try:
            self.store.read(f"{model}/{version}/{MANIFEST_FILE}")
        except OSError:
            return False
        return True

    def _read(self, model: str, version: str, file: str) -> bytes:
        try:
            return self.store.read(f"{checked_name(model)}/{checked_name(version)}/{file}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointMissingError(self._missing(model, version)) from error

    def _missing(self, model: str, version: str) -> str:
        known = ", ".join(self.store.folders(model)[-3:]) or "none"
        return f"model {model!r} has no version {version!r} in {self.address}; latest: {known}"


def checked_name(name: str) -> str:
    """The name, if it can be a folder's: it comes from requests too, and must not climb out.

    Raises:
        ConfigError: otherwise.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:64]!r} is no model or version name: up to 128 letters, digits, '.', '_', '-', "
            "beginning with a letter or digit"
        )
    return name


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
