import torch
from torch import Tensor

from tests.trainer.encoders.test_lightgcn import TRAIN, M, U, dense_adjacency
from trainer.encoders import NGCF

DIM, LAYERS = 8, 3
WIDTH = DIM // (LAYERS + 1)


def encoder(dropout: float = 0.0) -> NGCF:
    generator = torch.Generator().manual_seed(0)
    return NGCF(TRAIN, U, M, DIM, LAYERS, dropout, generator=generator)


def neighbour_by_neighbour(model: NGCF) -> Tensor:
    """NGCF Eq. 3-6 as they are printed, one node after the other, float64."""
    layers = [model.table.detach().double()]
    graph = dense_adjacency()  # 1 / sqrt(|N_u| |N_i|)
    for own, alike in zip(model.own, model.alike, strict=True):
        w1, b1, w2, b2 = (
            p.detach().double() for p in (own.weight, own.bias, alike.weight, alike.bias)
        )
        last, rows = layers[-1], []
        for node in range(U + M):
            message = w1 @ last[node] + b1 + b2  # the node to itself; biases once
            for other in range(U + M):
                if graph[node, other] > 0:
                    both = w1 @ last[other] + w2 @ (last[other] * last[node])
                    message = message + graph[node, other] * both
            rows.append(torch.where(message > 0, message, 0.2 * message))
        layers.append(torch.stack(rows))
    return torch.cat([layers[0], *map(unit, layers[1:])], dim=1)


def unit(layer: Tensor) -> Tensor:
    return layer / layer.square().sum(1, keepdim=True).sqrt()


def test_tables_are_the_papers_messages_summed_up() -> None:
    model = encoder()
    for linear in [*model.own, *model.alike]:
        torch.nn.init.normal_(linear.bias)
    expected = neighbour_by_neighbour(model)
    torch.testing.assert_close(torch.cat(model.tables()).double(), expected, rtol=1e-5, atol=1e-6)


def test_gradient_is_that_of_the_dense_twin() -> None:
    model = encoder()
    users, items = torch.tensor([0, 0, 2]), torch.tensor([3, 1, 2])
    encoded = model.encode(users)
    (encoded.users * encoded.items(items)).exp().sum().backward()
    names, ours = zip(*((n, p.grad) for n, p in model.named_parameters()), strict=True)

    adjacency = dense_adjacency().float()
    layers = [model.table]
    for own, alike in zip(model.own, model.alike, strict=True):
        received = adjacency @ layers[-1]
        mixed = own(received + layers[-1]) + alike(received * layers[-1])
        layers.append(torch.nn.functional.leaky_relu(mixed, 0.2))
    final = torch.cat([layers[0], *map(unit, layers[1:])], dim=1)
    loss = (final[users] * final[U + items]).exp().sum()
    theirs = torch.autograd.grad(loss, [dict(model.named_parameters())[n] for n in names])
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_what_the_layers_add_is_the_whole_side_by_side() -> None:
    model = encoder()
    encoded = model.encode(torch.tensor([1]))
    items = torch.tensor([[0], [3]])
    parts = [layer(items) for layer in encoded.layers()]
    torch.testing.assert_close(torch.stack(parts).sum(0), encoded.items(items))
    torch.testing.assert_close(parts[0][..., :WIDTH], model.table.detach()[U + items])
    assert not parts[0][..., WIDTH:].any()


def test_messages_are_dropped_in_training() -> None:
    torch.manual_seed(0)
    model = encoder(dropout=0.5)
    final = torch.cat([model.encode(torch.arange(U)).users for _ in range(300)])
    # 3000 values of layer 1: the deviation of the share is 0.009; 5 deviations.
    dropped = (final[:, WIDTH : 2 * WIDTH] == 0).float().mean().item()
    assert abs(dropped - 0.5) < 0.046
    assert (final[:, :WIDTH] != 0).all()  # layer 0 is no message


def test_the_graph_is_not_part_of_a_checkpoint() -> None:
    assert "adjacency" not in encoder().state_dict()
