"""The keys that are known, compared in constant time, and the file through which they rotate.

A key is told by its SHA-256, which all have one length, and every known one is compared, so that
the time taken says nothing. The file is read again when it changes; one that is broken or gone
leaves the keys as they were.
"""

import hashlib
import hmac
import json
import logging
import re
from pathlib import Path

from pydantic import SecretStr

from core.errors import ConfigError

SHORTEST_KEY = 16
# RFC 6750 2.1; a key has no colon, so the first one ends a name.
_LINE = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,64})\s*:\s*)?(?P<key>[A-Za-z0-9._~+/-]+=*)")
log = logging.getLogger("turnpoint.service")


class Keys:
    """The keys of one kind: those of a setting, and those of a file that may change.

    Args:
        setting: its name, without KEYS, for messages.
        given: `[name:]key`, comma separated or a JSON list.
        file: path of a file of them, one a line.

    Raises:
        ConfigError: a key that cannot be one, or a file that cannot be read.
    """

    def __init__(self, setting: str, given: SecretStr | None, file: str | None) -> None:
        self.setting = setting
        self.path = Path(file).expanduser() if file else None
        self._given: dict[bytes, str] = {}
        if given is not None:
            self._given = _parsed(_listed(given.get_secret_value(), setting), f"{setting}KEYS")
        self._known = self._given
        self._read = b""  # the file's content when it was last looked at
        self._trouble = ""
        if self.path is not None:
            self._known = self._given | self._from(self._content(self.path))

    def __len__(self) -> int:
        return len(self._known)

    def owner(self, digest: bytes) -> str | None:
        """The name of the key with that SHA-256; takes as long whichever it is, or none."""
        found = None
        for known, name in self._known.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def look(self) -> None:
        """Read the file again; keep the keys where it is broken, and say so once."""
        if self.path is None:
            return
        try:
            content = self._content(self.path)
            if content == self._read and not self._trouble:
                return
            self._known = self._given | self._from(content)
        except ConfigError as error:
            if str(error) != self._trouble:
                log.warning("the keys stay as they were: %s", error)
            self._trouble = str(error)
            return
        self._trouble = ""
        log.info("%sKEYS_FILE was read again; %d keys are known", self.setting, len(self))

    def _content(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self.setting}KEYS_FILE = {path} cannot be read: {error.strerror or error}; "
                "name a file with one key a line"
            ) from error

    def _from(self, content: bytes) -> dict[bytes, str]:
        self._read = content
        lines = [line.partition("#")[0].strip() for line in content.decode("latin-1").splitlines()]
        return _parsed(lines, f"{self.setting}KEYS_FILE = {self.path}")


def _listed(text: str, setting: str) -> list[str]:
    """The entries of a setting."""
    if not text.lstrip().startswith("["):
        return [entry.strip() for entry in text.split(",")]
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{setting}KEYS begins with '[' and is no JSON list of strings; write "
            '["name:key", ...] or name:key,...'
        ) from error
    return [str(entry) for entry in entries]


def _parsed(entries: list[str], where: str) -> dict[bytes, str]:
    """SHA-256 -> name of every entry that is not empty. No message quotes a key.

    Raises:
        ConfigError: an entry that is no `[name:]key`, a key that can be guessed, or no entry.
    """
    keys: dict[bytes, str] = {}
    for number, entry in enumerate(entries, 1):
        if not entry:
            continue
        match = _LINE.fullmatch(entry)
        if match is None or len(match["key"]) < SHORTEST_KEY:
            wrong = "is no `[name:]key`" if match is None else "is too short"
            raise ConfigError(
                f"{where}: entry {number} {wrong}; a key is {SHORTEST_KEY} or more letters, digits "
                "and -._~+/= (make one with `openssl rand -hex 32`)"
            )
        digest = hashlib.sha256(match["key"].encode()).digest()
        keys[digest] = match["name"] or f"key-{digest.hex()[:12]}"
    if not keys:
        raise ConfigError(f"{where} has no key; give at least one, or leave the setting out")
    return keys
