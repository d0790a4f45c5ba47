"""The metrics page parses, tells the truth, and does not grow with what strangers ask."""

import re

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from service.histograms import FRACTIONS, GAP_ROWS, GAPS, ScoreGaps, TransitionSteps
from service.negatives import Service
from tests.service.live import OCTET, octet, pairs

PROMISED = {
    "requests_total": {"route", "code"},
    "request_seconds": {"route"},
    "decode_seconds": set(),
    "queue_seconds": set(),
    "sample_seconds": set(),
    "encode_seconds": set(),
    "batch_rows": set(),
    "negatives_total": {"model"},
    "transition_step": {"model"},
    "score_gap": {"model"},
    "queue_rows": set(),
    "queue_fill_ratio": set(),
    "ready": set(),
    "registry_up": set(),
    "swap_failing": {"model"},
    "rejected_total": {"reason"},
    "model_info": {"model", "version", "method"},
    "model_age_seconds": {"model"},
    "swaps_total": {"model", "result"},
    "cache_requests_total": {"result"},
    "cache_writes_total": {"result"},
    "cache_seconds": set(),
    "cache_enabled": {"model"},
    "redis_up": set(),
    "stream_pairs_total": set(),
    "stream_dropped_total": {"reason"},
}


async def series(client: httpx.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = await client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


async def ask(client: httpx.AsyncClient, query: str = "", rows: int = 5) -> httpx.Response:
    return await client.post(f"/negatives?{query}", content=octet(*pairs(rows)), headers=OCTET)


async def test_every_promised_metric_is_there_with_its_labels(client: httpx.AsyncClient) -> None:
    await ask(client)
    await ask(client, "n=0")
    found: dict[str, set[str]] = {}
    for name, labels in await series(client):
        if name.startswith("process_"):
            continue
        plain = re.sub("_(bucket|sum|count)$", "", name.removeprefix("turnpoint_"))
        found[plain] = {key for key, _ in labels} - {"le"}
    assert found == PROMISED


async def test_they_count_what_happened(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await ask(client, "n=4", rows=5)
    await ask(client, "n=0")
    await ask(client, "model=nobody")
    await client.get("/models/nobody")
    found = await series(client)

    def value(name: str, **labels: str) -> float:
        return found["turnpoint_" + name, tuple(sorted(labels.items()))]

    assert value("requests_total", route="/negatives", code="200") == 3
    assert value("requests_total", route="/negatives", code="422") == 1
    assert value("requests_total", route="/negatives", code="404") == 1
    assert value("requests_total", route="/models/{name}", code="404") == 1
    assert value("request_seconds_count", route="/negatives") == 5
    assert value("negatives_total", model="demo") == 3 * 5 * 4
    assert value("batch_rows_sum") == 15
    for stage in ("decode", "queue", "sample", "encode"):
        assert value(f"{stage}_seconds_count") == 3
    assert 0 < value("sample_seconds_sum") < 3
    assert value("transition_step_count", model="demo") == 15
    assert value("rejected_total", reason="out_of_range") == 1
    assert value("rejected_total", reason="unknown_model") == 1
    assert value("rejected_total", reason="overloaded") == 0
    assert value("queue_rows") == value("queue_fill_ratio") == 0
    assert value("ready") == value("registry_up") == 1
    assert value("swaps_total", model="demo", result="ok") == 1
    assert value("swaps_total", model="demo", result="corrupt") == 0
    assert value("swap_failing", model="demo") == 0
    assert 0 <= value("model_age_seconds", model="demo") < 60


async def test_strangers_open_no_series(client: httpx.AsyncClient) -> None:
    await ask(client)
    await ask(client, "n=0")
    await ask(client, "model=nobody")
    await client.get("/nothing")
    await client.get("/models/nobody")
    await client.put("/nothing")
    await client.request("GET", "/negatives")
    await series(client)
    before = set(await series(client))
    for index in range(50):
        await client.get(f"/admin{index}.php")
        await client.get(f"/models/guess{index}")
        await ask(client, f"n=0{index}0")
        await ask(client, f"model=guess{index}")
        await ask(client, f"version=guess{index}&model=nobody")
        await client.request(f"VERB{index}", "/nothing")
        await client.get("/nothing", headers={f"X-{index}": "a", "X-Request-ID": str(index)})
    assert set(await series(client)) == before


async def test_only_the_live_version_has_a_series(
    client: httpx.AsyncClient, service: Service, registry: object
) -> None:
    from tests.service.live import publish

    for seed in range(1, 4):
        version = publish(registry, seed=seed)  # type: ignore[arg-type]
        await service.models.poll()
    infos = [labels for name, labels in await series(client) if name == "turnpoint_model_info"]
    assert infos == [(("method", "adar"), ("model", "demo"), ("version", version))]


@pytest.mark.parametrize("num_steps", [1, 2, 20, 50])
def test_transition_steps_are_counted_as_prometheus_would(num_steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    collector = TransitionSteps()
    steps = [torch.randint(0, num_steps + 1, (500,), generator=generator) for _ in range(3)]
    for batch in steps:
        collector.observe("demo", batch, num_steps)
    (family,) = collector.collect()
    found = {s.labels.get("le"): s.value for s in family.samples if s.name.endswith("_bucket")}
    everything = [step / num_steps for batch in steps for step in batch.tolist()]
    for edge in FRACTIONS:
        assert found[str(edge)] == sum(share <= edge + 1e-12 for share in everything)
    assert found["+Inf"] == 1500
    (total,) = [s.value for s in family.samples if s.name.endswith("_sum")]
    assert total == pytest.approx(sum(everything))


def test_gaps_are_those_of_the_scores() -> None:
    users, positives = pairs(GAP_ROWS + 10)
    negatives = torch.stack([0.5 * positives + 0.2 * users, -users], 1)
    collector = ScoreGaps()
    collector.observe("demo", users, positives, {"negatives": negatives, "mean": users})
    (family,) = collector.collect()
    found = {s.labels["le"]: s.value for s in family.samples}
    first = slice(GAP_ROWS)
    gap = (users * (positives - negatives[:, 0])).sum(-1)
    gap = gap / (users.norm(dim=1) * positives.norm(dim=1))
    assert found["+Inf"] == GAP_ROWS
    for edge in GAPS:
        assert found[str(edge)] == int((gap[first] <= edge).sum())
    assert 0 < found["0.0"] < GAP_ROWS


def test_gaps_are_looked_at_a_few_times_a_second_and_where_there_are_any() -> None:
    users, positives = pairs(3)
    zeros = torch.zeros_like(users)
    collector = ScoreGaps()
    collector.observe("demo", users, positives, {"transition": torch.zeros(3)})
    assert not next(iter(collector.collect())).samples
    collector.observe("demo", zeros, positives, {"mean": users})
    for _ in range(20):
        collector.observe("demo", users, positives, {"mean": users})
    (family,) = collector.collect()
    assert {s.value for s in family.samples if s.labels["le"] == "+Inf"} == {3.0}
    assert {s.value for s in family.samples if s.labels["le"] == "-0.1"} == {0.0}
