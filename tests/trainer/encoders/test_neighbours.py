import numpy as np
import pytest
import torch

from trainer.encoders import neighbours
from trainer.encoders.neighbours import item_graph, nearest

I = 50  # noqa: E741


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image, audio = rng.random((I, 8)), rng.standard_normal((I, 5))
    return {"image": image.astype(np.float32), "audio": audio.astype(np.float32)}


def by_hand(table: np.ndarray, k: int) -> np.ndarray:
    """The definition, one item at a time, in float64."""
    centred = table.astype(np.float64) - table.mean(0, dtype=np.float64)
    found = []
    for i, own in enumerate(centred):
        cosine = centred @ own / np.linalg.norm(centred, axis=1) / np.linalg.norm(own)
        found.append([j for j in np.argsort(-cosine) if j != i][:k])
    return np.array(found)


def dense_twin(features: dict[str, np.ndarray], weights: dict[str, float], k: int) -> np.ndarray:
    """D^-1/2 A D^-1/2 of each modality as it is printed, weighed and added up, in float64."""
    total = np.zeros((I, I))
    for name, table in features.items():
        near = by_hand(table, k)
        joined = np.zeros((I, I), dtype=bool)
        joined[np.arange(I)[:, None], near] = True
        joined |= joined.T
        scale = joined.sum(1) ** -0.5
        total += weights[name] * scale[:, None] * joined * scale
    return total


@pytest.mark.parametrize("block", [7, 1024])
def test_neighbours_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    for table in tables().values():
        assert np.array_equal(nearest(table, 4), by_hand(table, 4))


def test_without_centring_the_neighbours_would_be_others() -> None:
    image = tables()["image"] + 5
    unit = image / np.linalg.norm(image, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    assert not np.array_equal(np.sort(np.argsort(-cosine)[:, :4]), np.sort(nearest(image, 4)))
    assert np.array_equal(nearest(image, 4), nearest(tables()["image"], 4))


def test_more_neighbours_than_items_are_all_the_others() -> None:
    near = nearest(tables()["audio"][:4], 10)
    assert np.sort(near).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_items_that_are_alike_are_neighbours_of_each_other_and_not_of_themselves() -> None:
    twice = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    assert nearest(twice, 1).ravel().tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_the_graph_is_the_weighed_sum_of_the_modalities() -> None:
    weights = {"image": 0.3, "audio": 0.7}
    graph = item_graph(tables(), weights, k=4).to_dense()
    np.testing.assert_allclose(graph, dense_twin(tables(), weights, 4), rtol=1e-5, atol=1e-7)
    assert torch.equal(graph, graph.T)
    assert not graph.diagonal().any()
    wrong = dense_twin(tables(), {"image": 0.7, "audio": 0.3}, 4)
    assert not np.allclose(graph, wrong, rtol=1e-2)
