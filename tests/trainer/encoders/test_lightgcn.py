import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from trainer.encoders import LightGCN
from trainer.encoders.graph import normalised_adjacency, product
from trainer.encoders.lightgcn import propagate

U, M, DIM = 5, 4, 3
TRAIN = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 3]])  # users 3 and 4 and item 2 have no edge


def dense_adjacency() -> Tensor:
    """LightGCN Eq. 8 as it is printed, float64."""
    interactions = torch.zeros(U, M, dtype=torch.float64)
    interactions[tuple(torch.from_numpy(TRAIN).T)] = 1.0
    square = torch.zeros(U + M, U + M, dtype=torch.float64)
    square[:U, U:], square[U:, :U] = interactions, interactions.T
    scale = square.sum(1).pow(-0.5)
    scale[scale.isinf()] = 0.0
    return scale[:, None] * square * scale


def layer_mean(table: Tensor, adjacency: Tensor, num_layers: int) -> Tensor:
    """LightGCN Eq. 3 and 11 as they are printed: every layer kept, then averaged."""
    layers = [table]
    for _ in range(num_layers):
        layers.append(adjacency @ layers[-1])
    return torch.stack(layers).mean(0)


def test_adjacency_is_that_of_the_paper() -> None:
    adjacency = normalised_adjacency(TRAIN, U, M)
    assert adjacency.layout == torch.sparse_csr
    torch.testing.assert_close(adjacency.to_dense().double(), dense_adjacency())
    assert torch.equal(adjacency.to_dense(), adjacency.to_dense().T)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3, 5])
def test_tables_are_the_mean_of_the_layers(num_layers: int) -> None:
    encoder = LightGCN(TRAIN, U, M, DIM, num_layers)
    expected = layer_mean(encoder.table.detach().double(), dense_adjacency(), num_layers)
    torch.testing.assert_close(torch.cat(encoder.tables()).double(), expected)


def test_a_node_without_edges_keeps_its_share_of_layer_zero() -> None:
    encoder = LightGCN(TRAIN, U, M, DIM, num_layers=3)
    users, _ = encoder.tables()
    torch.testing.assert_close(users[3:], encoder.table.detach()[3:U] / 4)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_gradient_is_that_of_autograd_through_the_dense_twin(num_layers: int) -> None:
    generator = torch.Generator().manual_seed(0)
    encoder = LightGCN(TRAIN, U, M, DIM, num_layers, generator=generator)
    users, items = torch.tensor([0, 0, 4]), torch.tensor([3, 1])
    encoded = encoder.encode(users)
    (encoded.users.sum(0) * encoded.items(items).exp().sum(0)).sum().backward()

    table = encoder.table.detach().double().requires_grad_()
    final = layer_mean(table, dense_adjacency(), num_layers)
    (final[users].sum(0) * final[U + items].exp().sum(0)).sum().backward()
    assert encoder.table.grad is not None
    assert table.grad is not None
    torch.testing.assert_close(encoder.table.grad.double(), table.grad, atol=1e-6, rtol=1e-5)


def test_first_and_second_gradient_by_differences() -> None:
    adjacency = normalised_adjacency(TRAIN, U, M).double()
    table = torch.randn(
        U + M, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: propagate(e, adjacency, 3), table)
    assert torch.autograd.gradgradcheck(lambda e: propagate(e, adjacency, 3), table)
    assert torch.autograd.gradcheck(lambda e: product(adjacency, e), table)


def test_the_gradient_check_sees_an_adjacency_that_is_not_symmetric() -> None:
    # The negative control: the backward pass is only right for a symmetric matrix.
    lopsided = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda e: propagate(e, lopsided, 1), table)


def test_what_the_layers_add_is_the_whole() -> None:
    encoder = LightGCN(TRAIN, U, M, DIM, num_layers=2)
    encoded = encoder.encode(torch.tensor([0]))
    items = torch.tensor([[0, 1], [2, 3]])
    layers = encoded.layers()
    assert len(layers) == 3
    parts = [layer(items) for layer in layers]
    torch.testing.assert_close(torch.stack(parts).sum(0), encoded.items(items))
    torch.testing.assert_close(parts[0], encoder.table[U:][items] / 3)
    (whole,) = torch.autograd.grad(encoded.items(items).exp().sum(), encoder.table)
    (summed,) = torch.autograd.grad(torch.stack(parts).sum(0).exp().sum(), encoder.table)
    torch.testing.assert_close(whole, summed)


def test_the_graph_is_not_part_of_a_checkpoint() -> None:
    assert list(LightGCN(TRAIN, U, M, DIM).state_dict()) == ["table"]
