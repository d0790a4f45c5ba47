"""Publish, and it is served; publish something bad, and what was served stays."""

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from core.checkpoint import WEIGHTS_FILE, pack
from core.errors import UnknownModelError
from core.registry import Registry
from service import shelf as module
from service.app import create_app
from service.negatives import Service
from tests.service.live import (
    DIM,
    OCTET,
    expected,
    floats,
    make_sampler,
    octet,
    pairs,
    publish,
    settings_for,
)

USERS, POSITIVES = pairs(20)
BODY = octet(USERS, POSITIVES)


async def ask(client: httpx.AsyncClient, query: str = "") -> httpx.Response:
    return await client.post(f"/negatives?{query}", content=BODY, headers=OCTET)


async def swaps(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """How often each outcome was seen, of those that were."""
    page = (await client.get("/metrics")).text
    return {
        (sample.labels["model"], sample.labels["result"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "turnpoint_swaps_total" and sample.value
    }


def corrupt(address: Path, seed: int, model: str = "demo") -> str:
    """Publish a checkpoint of which a byte is flipped on the disk before it is made live."""
    checkpoint = pack(make_sampler(seed))
    registry = Registry(address)
    before = registry.live(model)
    version = registry.publish(model, checkpoint)
    if before:
        registry.set_live(model, before)
    weights = address / model / version / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    registry.set_live(model, version)
    return version


async def test_nothing_published_then_something(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path / "later"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert "no model is published" in unready.json()["detail"]
        refused = await ask(client)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/models")).json() == {"models": []}
        version = publish(tmp_path / "later")
        for _ in range(200):
            if (await client.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.02)
        assert (await client.get("/readyz")).json() == {
            "status": "ready",
            "models": {"demo": version},
        }
        assert (await ask(client)).headers["x-model-version"] == version


async def test_a_flipped_byte_is_refused_and_the_old_stays(
    client: httpx.AsyncClient, service: Service, registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = service.models.live["demo"].version
    bad = corrupt(registry, seed=1)
    for _ in range(5):
        await service.models.poll()
    assert service.models.live["demo"].version == old
    assert await swaps(client) == {("demo", "ok"): 1, ("demo", "corrupt"): 1}
    told = [r.getMessage() for r in caplog.records if bad in r.getMessage()]
    assert len(told) == 1
    assert "altered" in told[0]
    assert (await ask(client)).headers["x-model-version"] == old
    assert (await client.get("/readyz")).status_code == 200
    asked = await ask(client, f"version={bad}")
    assert (asked.status_code, asked.json()["code"]) == (404, "unknown_version")
    assert "altered" in asked.json()["detail"]
    good = publish(registry, seed=2)  # the next good one is taken
    await service.models.poll()
    assert service.models.live["demo"].version == good


async def test_failing_lasts_as_long_as_the_refusal(
    client: httpx.AsyncClient, service: Service, registry: Path
) -> None:
    async def failing() -> str:
        await service.models.poll()
        page = (await client.get("/metrics")).text
        (line,) = [one for one in page.splitlines() if one.startswith("turnpoint_swap_failing")]
        return line

    old = service.models.live["demo"].version
    assert await failing() == 'turnpoint_swap_failing{model="demo"} 0.0'
    corrupt(registry, seed=1)
    for _ in range(2):
        assert await failing() == 'turnpoint_swap_failing{model="demo"} 1.0'
    Registry(registry).set_live("demo", old)  # rolled back
    assert await failing() == 'turnpoint_swap_failing{model="demo"} 0.0'
    assert service.models.live["demo"].version == old
    corrupt(registry, seed=2)
    assert await failing() == 'turnpoint_swap_failing{model="demo"} 1.0'
    publish(registry, seed=3)  # or mended by the next
    assert await failing() == 'turnpoint_swap_failing{model="demo"} 0.0'


async def test_a_first_version_that_is_bad_is_told_by_readyz(tmp_path: Path) -> None:
    bad = corrupt(tmp_path, seed=1)
    app = create_app(settings_for(tmp_path))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        unready = (await client.get("/readyz")).json()["detail"]
        assert bad in unready
        assert "altered" in unready


async def test_another_dimension_is_refused(
    client: httpx.AsyncClient, service: Service, registry: Path
) -> None:
    old = service.models.live["demo"].version
    other = publish(registry, seed=1, dim=DIM * 2)
    await service.models.poll()
    await service.models.poll()
    assert service.models.live["demo"].version == old
    assert await swaps(client) == {("demo", "ok"): 1, ("demo", "refused"): 1}
    # Whoever names it has embeddings to match.
    body = octet(*pairs(3, dim=DIM * 2))
    asked = await client.post(f"/negatives?version={other}", content=body, headers=OCTET)
    assert asked.status_code == 200
    assert asked.headers["x-negatives-shape"] == f"3,1,{DIM * 2}"


@pytest.mark.parametrize("content", [b"20990101T000000000000-00000000\n", b"../..\n", b"\xff\xfe"])
async def test_latest_that_points_nowhere(
    client: httpx.AsyncClient, service: Service, registry: Path, content: bytes
) -> None:
    old = service.models.live["demo"].version
    (registry / "demo" / "LATEST").write_bytes(content)
    await service.models.poll()
    await service.models.poll()
    assert service.models.live["demo"].version == old
    assert sum((await swaps(client)).values()) == 2  # once ok, once not
    Registry(registry).set_live("demo", publish(registry, seed=4))
    await service.models.poll()
    assert service.models.live["demo"].version != old


async def test_what_appears_late_is_taken_then(service: Service, registry: Path) -> None:
    version = publish(registry, seed=1)
    moved = (registry / "demo" / version).rename(registry / ".hidden")
    await service.models.poll()
    assert service.models.live["demo"].version != version
    moved.rename(registry / "demo" / version)
    await service.models.poll()
    assert service.models.live["demo"].version == version


async def test_an_unreadable_registry_stays_quiet_after_one_line(
    client: httpx.AsyncClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def gone() -> list[str]:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(service.models.registry, "models", gone)
    for _ in range(4):
        await service.models.poll()
    assert caplog.text.count("no route to host") == 1
    assert (await ask(client)).status_code == 200
    assert "turnpoint_registry_up 0.0" in (await client.get("/metrics")).text
    monkeypatch.undo()
    await service.models.poll()
    assert "turnpoint_registry_up 1.0" in (await client.get("/metrics")).text


async def test_stray_folders_harm_nobody(service: Service, registry: Path) -> None:
    (registry / "not a model").mkdir()
    (registry / "empty").mkdir()
    version = publish(registry, seed=1)
    await service.models.poll()
    assert set(service.models.live) == {"demo"}
    assert service.models.live["demo"].version == version


async def test_versions_by_name_live_kept_and_from_the_registry(
    client: httpx.AsyncClient, service: Service, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: Counter[str] = Counter()
    real = module.Shelf._load

    def counted(self: Any, name: str, version: str) -> Any:
        loads[version] += 1
        return real(self, name, version)

    monkeypatch.setattr(module.Shelf, "_load", counted)
    versions = [service.models.live["demo"].version]
    for seed in range(1, 8):
        versions.append(publish(registry, seed=seed))
        await service.models.poll()
    answers = await asyncio.gather(*(ask(client, f"seed=1&version={v}") for v in versions * 2))
    for version, answer in zip(versions * 2, answers, strict=True):
        assert answer.headers["x-model-version"] == version
        right = expected(registry, version, USERS, POSITIVES, seed=1)
        assert torch.equal(floats(answer.content, 20, 1, DIM), right)
    assert loads[versions[-1]] == 1  # live
    assert loads[versions[-2]] == 1  # kept when it was replaced
    assert loads[versions[0]] == 1  # eight asked at once, one load
    assert len(service.models._shelf.kept) == service.models.settings.versions_kept


async def test_several_models(client: httpx.AsyncClient, service: Service, registry: Path) -> None:
    other = publish(registry, model="other", seed=5, dim=4)
    await service.models.poll()
    unnamed = await ask(client)
    assert (unnamed.status_code, unnamed.json()["code"]) == (404, "unknown_model")
    assert "demo, other" in unnamed.json()["detail"]
    assert (await ask(client, "model=demo")).status_code == 200
    body = octet(*pairs(3, dim=4))
    named = await client.post("/negatives?model=other", content=body, headers=OCTET)
    assert named.headers["x-model-version"] == other
    listed = (await client.get("/models")).json()["models"]
    assert [one["name"] for one in listed] == ["demo", "other"]


async def test_the_configured_model_is_the_default(registry: Path) -> None:
    publish(registry, model="other", seed=5)
    app = create_app(settings_for(registry, registry={"model": "other"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        assert (await ask(client)).headers["x-model"] == "other"
    app = create_app(settings_for(registry, registry={"model": "third"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        unready = await client.get("/readyz")
        assert "'third' is not published" in unready.json()["detail"]
        assert (await ask(client)).status_code == 503
        assert (await ask(client, "model=demo")).status_code == 200


async def test_models_are_described(client: httpx.AsyncClient, registry: Path) -> None:
    second = publish(registry, seed=1)
    one = (await client.get("/models/demo")).json()
    assert one["dim"] == DIM
    assert one["method"] == "adar"
    assert one["num_steps"] == 50
    assert one["denoiser"] == "film"
    assert one["transition"]["rule"] == "score_aware"
    assert one["inputs"] == ["users", "positives", "threshold"]
    assert one["age_seconds"] >= 0
    assert [v["version"] for v in one["versions"]][-1] == second
    manifest = json.loads((registry / "demo" / second / "manifest.json").read_text())
    assert one["versions"][-1] == {
        "version": second,
        "created_at": manifest["created_at"],
        "sha256": manifest["sha256"],
    }
    assert (await client.get("/models")).json()["models"][0].keys() == one.keys()


async def test_resolve_names_what_is_served(service: Service) -> None:
    with pytest.raises(UnknownModelError, match="served: demo"):
        await service.models.resolve("nobody", None)


def test_swaps_under_load_fail_nobody_and_mix_nothing(start: Any, registry: Path) -> None:
    """Five versions are published while four callers ask without a pause."""
    live = start(registry)
    stop = threading.Event()
    met: Counter[str] = Counter()

    def until_met(version: str) -> None:
        end = time.monotonic() + 30
        while met[version] < 4:
            assert time.monotonic() < end, f"nobody was answered by {version}: {met}"
            stop.wait(0.01)

    def keep_asking(caller: int) -> list[tuple[int, httpx.Response]]:
        answers = []
        with httpx.Client(base_url=live.url, timeout=30) as client:
            while not stop.is_set():
                seed = 1000 * caller + len(answers)
                url = f"/negatives?n=2&seed={seed}"
                answers.append((seed, client.post(url, content=BODY, headers=OCTET)))
                met[answers[-1][1].headers.get("x-model-version", "none")] += 1
        return answers

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(keep_asking, caller) for caller in range(4)]
        try:
            until_met(live.app.state.service.models.live["demo"].version)
            for seed in range(1, 6):
                until_met(publish(registry, seed=seed))
        finally:
            stop.set()
    answers = [pair for caller in callers for pair in caller.result()]
    assert {answer.status_code for _, answer in answers} == {200}
    versions = Counter(answer.headers["x-model-version"] for _, answer in answers)
    assert len(versions) == 6, versions
    for seed, answer in answers[:: max(1, len(answers) // 400)]:
        version = answer.headers["x-model-version"]
        right = expected(registry, version, USERS, POSITIVES, seed=seed, n=2)
        assert torch.equal(floats(answer.content, 20, 2, DIM), right)
