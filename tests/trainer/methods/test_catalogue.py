"""Diffusing toward the catalogue, against what its loss must be by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from core.errors import ConfigError
from core.schedule import make_schedule
from core.transition import Transition
from tests.trainer.methods.test_losses import method_of, rows  # noqa: F401
from tests.trainer.methods.test_methods import data, plain_data  # noqa: F401
from trainer.encoders import Encoded
from trainer.encoders.lookup import rows_of

POSITIVE, CATALOGUE = Transition("fixed", hardness=1.0), Transition("fixed", hardness=0.0)


def hardest_by_hand(method, rows, data):  # noqa: F811
    """Each row's best score of every M, item by item; the method's generator is left as it was."""
    state, (k, many) = method.generator.get_state(), (method.config.draws, method.config.candidates)
    items, _ = method.source.draw(rows.batch.users, k * many, method.generator)
    method.generator.set_state(state)
    taken = {tuple(pair) for pair in data.train.tolist()}
    best = torch.full((len(rows.e_u), k), -math.inf)
    for row, user in enumerate(rows.batch.users.tolist()):
        for place, item in enumerate(items[row % len(items)].tolist()):
            if (user, item) not in taken:
                score = rows.e_u[row] @ rows.encoded.items(torch.tensor([item]))[0]
                best[row, place // many] = max(best[row, place // many], score.detach())
    return best


@pytest.mark.parametrize(("candidates", "draws"), [(1, 1), (20, 1), (3, 4), (20, 5)])
def test_at_the_end_are_the_hardest_items(data, rows, candidates, draws):  # noqa: F811
    changes = {"candidates": candidates, "draws": draws, "num_steps": 50}
    method = method_of(data, "catalogue", transition=CATALOGUE, **changes)
    method.begin(0)
    abar = float(make_schedule("linear", 50).alpha_bar[-1])
    s_uc = hardest_by_hand(method, rows, data)
    s_ud = math.sqrt(abar) * rows.s_ui.unsqueeze(1) + math.sqrt(1 - abar) * s_uc
    expected = -logsigmoid(rows.s_ui.unsqueeze(1) - s_ud).mean()  # 0 where all were taken
    ranked = method.loss(rows)
    assert ranked.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    free = s_uc[:, 0].isfinite()
    torch.testing.assert_close(ranked.generated[free], s_ud[free, 0], rtol=1e-5, atol=1e-6)
    others = -logsigmoid(rows.s_ui.unsqueeze(1) - s_ud.roll(1, 0)).mean()
    assert abs(others.item() - expected.item()) > 1e-3  # another row's items would be noticed


def test_at_the_start_it_is_the_positive_itself(data, rows):  # noqa: F811
    method = method_of(data, "catalogue", transition=POSITIVE)
    method.begin(0)
    ranked = method.loss(rows)
    assert ranked.loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert ranked.told["cosine"].item() == pytest.approx(1, rel=1e-6)
    assert ranked.transition.eq(0).all()


def test_gradient_reaches_users_positives_and_just_the_chosen_items(data, rows):  # noqa: F811
    method = method_of(data, "catalogue", candidates=8, draws=2)
    method.begin(0)
    table = torch.randn(data.num_items, 8, requires_grad=True)
    rows = replace(rows, encoded=Encoded(rows.e_u, rows_of(table)))
    method.loss(rows).loss.backward()
    assert rows.e_u.grad.abs().sum(1).gt(0).all()
    assert rows.e_i.grad.abs().sum(1).gt(0).all()
    reached = table.grad.abs().sum(1).gt(0)
    taken = {tuple(pair) for pair in data.train.tolist()}
    assert 0 < reached.sum() <= 2 * len(rows.e_u)
    users = set(rows.batch.users.tolist())
    for item in reached.nonzero().flatten().tolist():  # nothing that everybody here has taken
        assert any((user, item) not in taken for user in users)


def test_an_epoch_is_a_stream_of_its_own_and_comes_again(data, rows):  # noqa: F811
    method = method_of(data, "catalogue")
    losses = []
    for epoch in (3, 4, 3):
        method.begin(epoch)
        losses.append(method.loss(rows).loss.item())
    assert losses[0] == losses[2] != losses[1]


def test_random_t_is_uniform_over_the_steps(data, rows):  # noqa: F811
    method = method_of(data, "catalogue", num_steps=4, draws=4, candidates=4)
    method.begin(0)
    counts = sum(method.loss(rows).transition.bincount(minlength=5) for _ in range(600))
    total = int(counts.sum())
    assert counts[0] == 0
    expected = total / 4
    chi2 = ((counts[1:] - expected) ** 2 / expected).sum().item()
    assert chi2 < 16.3  # 3 degrees of freedom, p = .001
    skewed = torch.tensor([1.1, 1.0, 1.0, 0.9]) * expected
    assert ((skewed - expected) ** 2 / expected).sum().item() > 16.3  # 10 % off would be seen


def test_eq_11_sets_t_where_it_is_asked_for(data, rows):  # noqa: F811
    method = method_of(data, "catalogue", transition=Transition("score_aware"), draws=2)
    method.begin(0)
    t_star = method.loss(rows).transition
    expected = torch.sigmoid(rows.s_ui.exp()) * method.config.num_steps
    assert (t_star - expected).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": Transition("exact")}, "'exact' needs the chain of a denoiser"),
        ({"draws": 0}, "draws = 0; it must be at least 1"),
    ],
)
def test_refuses_what_it_cannot_do(data, changes, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        method_of(data, "catalogue", **changes)
