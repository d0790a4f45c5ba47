"""The catalogue's sampler: which items it chooses, by hand and by theory; what it makes of them."""

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from core.checkpoint import pack, unpack, warm_up
from core.errors import CheckpointRefusedError, ConfigError
from core.noise import Noise
from core.samplers import Catalogue, CatalogueConfig, Generates, HasItems, Query, catalogue, draw
from core.schedule import make_schedule
from core.transition import Transition

ITEMS, DIM, T = 60, 6, 20
RANDOM = Transition("random")


def sampler_of(**config) -> Catalogue:
    items = torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(3))
    return Catalogue.of(items, **{"num_steps": T, "candidates": 5, **config})


def query_of(rows: int, seed: int = 0) -> Query:
    users, positives = torch.randn(2, rows, DIM, generator=torch.Generator().manual_seed(seed))
    return Query(users, positives)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def candidates_by_hand(sampler: Catalogue, rows: int, n: int, seed: int = 1) -> torch.Tensor:
    """(B, n, M): row r has those of group r mod 256, drawn before anything else."""
    many = sampler.config.candidates
    groups = min(rows, 256)
    drawn = torch.randint(ITEMS, (groups, n * many), generator=generator(seed))
    return torch.stack([drawn[row % groups] for row in range(rows)]).view(rows, n, many)


@pytest.mark.parametrize(("rows", "n", "many"), [(1, 1, 1), (7, 3, 5), (300, 2, 4)])
def test_each_negative_is_the_hardest_of_its_own_candidates(rows, n, many):
    sampler, query = sampler_of(candidates=many), query_of(rows)
    found = draw(sampler, query, n, generator())
    own = candidates_by_hand(sampler, rows, n)
    for row in range(rows):
        for place in range(n):
            of = own[row, place]
            best = of[(sampler.items[of] @ query.users[row]).argmax()]
            assert torch.equal(sampler.items[found.items[row, place]], sampler.items[best])


@pytest.mark.parametrize("hardness", [0.0, 0.4, 1.0])
def test_a_negative_lies_between_its_positive_and_its_item(hardness):
    sampler, query = sampler_of(transition=Transition("fixed", hardness=hardness)), query_of(9)
    found = draw(sampler, query, 2, generator())
    t = round((1 - hardness) * T)
    abar = float(make_schedule("linear", T).alpha_bar[t])
    e_c = sampler.items[found.items]
    expected = math.sqrt(abar) * query.positives[:, None] + math.sqrt(1 - abar) * e_c
    torch.testing.assert_close(found.negatives, expected)
    assert found.transition.tolist() == [t] * 9
    assert found.weights is None


def test_rules_that_differ_by_draw_give_each_negative_its_own_step():
    sampler, query = sampler_of(transition=RANDOM), query_of(5)
    found = draw(sampler, query, 400, generator())
    abar = make_schedule("linear", T).alpha_bar[1:].float()
    # e_c and e_i are known, so the share of one and the other says which step it was.
    e_c = sampler.items[found.items]
    states = abar.sqrt()[:, None] * query.positives[0] + (1 - abar).sqrt()[:, None] * e_c[0, 0]
    assert (states - found.negatives[0, 0]).abs().sum(1).min() < 1e-5
    distances = (
        abar.sqrt()[:, None, None, None] * query.positives[:, None]
        + (1 - abar).sqrt()[:, None, None, None] * e_c
        - found.negatives
    ).abs().sum(-1)  # fmt: skip
    steps = 1 + distances.argmin(0)
    assert distances.min(0).values.max() < 1e-4
    assert found.transition.tolist() == steps.double().mean(1).round().tolist()
    counts = np.bincount(steps.flatten().numpy(), minlength=T + 1)[1:]
    assert chisquare(counts).pvalue > 1e-3
    skewed = counts + 60 * (np.arange(T) == 0)
    assert chisquare(skewed).pvalue < 1e-3  # the control: one step more frequent is seen


