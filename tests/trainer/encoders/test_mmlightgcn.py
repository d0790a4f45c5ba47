from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import ConfigError
from tests.trainer.encoders.six import DIM, TRAIN, M, U
from tests.trainer.encoders.test_lightgcn import layer_mean
from trainer.data import Interactions
from trainer.encoders import LightGCN, MultiModalLightGCN
from trainer.encoders.neighbours import item_graph

WEIGHTS = {"image": 0.3, "audio": 0.6}


def encoder(data: Interactions, weights: dict[str, float] | None = WEIGHTS) -> MultiModalLightGCN:
    generator = torch.Generator().manual_seed(0)
    return MultiModalLightGCN(data, DIM, 2, weights, 2, generator=generator)


def by_hand(model: MultiModalLightGCN, data: Interactions, table: Tensor) -> Tensor:
    """LightGCN's mean of layers, and the items' sum over modalities beside it, dense, float64."""
    final = layer_mean(table, model.adjacency.to_dense().double(), 2)
    items = final[U:].clone()
    for name, weight in WEIGHTS.items():
        graph = item_graph({name: data.features[name]}, {name: 1.0}, k=2).to_dense().double()
        items = items + weight * graph @ table[U:]
    return torch.cat([final[:U], items])


def test_tables_are_those_of_the_dense_twin(data: Interactions) -> None:
    model = encoder(data)
    expected = by_hand(model, data, model.table.detach().double())
    torch.testing.assert_close(torch.cat(model.tables()).double(), expected, atol=1e-6, rtol=1e-5)
    plain = LightGCN(TRAIN, U, M, DIM, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.tables()[0], plain.tables()[0])
    assert not torch.allclose(model.tables()[1], plain.tables()[1])


def test_gradient_is_that_of_the_dense_twin(data: Interactions) -> None:
    model = encoder(data)
    users, items = torch.tensor([0, 0, 4]), torch.tensor([3, 1, 6])
    encoded = model.encode(users)
    (encoded.users * encoded.items(items)).exp().sum().backward()
    table = model.table.detach().double().requires_grad_()
    final = by_hand(model, data, table)
    (final[users] * final[U + items]).exp().sum().backward()
    torch.testing.assert_close(model.table.grad.double(), table.grad, atol=1e-6, rtol=1e-5)


def test_the_layers_add_up_to_the_whole(data: Interactions) -> None:
    model = encoder(data)
    encoded, items = model.encode(torch.tensor([1])), torch.tensor([[0, 3], [6, 6]])
    parts = [layer(items) for layer in encoded.layers()]
    assert len(parts) == 4
    torch.testing.assert_close(torch.stack(parts).sum(0), encoded.items(items))


def test_the_graphs_are_frozen_and_no_part_of_a_checkpoint(data: Interactions) -> None:
    model = encoder(data)
    assert [name for name, _ in model.named_parameters()] == ["table"]
    assert list(model.state_dict()) == ["table"]
    assert not model.alike.requires_grad


def test_modalities_count_alike_unless_told_otherwise(data: Interactions) -> None:
    one, same = encoder(data, None), encoder(data, {"image": 1.0, "audio": 1.0})
    assert torch.equal(one.tables()[1], same.tables()[1])


def test_data_without_features_is_refused(data: Interactions) -> None:
    with pytest.raises(ConfigError, match="mmlightgcn needs features of items, and six has none"):
        MultiModalLightGCN(replace(data, features={}), DIM)


def test_an_item_without_interactions_is_where_its_likes_are(data: Interactions) -> None:
    """What the graph is for: nobody in train took the last item; its twin was taken."""
    image = np.eye(M, dtype=np.float32)
    image[M - 1] = image[0] + 0.01
    train = TRAIN[TRAIN[:, 1] != M - 1]
    model = MultiModalLightGCN(
        replace(data, train=train, features={"image": image}), DIM, 2, {"image": 1.0}, 1
    )
    loss = -(model.encode(torch.tensor([0])).users * model.encode(torch.tensor([0])).items(
        torch.tensor([M - 1])
    )).sum()  # fmt: skip
    loss.backward()
    assert model.table.grad[U].any()  # through the twin's embedding
