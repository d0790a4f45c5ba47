"""A hit has the law of a miss, to the bit; its draws are fresh; nobody gets another's law."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from core.chain import Law
from core.checkpoint import pack, read_manifest
from core.samplers import Query
from core.samplers.adar import ADAR
from core.transition import RULES, Transition
from service.cache import Laws, LocalStore
from service.cache.ledger import ALLOWANCE, EVERY, SAMPLES, SHARE
from service.metrics import Metrics
from service.shelf import LoadedModel
from tests.service.live import make_sampler, pairs

ROOM = 2**24
KNOWN = [rule for rule in RULES if rule != "random"]


def loaded(sampler: ADAR, version: str = "v1") -> LoadedModel:
    return LoadedModel("demo", version, sampler, read_manifest(pack(sampler).manifest))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def laws(metrics: Metrics) -> Laws:
    return Laws(LocalStore(ROOM), "on", metrics)


def counted(metrics: Metrics, result: str) -> float:
    return (
        metrics.registry.get_sample_value("turnpoint_cache_requests_total", {"result": result})
        or 0.0
    )


def ask(laws: Laws, model: LoadedModel, query: Query, seed: int = 1, seeded: bool = False) -> Law:
    return laws.of(model, seeded=seeded)(query, torch.Generator().manual_seed(seed))


def computed(model: LoadedModel, query: Query, seed: int = 1) -> Law:
    return model.sampler.law(query, torch.Generator().manual_seed(seed))


def query(rule: str, rows: int = 64, seed: int = 0) -> Query:
    users, positives = pairs(rows, seed=seed)
    threshold = torch.linspace(-1, 1, rows) if rule in {"exact", "theorem"} else None
    return Query(users, positives, Transition(rule), threshold)


def equal(one: Law, other: Law) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("transition", "mean", "std")
    )


def close(one: Law, other: Law) -> bool:
    return (
        torch.equal(one.transition, other.transition)
        and torch.allclose(one.mean, other.mean, rtol=1e-5, atol=1e-6)
        and torch.allclose(one.std, other.std, rtol=1e-5, atol=1e-6)
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_what_was_missing_and_then_hit_is_bit_by_bit_what_was_computed(
    laws: Laws, metrics: Metrics, rule: str, denoiser: str
) -> None:
    model, asked = loaded(make_sampler(denoiser=denoiser)), query(rule)
    want = computed(model, asked)
    first, second = ask(laws, model, asked), ask(laws, model, asked)
    assert equal(first, want)
    assert equal(second, want)
    assert (counted(metrics, "miss"), counted(metrics, "hit")) == (64, 64)
    for name in ("transition", "mean", "std"):
        got, had = getattr(second, name), getattr(want, name)
        assert (got.dtype, got.shape, got.is_contiguous()) == (had.dtype, had.shape, True)


@pytest.mark.parametrize("rule", KNOWN)
def test_some_rows_hit_and_the_others_are_computed(laws: Laws, metrics: Metrics, rule: str) -> None:
    model, asked = loaded(make_sampler()), query(rule)
    some = torch.arange(0, 64, 3)
    threshold = None if asked.threshold is None else asked.threshold[some]
    before = replace(
        asked, users=asked.users[some], positives=asked.positives[some], threshold=threshold
    )
    known = ask(laws, model, before)
    got = ask(laws, model, asked)
    assert (counted(metrics, "hit"), counted(metrics, "miss")) == (22, 22 + 42)
    assert close(got, computed(model, asked))
    assert torch.equal(got.mean[some], known.mean)
    assert torch.equal(got.std[some], known.std)
    assert equal(ask(laws, model, asked), got)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_single_row_and_twins_in_a_batch(laws: Laws, rows: int) -> None:
    model = loaded(make_sampler())
    users, positives = (part.expand(rows, -1) for part in pairs(1))
    asked = Query(users, positives, Transition("fixed"))
    assert close(ask(laws, model, asked), computed(model, asked))
    assert close(ask(laws, model, asked), computed(model, asked))


def test_random_draws_its_steps_from_the_request_and_not_from_the_cache(laws: Laws) -> None:
    model, asked = loaded(make_sampler()), query("random")
    for seed in (1, 2, 1, 3):
        assert close(ask(laws, model, asked, seed), computed(model, asked, seed))
    first, second = (ask(laws, model, asked, seed).transition for seed in (1, 2))
    assert not torch.equal(first, second)


def standardized(draws: Tensor, law: Law) -> Tensor:
    return ((draws - law.mean.unsqueeze(1)) / law.std.unsqueeze(1)).flatten()


def test_hits_and_misses_have_one_law_and_a_tenth_less_deviation_would_be_seen(
    laws: Laws, metrics: Metrics
) -> None:
    """Kolmogorov-Smirnov on 32 rows x 256 draws x 16 = 131,072 numbers that must be N(0, 1).

    At level 1e-4 it rejects beyond 0.0062; a deviation that is 10 % off moves the distribution
    function by 0.023, one mean that is 0.1 deviations off by 0.040.
    """
    model, asked = loaded(make_sampler()), query("calibrated", rows=32)
    want = computed(model, asked)
    drawn: dict[str, list[Tensor]] = {"miss": [], "hit": []}
    for outcome in ("miss", "hit"):
        generator = torch.Generator().manual_seed(7)
        law = laws.of(model, seeded=False)(asked, generator)
        assert counted(metrics, outcome) == 32
        drawn[outcome].append(law.draw(256, generator))
        assert stats.kstest(standardized(drawn[outcome][0], want).numpy(), "norm").pvalue > 1e-4
    # The same seed: hits leave the generator where misses leave it.
    assert torch.equal(drawn["miss"][0], drawn["hit"][0])
    wrong = replace(want, std=0.9 * want.std)
    draws = wrong.draw(256, torch.Generator().manual_seed(8))
    assert stats.kstest(standardized(draws, want).numpy(), "norm").pvalue < 1e-8


def test_every_hit_draws_afresh(laws: Laws) -> None:
    model, asked = loaded(make_sampler()), query("fixed")
    ask(laws, model, asked)
    draws = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        draws.append(laws.of(model, seeded=False)(asked, generator).draw(4, generator))
    assert (draws[0] != draws[1]).float().mean() > 0.99
    correlation = torch.corrcoef(
        torch.stack([standardized(one, computed(model, asked)) for one in draws])
    )[0, 1]
    assert abs(correlation) < 0.06  # 4096 numbers: four standard errors


class Poisoned(LocalStore):
    """Answers every key with one and the same wrong law."""

    def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None]:
        return [b"\x01\x00\x00\x00" * (size // 4)] * len(keys)


def test_a_request_with_a_seed_goes_past_the_cache(metrics: Metrics) -> None:
    model, asked = loaded(make_sampler()), query("fixed")
    laws = Laws(Poisoned(ROOM), "on", metrics)
    assert equal(ask(laws, model, asked, seeded=True), computed(model, asked))
    assert counted(metrics, "bypassed") == 64
    assert not close(ask(laws, model, asked), computed(model, asked))  # the control: it would hit


@pytest.mark.parametrize("same_name", [True, False])
def test_other_weights_never_match(laws: Laws, metrics: Metrics, same_name: bool) -> None:
    old = loaded(make_sampler(seed=0), "v1")
    new = loaded(make_sampler(seed=1), "v1" if same_name else "v2")
    asked = query("fixed")
    ask(laws, old, asked)
    assert close(ask(laws, new, asked), computed(new, asked))
    assert counted(metrics, "hit") == 0
    # The control: under the old weights' hash the new model would be given the old law.
    confused = replace(new, manifest=old.manifest)
    assert not close(ask(laws, confused, asked), computed(new, asked))


def test_models_of_several_dimensions_share_the_room(laws: Laws) -> None:
    for dim in (4, 16, 64):
        model = loaded(make_sampler(dim=dim))
        users, positives = pairs(32, dim)
        asked = Query(users, positives, Transition("fixed"))
        for _ in range(2):
            assert close(ask(laws, model, asked), computed(model, asked))


class Costs:
    """A clock that only looking up and computing move; each by seconds a row, to be set."""

    def __init__(self, computing: float, looking_up: float) -> None:
        self.now, self.computing, self.looking_up = 0.0, computing, looking_up
        self.sampler = make_sampler()
        self.model = loaded(self.sampler)
        real, costs = self.sampler.law_at, self

        def law_at(query: Query, t_star: Tensor | None) -> Law:
            costs.now += costs.computing * len(query.users)
            return real(query, t_star)

        class Store(LocalStore):
            def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None]:
                costs.now += costs.looking_up * len(keys)
                return super().get(keys, size)

        object.__setattr__(self.sampler, "law_at", law_at)
        self.store = Store(ROOM)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def priced(metrics: Metrics) -> Callable[..., tuple[Costs, Laws]]:
    def make(computing: float, looking_up: float) -> tuple[Costs, Laws]:
        costs = Costs(computing, looking_up)
        return costs, Laws(costs.store, "auto", metrics, costs)

    return make


def enabled(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("turnpoint_cache_enabled", {"model": "demo"})


def test_auto_stays_on_where_hits_save(
    priced: Callable[..., tuple[Costs, Laws]], metrics: Metrics
) -> None:
    costs, laws = priced(computing=0.01, looking_up=0.001)
    asked, batches = query("fixed", rows=8), 200
    for _ in range(batches):
        assert close(ask(laws, costs.model, asked), computed(costs.model, asked))
    assert enabled(metrics) == 1
    assert counted(metrics, "bypassed") == 8 * (SAMPLES + batches // EVERY)
    assert counted(metrics, "hit") >= 8 * (batches - SAMPLES - batches // EVERY - 1)


def test_auto_goes_off_where_it_costs_more_says_so_and_tries_again(
    priced: Callable[..., tuple[Costs, Laws]], metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    costs, laws = priced(computing=0.01, looking_up=0.02)
    asked = query("fixed", rows=8)
    while enabled(metrics) != 0:
        assert costs.now < 5
        ask(laws, costs.model, asked)
    assert "for known t* and batches of 8 to 15 rows the cache is off" in caplog.text
    off_at, hits = costs.now, counted(metrics, "hit")
    costs.looking_up = 0.001  # whatever made it slow is over
    while enabled(metrics) == 0:
        assert costs.now - off_at < 2 * ALLOWANCE / SHARE
        ask(laws, costs.model, asked)
    assert costs.now - off_at > 0.5 * ALLOWANCE / SHARE
    assert counted(metrics, "hit") == hits
    assert "the cache is tried again" in caplog.text
    for _ in range(100):
        ask(laws, costs.model, asked)
    assert enabled(metrics) == 1
    assert counted(metrics, "hit") > hits + 8 * 90


def test_auto_goes_off_where_nobody_comes_back(
    priced: Callable[..., tuple[Costs, Laws]], metrics: Metrics
) -> None:
    """A trainer whose embeddings move at every step: every look-up is a miss, and is in vain."""
    costs, laws = priced(computing=0.01, looking_up=0.001)
    for step in range(150):
        ask(laws, costs.model, query("fixed", rows=8, seed=step))
    assert enabled(metrics) == 0
    assert counted(metrics, "hit") == 0


def test_kinds_of_batches_are_judged_apart(
    priced: Callable[..., tuple[Costs, Laws]], metrics: Metrics
) -> None:
    """Single rows do not pay here, large batches do: one must not switch off the other."""
    costs, laws = priced(computing=0.1, looking_up=0.01)
    large, small = query("fixed", rows=64), query("mixed", rows=1, seed=1)
    for _ in range(30):
        costs.looking_up = 0.01
        ask(laws, costs.model, large)
        costs.looking_up = 0.2
        ask(laws, costs.model, small)
    before = counted(metrics, "hit"), counted(metrics, "bypassed")
    ask(laws, costs.model, small)
    assert counted(metrics, "bypassed") == before[1] + 1
    ask(laws, costs.model, large)
    assert counted(metrics, "hit") == before[0] + 64


def test_off_never_asks_the_store(metrics: Metrics) -> None:
    model, asked = loaded(make_sampler()), query("fixed")
    laws = Laws(Poisoned(ROOM), "off", metrics)
    assert equal(ask(laws, model, asked), computed(model, asked))
    assert counted(metrics, "bypassed") == 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_auto_computes_and_on_still_finds_the_law(metrics: Metrics) -> None:
    model = loaded(make_sampler().to("cuda"))
    asked = query("fixed")
    asked = replace(asked, users=asked.users.cuda(), positives=asked.positives.cuda())
    generator = torch.Generator("cuda")
    laws = Laws(LocalStore(ROOM), "auto", metrics)
    laws.of(model, seeded=False)(asked, generator)
    assert counted(metrics, "bypassed") == 64
    laws = Laws(LocalStore(ROOM), "on", metrics)
    first, second = (laws.of(model, seeded=False)(asked, generator) for _ in range(2))
    assert equal(first, second)
    assert second.mean.device.type == "cuda"
