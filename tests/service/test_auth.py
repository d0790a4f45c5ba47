"""Nobody comes in who does not belong; keys rotate; messages and logs never quote one."""

import asyncio
import hmac
import itertools
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from core.errors import ConfigError, UnauthorizedError
from service import auth
from service.app import create_app
from service.auth import ANONYMOUS, Caller, Gate
from service.keys import Keys
from service.routes import router
from service.settings import AuthSettings, load_settings, print_config
from tests.service.live import OCTET, octet, pairs, settings_for

ALICE, BOB, ADMIN = "a" * 32, "b0b." * 8, "r00t~" * 8
BODY = octet(*pairs(3))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def serving(registry: Path, **keys: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings_for(registry, auth=keys))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


def gate_of(host: str = "127.0.0.1", **settings: Any) -> Gate:
    return Gate(AuthSettings(**settings), host)


def asked(gate: Gate, *authorization: str, path: str = "/negatives", **scope: Any) -> Caller:
    headers = [(b"authorization", one.encode("latin-1")) for one in authorization]
    return gate.caller({"path": path, "headers": headers, **scope})


def test_keys_are_known_by_name() -> None:
    gate = gate_of(keys=f"alice:{ALICE},{BOB}", admin_keys=f'["root: {ADMIN}"]')
    assert asked(gate, f"Bearer {ALICE}") == Caller("alice")
    assert asked(gate, f"bearer  {ALICE} ") == Caller("alice")
    assert asked(gate, f"Bearer {ADMIN}") == Caller("root", admin=True)
    unnamed = asked(gate, f"Bearer {BOB}")
    assert unnamed.name.startswith("key-")
    assert BOB not in unnamed.name


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        (f"Basic {ALICE}",),
        (ALICE,),
        (f"Bearer {ALICE[:-1]}",),
        (f"Bearer {ALICE}x",),
        (f"Bearer {ALICE.upper()}",),
        (f"Bearer alice:{ALICE}",),
        (f"Bearer {ALICE}", f"Bearer {ALICE}"),
        ("Bearer é\xff\x00",),
    ],
)
def test_what_is_no_key(given: tuple[str, ...]) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        asked(gate_of(keys=f"alice:{ALICE}"), *given)
    assert ALICE not in str(refused.value)


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, real = [], hmac.compare_digest

    def counted(known: bytes, given: bytes) -> bool:
        compared.append(len(known) == len(given) == 32)
        return real(known, given)

    keys = Keys("X_", AuthSettings(keys=f"{ALICE},{BOB},{ADMIN}").keys, None)
    monkeypatch.setattr(hmac, "compare_digest", counted)
    for digest in [*keys._known, b"\0" * 32]:
        compared.clear()
        keys.owner(digest)
        assert compared == [True] * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("short", "entry 1 is too short"),
        (f"{ALICE},short", "entry 2 is too short"),
        (f"{ALICE},two words of a key", "entry 2 is no"),
        (f"{ALICE}:", "entry 1 is no"),
        (f"é{ALICE}", "entry 1 is no"),
        ("[" + ALICE, "no JSON list"),
        ("[1, 2]", "entry 1 is too short"),
        (",", "has no key"),
        ("[]", "has no key"),
    ],
)
def test_a_key_that_cannot_be_one_stops_the_start(given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        gate_of(keys=given)
    assert "TURNPOINT_AUTH__KEYS" in str(refused.value)
    assert ALICE not in str(refused.value)
    assert "two words" not in str(refused.value)


def test_a_file_of_keys_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n\nalice: {ALICE}  # until June\n")
    gate = gate_of(keys=f"ci:{ADMIN}", keys_file=str(path))
    for name, key in (("alice", ALICE), ("ci", ADMIN)):
        assert asked(gate, f"Bearer {key}") == Caller(name)

    path.write_text(f"bob:{BOB}\n")
    os.utime(path, (1, 1))  # an older time is a change like any other
    gate.plain.look()
    assert asked(gate, f"Bearer {BOB}") == Caller("bob")
    with pytest.raises(UnauthorizedError):
        asked(gate, f"Bearer {ALICE}")

    for broken in ("short\n", "# nothing\n", "two words of a key\n", ""):
        caplog.clear()
        path.write_text(broken)
        for _ in range(3):
            gate.plain.look()
        assert asked(gate, f"Bearer {BOB}") == Caller("bob")
        assert caplog.text.count("the keys stay as they were") == 1
    caplog.clear()
    path.unlink()
    for _ in range(3):
        gate.plain.look()
    assert asked(gate, f"Bearer {BOB}") == Caller("bob")
    assert caplog.text.count("cannot be read") == 1

    path.write_text(f"bob:{BOB}\n{ALICE}\n")
    gate.plain.look()
    assert len(gate.plain) == 3
    assert ALICE not in caplog.text
    assert BOB not in caplog.text


async def test_the_files_are_followed_while_serving(
    registry: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "LOOK_SECONDS", 0.01)
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(ALICE)
    async with serving(registry, keys_file=str(path)) as client:
        assert (await client.get("/models", headers=bearer(ALICE))).status_code == 200
        assert (await client.get("/models", headers=bearer(BOB))).status_code == 401
        path.with_suffix(".new").write_text(BOB)
        path.with_suffix(".new").replace(path)
        for _ in range(500):
            if (await client.get("/models", headers=bearer(BOB))).status_code == 200:
                break
            await asyncio.sleep(0.01)
        assert (await client.get("/models", headers=bearer(ALICE))).status_code == 401


async def test_everything_is_closed_but_what_is_listed(registry: Path) -> None:
    async with serving(registry, keys=ALICE) as client:
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        assert len(routes) >= 8
        for route, key in itertools.product(routes, (None, BOB)):
            path = route.path.replace("{name}", "demo")
            (method,) = route.methods
            answer = await client.request(method, path, headers=bearer(key) if key else {})
            closed = path not in auth.OPEN | {"/metrics"}
            assert (answer.status_code == 401) == closed, path
            if closed:
                assert answer.json()["code"] == "unauthorized"
                assert answer.headers["www-authenticate"] == 'Bearer realm="turnpoint"'
        for path in ("/nothing", "/livez/", "//livez", "/LIVEZ", "/metrics/x", "/negatives%2f"):
            assert (await client.get(path)).status_code == 401
        answered = await client.post("/negatives", content=BODY, headers=OCTET | bearer(ALICE))
        assert answered.status_code == 200


async def test_metrics_can_be_closed(registry: Path) -> None:
    async with serving(registry, keys=ALICE, metrics_need_key=True) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearer(ALICE))).status_code == 200
        assert (await client.get("/livez")).status_code == 200


