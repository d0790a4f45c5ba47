from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import ConfigError
from tests.trainer.encoders.six import DIM, M, U
from trainer.data import Interactions
from trainer.encoders import VBPR
from trainer.features import standardised


def encoder(data: Interactions) -> VBPR:
    return VBPR(data, DIM, generator=torch.Generator().manual_seed(0))


def test_the_inner_product_is_the_papers_score(data: Interactions) -> None:
    """Eq. 4 without biases: gamma_u . gamma_i + theta_u . (E f_i), one pair at a time, float64."""
    model, half = encoder(data), DIM // 2
    looks = np.concatenate([standardised(table) for table in data.features.values()], axis=1)
    looks /= looks.shape[1]
    users, items, projection = (
        p.detach().double().numpy() for p in (model.users, model.items, model.projection)
    )
    users_table, items_table = model.tables()
    for u in range(U):
        for i in range(M):
            gamma, theta = users[u, :half], users[u, half:]
            score = gamma @ items[i] + theta @ (projection @ looks[i].astype(np.float64))
            assert float(users_table[u] @ items_table[i]) == pytest.approx(score, rel=1e-5)


def test_gradient_reaches_the_projection_and_not_the_features(data: Interactions) -> None:
    model = encoder(data)
    encoded = model.encode(torch.tensor([2]))
    (encoded.users * encoded.items(torch.tensor([4]))).sum().backward()
    theta = model.users.detach()[2, DIM // 2 :]
    torch.testing.assert_close(model.projection.grad, torch.outer(theta, model.features[4]))
    assert not model.features.requires_grad
    assert [name for name, _ in model.named_parameters()] == ["users", "items", "projection"]
    assert list(model.state_dict()) == ["users", "items", "projection"]


def test_penalty_is_that_of_the_rows_of_users_and_items(data: Interactions) -> None:
    model = encoder(data)
    users, items = torch.tensor([1, 1]), torch.tensor([0, 3, 4])
    expected = (model.users[users].square().sum() + model.items[items].square().sum()) / 4
    torch.testing.assert_close(model.penalty(users, items), expected)


def test_what_cannot_be_made_is_refused(data: Interactions) -> None:
    with pytest.raises(ConfigError, match="dim = 7; VBPR has two halves"):
        VBPR(data, 7)
    with pytest.raises(ConfigError, match="vbpr needs features of items, and six has none"):
        VBPR(replace(data, features={}), DIM)
