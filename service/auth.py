"""Who asks: bearer keys, compared in constant time. Nothing is open that is not listed in `OPEN`.

A key is told by its SHA-256, which all have one length, and every known one is compared, so that
the time taken says nothing. Keys rotate through a file: it is read again when it changes, and a
file that is broken or gone leaves the keys as they were.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import ConfigError, ForbiddenError, UnauthorizedError
from service.settings import AuthSettings, is_loopback

OPEN = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
LOOK_SECONDS = 1.0  # between two looks at the files
SHORTEST_KEY = 16
# RFC 6750 2.1, without the colon that ends a name.
_LINE = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,64})\s*:\s*)?(?P<key>[A-Za-z0-9._~+/-]+=*)")
log = logging.getLogger("turnpoint.service")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: the key's; of a key without one, the beginning of its SHA-256.
        admin: whether the key may change what is served.
    """

    name: str
    admin: bool = False


ANONYMOUS = Caller("anonymous")


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


class Gate:
    """Says who a request is from, or that it may not come in.

    Args:
        settings: keys, and whether none is needed.
        host: the address that is bound.

    Raises:
        ConfigError: see `Keys`.
    """

    def __init__(self, settings: AuthSettings, host: str) -> None:
        self.plain = Keys("TURNPOINT_AUTH__", settings.keys, settings.keys_file)
        self.admin = Keys("TURNPOINT_AUTH__ADMIN_", settings.admin_keys, settings.admin_keys_file)
        self.open = OPEN if settings.metrics_need_key else OPEN | {"/metrics"}
        self._anyone = settings.allow_anonymous
        self._local = is_loopback(host) and not len(self.plain)

    def caller(self, scope: Scope) -> Caller:
        """Whoever shows a known key, or anybody where no key is needed.

        Raises:
            UnauthorizedError: no key, or one that is not known.
        """
        if scope["path"] in self.open:
            return ANONYMOUS
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._lets_anybody_in(scope) and not (given and (len(self.plain) or len(self.admin))):
            return ANONYMOUS
        if len(given) != 1:
            raise UnauthorizedError("this needs one header `Authorization: Bearer <key>`")
        scheme, _, key = given[0].partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        admin, plain = self.admin.owner(digest), self.plain.owner(digest)
        name = admin or plain
        if scheme.lower() != b"bearer" or name is None:
            raise UnauthorizedError(
                "the key is not known here: send `Authorization: Bearer <key>` with a key that "
                "the service's operator gave you"
            )
        return Caller(name, admin=admin is not None)

    async def watch(self) -> None:
        """Follow the files until cancelled."""
        followed = [keys for keys in (self.plain, self.admin) if keys.path]
        while followed:
            await asyncio.sleep(LOOK_SECONDS)
            for keys in followed:
                await asyncio.to_thread(keys.look)

    def _lets_anybody_in(self, scope: Scope) -> bool:
        """Asked for, or only this machine can ask: under another server than ours, too."""
        server = scope.get("server")
        return self._anyone or (self._local and not (server and _is_outside(server[0])))


class Authenticate:
    """Pure ASGI: puts the `caller` into the request's state, or refuses before the body is read."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a caller."""
        if scope["type"] == "http":
            scope["state"]["caller"] = self.gate.caller(scope)
        await self.app(scope, receive, send)


def admin_of(request: Request, gate: Gate) -> Caller:
    """The caller of a request that changes what is served.

    Raises:
        UnauthorizedError: nobody in particular.
        ForbiddenError: there is no admin key, or this is none.
    """
    caller: Caller = request.state.caller
    if not len(gate.admin):
        raise ForbiddenError(
            "no admin key is configured, so nobody may do this over HTTP: set "
            "TURNPOINT_AUTH__ADMIN_KEYS, or use `turnpoint models live` where the registry is"
        )
    if caller == ANONYMOUS:
        raise UnauthorizedError("this needs `Authorization: Bearer <admin key>`")
    if not caller.admin:
        raise ForbiddenError(
            f"the key of {caller.name} is no admin key; ask the operator of the service for one"
        )
    return caller


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


@lru_cache(64)
def _is_outside(host: str) -> bool:
    """Whether it is an address that other machines reach; a name or a Unix socket is not."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