async def test_a_refused_body_is_not_read(registry: Path) -> None:
    async with serving(registry, keys=ALICE) as client:
        read = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read += 1
            yield BODY

        assert (await client.post("/negatives", content=body())).status_code == 401
        assert read == 0


def test_without_keys_only_this_machine_comes_in() -> None:
    gate = gate_of()
    assert asked(gate) == ANONYMOUS
    assert asked(gate, "Bearer whatever") == ANONYMOUS  # there is no key it could differ from
    assert asked(gate, server=("127.0.0.1", 80)) == ANONYMOUS
    assert asked(gate, server=("::1", 80)) == ANONYMOUS
    assert asked(gate, server=("/run/socket", None)) == ANONYMOUS
    for outside in ("10.0.0.7", "192.168.1.1", "2001:db8::1"):  # bound by another server than ours
        with pytest.raises(UnauthorizedError):
            asked(gate, server=(outside, 80))
    with pytest.raises(UnauthorizedError):
        asked(gate_of("0.0.0.0"))
    assert asked(gate_of("0.0.0.0", allow_anonymous=True), server=("10.0.0.7", 80)) == ANONYMOUS


def test_where_anybody_may_ask_a_wrong_key_is_still_wrong() -> None:
    gate = gate_of("0.0.0.0", keys=ALICE, allow_anonymous=True)
    assert asked(gate) == ANONYMOUS
    assert asked(gate, f"Bearer {ALICE}") != ANONYMOUS
    with pytest.raises(UnauthorizedError):
        asked(gate, f"Bearer {BOB}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org"])
def test_a_public_address_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match=f"SERVER__HOST = {host} would let anybody in: set"):
        load_settings({"server": {"host": host}})
    for mend in ({"keys": ALICE}, {"keys_file": "f"}, {"allow_anonymous": True}):
        load_settings({"server": {"host": host}, "auth": mend})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_needs_none(host: str) -> None:
    load_settings({"server": {"host": host}})


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNPOINT_AUTH__KEYS", f"alice:{ALICE}")
    monkeypatch.setenv("TURNPOINT_AUTH__ADMIN_KEYS", ADMIN)
    settings = load_settings()
    for shown in (print_config(settings), repr(settings), str(settings)):
        assert ALICE not in shown
        assert ADMIN not in shown
    with pytest.raises(ConfigError) as refused:
        load_settings({"auth": {"keys": [ALICE]}})
    assert ALICE not in str(refused.value)