@pytest.mark.parametrize("many", [1, 8])
def test_the_rank_of_an_item_follows_its_law(many):
    """P(none of M uniform items is among the best r of I) = (1 - r/I)^M."""
    sampler, rows, n = sampler_of(candidates=many), 256, 40
    users = torch.randn(1, DIM, generator=generator(5)).expand(rows, DIM)
    found = draw(sampler, Query(users, users), n, generator())
    rank = (sampler.items @ users[0]).argsort(descending=True).argsort()
    counts = np.bincount(rank[found.items].flatten().numpy(), minlength=ITEMS)

    def expected(of: int) -> np.ndarray:
        above = (1 - np.arange(ITEMS + 1) / ITEMS) ** of
        return rows * n * (above[:-1] - above[1:])

    def p(of: int) -> float:
        """The tail, where hardly any is expected, in one bin."""
        bins = np.minimum(np.arange(ITEMS), 25)
        told, wanted = (np.bincount(bins, weights=values) for values in (counts, expected(of)))
        return chisquare(told, wanted).pvalue

    assert p(many) > 1e-3
    assert p(many + 1) < 1e-3  # the control: one candidate more would be seen


def test_a_request_does_not_depend_on_its_company():
    sampler = sampler_of(transition=RANDOM)
    queries = [query_of(rows, seed=rows) for rows in (3, 270, 8)]
    both = Query(
        *(torch.cat([getattr(q, name) for q in queries]) for name in ("users", "positives"))
    )
    noise = Noise([generator(seed) for seed in range(3)], [len(q.users) for q in queries])
    merged, begin = sampler.generate(both, 4, noise), 0
    for seed, query in enumerate(queries):
        alone, end = draw(sampler, query, 4, generator(seed)), begin + len(query.users)
        assert torch.equal(merged.items[begin:end], alone.items)
        assert torch.equal(merged.negatives[begin:end], alone.negatives)
        assert torch.equal(merged.transition[begin:end], alone.transition)
        begin = end
    other = draw(sampler, queries[0], 4, generator(9))
    assert not torch.equal(other.items, merged.items[:3])  # the control: another seed


@pytest.mark.parametrize("floats", [1, 1300, 10**9])
def test_how_much_is_held_at_once_changes_nothing(floats):
    sampler, query = sampler_of(), query_of(20)
    whole = draw(sampler, query, 7, generator())
    with patch.object(catalogue, "FLOATS", floats):
        assert torch.equal(draw(sampler, query, 7, generator()).items, whole.items)


def test_a_checkpoint_holds_the_items():
    sampler = sampler_of(transition=RANDOM)
    packed = pack(sampler)
    again, manifest = unpack(packed)
    warm_up(again)
    assert isinstance(again, Generates)
    assert isinstance(again, HasItems)
    assert torch.equal(again.items, sampler.items)
    assert again.config == sampler.config
    assert (manifest.method, manifest.denoiser) == ("catalogue", "none")
    assert manifest.transition["rule"] == "random"
    fewer = pack(Catalogue.of(sampler.items[:-1], num_steps=T))
    with pytest.raises(CheckpointRefusedError, match="do not fit their manifest"):
        unpack(
            replace(fewer, manifest=fewer.manifest.replace(b'"num_items": 59', b'"num_items": 58'))
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"transition": Transition("exact")}, "'exact' needs the chain of a denoiser"),
        ({"candidates": 0}, "candidates = 0; it must be at least 1"),
        ({"num_items": 0}, "num_items = 0; it must be at least 1"),
    ],
)
def test_refuses_what_it_cannot_do(config, message):
    with pytest.raises(ConfigError, match=message):
        CatalogueConfig(**{"dim": DIM, "num_items": ITEMS, **config})


def test_items_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"items have shape \[3, 6\]; it must be \[60, 6\]"):
        Catalogue(CatalogueConfig(DIM, ITEMS), torch.zeros(3, DIM))
