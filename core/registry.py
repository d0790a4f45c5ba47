"""The registry: where checkpoints are published and found.

    <registry>/<model>/<version>/model.safetensors
    <registry>/<model>/<version>/manifest.json
    <registry>/<model>/LATEST                         the live version's name

A version becomes visible all at once or not at all (`core.stores`): on an object store its manifest
comes last, and a version without one is none. LATEST is replaced after that, atomically. Readers
verify what they read (`core.checkpoint`).
"""

import re
from pathlib import Path

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
from core.stores import LocalStore, RemoteStore, Store

LATEST = "LATEST"
STALE_DRAFT_SECONDS = 3600.0  # nobody takes that long to write a version
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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

    def prune(
        self, model: str, keep: int, *, drafts_older: float = STALE_DRAFT_SECONDS
    ) -> list[str]:
        """Remove all versions but the latest `keep` and the live one, and drafts left by a kill.

        A version that was pinned is the live one, so it stays; LATEST is read again before each
        removal, since somebody may roll back meanwhile.

        Args:
            model: its name.
            keep: versions, at least 1.
            drafts_older: seconds since the last write to a draft.

        Returns:
            what was removed, oldest first; drafts first.

        Raises:
            ConfigError: `keep` is below 1.
        """
        if keep < 1:
            raise ConfigError(f"keep = {keep}; at least 1 version must stay")
        removed = self.store.sweep(checked_name(model), drafts_older)
        for version in self.versions(model)[:-keep]:
            if version != self.live(model):
                self.store.remove(f"{model}/{version}", (MANIFEST_FILE, WEIGHTS_FILE))
                removed.append(version)
        return removed

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
