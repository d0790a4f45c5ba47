"""What each method's loss is, by hand, from the negatives that its sampler gives."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid, normalize

from core.noise import Noise
from core.samplers import Query
from tests.trainer.methods.test_methods import config_of, data, plain_data, start  # noqa: F401
from trainer.batches import Batch
from trainer.encoders.base import Encoded
from trainer.encoders.lookup import rows_of
from trainer.methods import Rows, make_method
from trainer.methods.base import likeness
from trainer.methods.cnsdiff import contrast


@pytest.fixture
def rows(data) -> Rows:  # noqa: F811
    generator = torch.Generator().manual_seed(0)
    e_u, e_i, e_j = torch.randn(3, 16, 8, generator=generator)
    users, items = torch.from_numpy(data.train[:16]).unbind(1)
    batch = Batch(users, users, items)
    e_u, e_i, e_j = (table.requires_grad_() for table in (e_u, e_i, e_j))
    catalogue = torch.randn(data.num_items, 8, generator=generator).requires_grad_()
    scores = (e_u * e_i).sum(-1), (e_u * e_j).sum(-1)
    return Rows(batch, Encoded(e_u, rows_of(catalogue)), e_u, e_i, e_j, *scores)


def method_of(data, case, **changes):  # noqa: F811
    config = config_of(case, **changes)
    return make_method(start(data, config).diffusion, data, config)


def again(method) -> Noise:
    """The noise that the method is about to draw; it will draw it itself again."""
    generator = torch.Generator()
    generator.set_state(method.generator.get_state())
    return Noise([generator], [16])


def test_dmns_averages_the_weighted_losses_of_e_j_and_the_levels(data, rows):  # noqa: F811
    method = method_of(data, "dmns")
    query = Query(rows.detached.e_u, rows.detached.e_i)
    negatives = method.sampler.generate(query, 4, again(method)).negatives
    scores = [rows.s_uj, *((rows.e_u * negatives[:, level]).sum(-1) for level in range(4))]
    losses = [
        -weight * logsigmoid(rows.s_ui - score).mean()
        for weight, score in zip((1, 1, 0.9, 0.8, 0.7), scores, strict=True)
    ]
    ranked = method.loss(rows)
    assert ranked.loss.item() == pytest.approx((sum(losses) / 5).item(), rel=1e-5)
    assert set(ranked.told) == {
        f"{name}_{level}" for name in ("cosine", "margin", "hardness") for level in (1, 2, 3, 4)
    }


def test_gdnsm_adds_the_mean_over_what_is_open(data, rows):  # noqa: F811
    method = method_of(data, "gdnsm", gdnsm_start=30)
    method.begin(29)
    assert method.loss(rows).loss.item() == pytest.approx(
        -logsigmoid(rows.s_ui - rows.s_uj).mean().item(), rel=1e-5
    )
    method.begin(45)
    features = {
        name: torch.from_numpy(table)[rows.batch.items] for name, table in data.features.items()
    }
    query = Query(rows.detached.e_u, rows.detached.e_i, item_features=features, progress=0.5)
    negatives = method.sampler.generate(query, 3, again(method)).negatives
    s_ud = (rows.e_u.unsqueeze(1) * negatives).sum(-1)
    expected = -logsigmoid(rows.s_ui - rows.s_uj).mean()
    expected = expected - logsigmoid(rows.s_ui.unsqueeze(1) - s_ud).mean()
    assert method.loss(rows).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_cnsdiff_mixes_its_negative_and_adds_contrast_and_diffusion(data, rows):  # noqa: F811
    """With both weights 0 the loss is BPR on l e_hard + (1 - l) e_j."""
    method = method_of(data, "cnsdiff", cnsdiff_contrast=0.0, cnsdiff_diffusion=0.0)
    query = Query(rows.detached.e_u, rows.detached.e_i)
    noise = again(method)
    hard = method.sampler.generate(query, 1, noise).negatives.squeeze(1)
    state = method.generator.get_state()
    (generator, _), *_ = noise._requests
    method.generator.set_state(generator.get_state())
    share = method._share(16, hard.device)
    method.generator.set_state(state)
    mixed = share * hard + (1 - share) * rows.e_j
    expected = -logsigmoid(rows.s_ui - (rows.e_u * mixed).sum(-1)).mean()
    assert method.loss(rows).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    method.generator.set_state(state)
    method.config = replace(method.config, cnsdiff_contrast=0.3)
    with_contrast = method.loss(rows).loss.item()
    method.generator.set_state(state)
    method.config = replace(method.config, cnsdiff_diffusion=1e-3)
    whole = method.loss(rows)
    assert with_contrast > expected.item()  # of 32 negatives the log of the sum is above 1/2
    assert whole.loss.item() > with_contrast
    whole.loss.backward()
    assert rows.e_i.grad.isfinite().all()


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_the_share_of_generated_negatives_follows_its_beta(data, epoch):  # noqa: F811
    """Beta(1 + 8p, 9 - 8p): mean (1 + 8p)/10, variance mean (1 - mean)/11."""
    method = method_of(data, "cnsdiff", epochs=4)
    method.begin(epoch)
    share = method._share(200_000, torch.device("cpu"))
    mean = (1 + 8 * epoch / 4) / 10
    assert share.mean().item() == pytest.approx(mean, abs=0.002)
    assert share.var().item() == pytest.approx(mean * (1 - mean) / 11, rel=0.02)
    assert share.min() >= 0
    assert share.max() <= 1


def test_contrast_by_hand():
    e = torch.eye(2)
    got = contrast(2 * e, 3 * e, 5 * e, -e)
    # Negatives of row 0: cosines 1, 0 (hard), -1, 0 (random); the positive's is 1.
    expected = math.log(math.exp(0.5) + 1 + math.exp(-0.5) + 1) - 0.5
    assert got.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 128, 300])  # less than a block, one, several
def test_contrast_is_its_formula_with_its_gradient(rows):
    generator = torch.Generator().manual_seed(rows)
    tables = [
        torch.randn(rows, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(4)
    ]
    anchor, positive, *others = (normalize(table) for table in tables)
    far = torch.logsumexp(anchor @ torch.cat(others).T / 2, dim=1)
    expected = (far - (anchor * positive).sum(-1) / 2).mean()
    got = contrast(*tables)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(3 * got, tables), torch.autograd.grad(3 * expected, tables), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)


def test_likeness_by_hand(rows):
    told = likeness(rows, 2 * rows.e_i, "_7")
    assert told["cosine_7"].item() == pytest.approx(1, rel=1e-5)
    assert told["margin_7"].item() == pytest.approx(-rows.s_ui.mean().item(), rel=1e-4)
    harder = (2 * rows.s_ui > rows.s_uj).float().mean().item()
    assert told["hardness_7"].item() == pytest.approx(harder)


def test_the_causal_variant_knows_how_often_each_stratum_was_taken(data):  # noqa: F811
    method = method_of(data, "cnsdiff", cnsdiff_strata=3)
    of_pair = method._strata[torch.from_numpy(data.train[:, 1])]
    shares = of_pair.bincount(minlength=3) / len(of_pair)
    assert torch.allclose(method.sampler.exposure, shares)
    assert method.sampler.exposure.argmax() == 2  # popular items are taken most
