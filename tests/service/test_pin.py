"""`POST /models/{name}/live`: who may, what it does, and that it does nothing where it fails."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.checkpoint import WEIGHTS_FILE
from core.registry import Registry
from service.app import create_app
from service.negatives import Service
from tests.service.live import DIM, OCTET, octet, pairs, publish, settings_for
from tests.service.test_auth import ADMIN, ALICE, bearer, serving

KEYS = {"keys": f"alice:{ALICE}", "admin_keys": f"root:{ADMIN}"}
LIVE = "/models/demo/live"


@pytest.fixture
async def guarded(registry: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(registry, **KEYS) as client:
        yield client


def service_of(client: httpx.AsyncClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


async def pin(
    client: httpx.AsyncClient, version: object, key: str = ADMIN, path: str = LIVE
) -> httpx.Response:
    return await client.post(path, json={"version": version}, headers=bearer(key))


async def test_back_and_forth(
    guarded: httpx.AsyncClient, registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models, store = service_of(guarded).models, Registry(registry)
    first = store.live("demo")
    second = publish(registry, seed=1)
    await models.poll()
    for version, before in ((first, second), (second, first), (second, second)):
        answer = await pin(guarded, version)
        assert answer.status_code == 200
        assert answer.json() == {"name": "demo", "live": version, "before": before}
        assert store.live("demo") == version  # other replicas, and this one after a restart
        assert models.live["demo"].version == version
        await models.poll()
        assert models.live["demo"].version == version
        asked = await guarded.post(
            "/negatives", content=octet(*pairs(2)), headers=OCTET | bearer(ALICE)
        )
        assert asked.headers["x-model-version"] == version
    assert f"root pinned model demo to version {first}" in caplog.text


async def test_it_survives_a_restart(guarded: httpx.AsyncClient, registry: Path) -> None:
    first = Registry(registry).live("demo")
    publish(registry, seed=1)
    await service_of(guarded).models.poll()
    await pin(guarded, first)
    async with serving(registry) as restarted:
        assert service_of(restarted).models.live["demo"].version == first


async def test_who_may(guarded: httpx.AsyncClient, registry: Path) -> None:
    version = Registry(registry).live("demo")
    nobody = await guarded.post(LIVE, json={"version": version})
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthorized")
    plain = await pin(guarded, version, ALICE)
    assert (plain.status_code, plain.json()["code"]) == (403, "forbidden")
    assert "alice" in plain.json()["detail"]


@pytest.mark.parametrize("keys", [{}, {"keys": ALICE}])
async def test_without_admin_keys_nobody_may(registry: Path, keys: dict[str, str]) -> None:
    async with serving(registry, **keys) as client:
        refused = await pin(client, Registry(registry).live("demo"), ALICE)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "TURNPOINT_AUTH__ADMIN_KEYS" in refused.json()["detail"]


async def test_with_admin_keys_alone_anybody_here_asks_and_only_they_pin(registry: Path) -> None:
    async with serving(registry, admin_keys=ADMIN) as client:
        assert (await client.get("/models")).status_code == 200
        version = Registry(registry).live("demo")
        assert (await client.post(LIVE, json={"version": version})).status_code == 401
        assert (await pin(client, version)).status_code == 200


@pytest.mark.parametrize(
    "bad", ["20990101T000000000000-00000000", "../..", "", "x" * 5000, "a/b", "\n", "a\0b"]
)
async def test_a_version_that_is_not_there(
    guarded: httpx.AsyncClient, registry: Path, bad: str
) -> None:
    first = Registry(registry).live("demo")
    refused = await pin(guarded, bad)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_version")
    assert Registry(registry).live("demo") == first
    assert service_of(guarded).models.live["demo"].version == first


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e", "a%00b", "x" * 300])
async def test_a_model_that_is_not_there(guarded: httpx.AsyncClient, name: str) -> None:
    refused = await pin(guarded, "v", path=f"/models/{name}/live")
    assert refused.status_code == 404


@pytest.mark.parametrize("damage", ["altered", "truncated", "dimension"])
async def test_what_may_not_be_live_is_not_pinned(
    guarded: httpx.AsyncClient, registry: Path, damage: str
) -> None:
    store = Registry(registry)
    first = store.live("demo")
    bad = publish(registry, seed=1, dim=DIM * 2 if damage == "dimension" else DIM)
    store.set_live("demo", str(first))
    weights = registry / "demo" / bad / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-5] ^= damage == "altered"
    weights.write_bytes(content[:-1] if damage == "truncated" else content)
    refused = await pin(guarded, bad)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_version")
    assert damage in refused.json()["detail"]
    assert store.live("demo") == first
    assert service_of(guarded).models.live["demo"].version == first


async def test_a_registry_that_cannot_be_written(
    guarded: httpx.AsyncClient, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = service_of(guarded).models
    first = Registry(registry).live("demo")
    second = publish(registry, seed=1)
    await models.poll()

    def read_only(path: str, content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(models.registry.store, "replace", read_only)
    refused = await pin(guarded, first)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "Read-only" in refused.json()["detail"]
    assert models.live["demo"].version == second == Registry(registry).live("demo")


async def test_rolling_back_from_a_bad_start(registry: Path) -> None:
    """The live version is corrupt at start-up; an admin pins the one before."""
    good = str(Registry(registry).live("demo"))
    bad = publish(registry, seed=1)
    (registry / "demo" / bad / WEIGHTS_FILE).write_bytes(b"")
    async with serving(registry, **KEYS) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await pin(client, good)).json() == {"name": "demo", "live": good, "before": None}
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"{}", b'{"version": 1}', b'{"version": "a", "b": 1}', b"\xff"]
)
async def test_a_body_that_is_none(guarded: httpx.AsyncClient, body: bytes) -> None:
    refused = await guarded.post(LIVE, content=body, headers=bearer(ADMIN))
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed")


async def test_latest_pointing_nowhere_at_the_start_is_told_by_readyz(registry: Path) -> None:
    (registry / "demo" / "LATEST").write_text("20990101T000000000000-00000000\n")
    app = create_app(settings_for(registry))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert "no version '20990101T000000000000-00000000'" in unready.json()["detail"]
