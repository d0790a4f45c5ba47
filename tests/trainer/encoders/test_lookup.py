"""Look-ups in one table: the values and gradients of `embedding`, and one gradient for all."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import embedding
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.encoders.lookup import Lookup, rows_of

ROWS, DIM = 7, 3
IDS = st.lists(st.integers(0, ROWS - 1), max_size=12).map(lambda ids: torch.tensor(ids).long())


def table_of(seed: int = 0) -> Tensor:
    values = torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.manual_seed(seed))
    return values.requires_grad_()


def loss_of(found: list[Tensor]) -> Tensor:
    """Another function of each look-up, so that none can stand for another."""
    return sum(((at + 1) * rows).sin().sum() for at, rows in enumerate(found))


@settings(deadline=None)  # the first gradient of a process takes a second
@given(st.lists(IDS, min_size=1, max_size=4))
def test_gradients_are_those_of_embedding(looked_up: list[Tensor]) -> None:
    table = table_of()
    hidden = table.square()  # not a leaf, as a graph's last layer is not
    look_up = rows_of(hidden)
    (found,) = torch.autograd.grad(loss_of([look_up(ids) for ids in looked_up]), table)
    hidden = table.square()
    loss = loss_of([embedding(ids, hidden) for ids in looked_up])
    (wanted,) = torch.autograd.grad(loss, table)
    torch.testing.assert_close(found, wanted)


def test_ids_may_have_any_shape() -> None:
    table = table_of()
    ids = torch.tensor([[[1, 1], [6, 0]]])
    found = rows_of(table)(ids)
    torch.testing.assert_close(found, table.detach()[ids])
    found.sum().backward()
    assert table.grad is not None
    counts = torch.bincount(ids.flatten(), minlength=ROWS).double()
    torch.testing.assert_close(table.grad, counts[:, None].expand(-1, DIM))


class TablesMade(TorchDispatchMode):
    """Counts new tensors as large as the table."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {at.data_ptr() for at in args if isinstance(at, Tensor)}
        self.count += out.shape == (ROWS, DIM) and out.data_ptr() not in inputs
        return out


@pytest.mark.parametrize("look_ups", [1, 2, 5])
def test_all_look_ups_make_one_gradient(look_ups: int) -> None:
    """What `rows_of` is for; the control is `embedding`, which makes one for each and their sum."""

    def made(look_up: Lookup) -> int:
        loss = loss_of([look_up(torch.tensor([at])) for at in range(look_ups)])
        with TablesMade() as tables:
            loss.backward()
        return tables.count

    assert made(rows_of(table_of())) == 1
    assert made(partial(embedding, weight=table_of())) >= look_ups


def test_the_graph_can_be_gone_through_again() -> None:
    table = table_of()
    loss = loss_of([rows_of(table)(torch.tensor([2, 2, 5]))])
    first, second = (torch.autograd.grad(loss, table, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("trained", [True, False])
def test_no_gradient_where_none_is_wanted(trained: bool) -> None:
    table = table_of().requires_grad_(trained)
    look_up = rows_of(table)
    with torch.no_grad():
        assert not look_up(torch.tensor([1])).requires_grad
    assert look_up(torch.tensor([1])).requires_grad is trained
