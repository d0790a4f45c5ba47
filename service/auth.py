"""Who asks: bearer keys at the door. Nothing is open that is not listed in `OPEN`."""

import asyncio
import hashlib
import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import ForbiddenError, UnauthorizedError
from service.keys import Keys
from service.settings import AuthSettings, is_loopback

OPEN = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
LOOK_SECONDS = 1.0  # between two looks at the files


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


@lru_cache(64)
def _is_outside(host: str) -> bool:
    """Whether it is an address that other machines reach; a name or a Unix socket is not."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
