"""Embeddings at an address, read again whenever they have changed.

A writer may be in the midst of it: files are read once they have stayed the same between two looks,
and again at the next look where what was read is not whole or has changed meanwhile. One file
that is replaced by a rename (or one object) is always whole; two files of a folder may be of two
different moments if more than a look lies between them.
"""

import logging
from typing import Any

import fsspec

from core.errors import ConfigError, DataError
from trainer.encoders.external.exported import SUFFIXES, Exported
from trainer.encoders.external.tables import Contents, Embedder, read_tables

PAIRS_OF_FILES = (("users.npy", "items.npy"), ("users.parquet", "items.parquet"))
log = logging.getLogger("turnpoint.follow")


class Snapshot:
    """What stands at an address.

    Args:
        address: a file or folder, local or of any fsspec address; see `tables` and `exported`.
        trust_code: whether a form that can run code may be loaded.
    """

    def __init__(self, address: str, *, trust_code: bool = False) -> None:
        self.address, self.trust_code = address, trust_code
        self._fs, self._path = fsspec.core.url_to_fs(address)
        self._fs.use_listings_cache = False
        self.mark = ""  # of what was read last
        self._seen = ""
        self._told = ""

    def look(self) -> Embedder | None:
        """What is there, if it is new and has settled; call it from time to time.

        Raises:
            ConfigError: its form is not known, not trusted, or needs a library.
        """
        try:
            files = self._files()
            mark = self._mark(files)
            if mark == self.mark:
                return None
            if mark != self._seen:
                self._seen = mark
                return None
            contents = {name: bytes(self._fs.cat_file(path)) for name, path in files.items()}
            if self._mark(files) != mark:
                return None
            embedder = self._read(contents)
        except (OSError, DataError) as error:
            self._tell(str(error))
            return None
        self.mark, self._told = mark, ""
        return embedder

    def _files(self) -> dict[str, str]:
        """Name -> path."""
        name = self._path.rstrip("/").rsplit("/", 1)[-1]
        if name.endswith((".safetensors", *SUFFIXES)):
            return {name: self._path}
        if not self._fs.isdir(self._path):
            if self._fs.exists(self._path):
                raise ConfigError(
                    f"{self.address}: cannot tell the form; wanted is .safetensors, "
                    f"{', '.join(SUFFIXES)}, or a folder of users and items as .npy or .parquet"
                )
            raise FileNotFoundError(f"nothing is at {self.address}")
        for names in PAIRS_OF_FILES:
            paths = {one: f"{self._path.rstrip('/')}/{one}" for one in names}
            if all(self._fs.exists(path) for path in paths.values()):
                return paths
        wanted = " or ".join(" and ".join(names) for names in PAIRS_OF_FILES)
        raise FileNotFoundError(f"{self.address} has neither {wanted}")

    def _mark(self, files: dict[str, str]) -> str:
        """What tells two writings apart: size, time, inode, ETag, whatever the store has."""
        self._fs.invalidate_cache()
        infos: list[dict[str, Any]] = [self._fs.info(path) for path in files.values()]
        return str(fsspec.utils.tokenize(infos))

    def _read(self, contents: Contents) -> Embedder:
        name, content = next(iter(contents.items()))
        if name.endswith(SUFFIXES):
            return Exported(name, content, self.trust_code)
        return read_tables(contents)

    def _tell(self, why: str) -> None:
        if why != self._told:
            self._told = why
            log.warning("%s: %s; looking again", self.address, why)
