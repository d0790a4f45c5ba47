"""CL4SRec's contrast: InfoNCE by hand, and what its weight and its temperature do."""

from math import log

import pytest
import torch
from torch import Tensor

from trainer.data import Interactions, load
from trainer.encoders import CL4SRec, Options, make
from trainer.encoders.lookup import rows_of
from trainer.sequences import Sequences

ALONE = torch.tensor([5, 3, 9, 7])  # sequences of one item: every augmentation leaves them alone


@pytest.fixture(scope="module")
def data() -> Interactions:
    return load(None, split="leave-one-out")


def contrast_of(data: Interactions, options: Options, contexts: Sequences) -> tuple[Tensor, Tensor]:
    """The loss, and the states of the sequences as they are; no dropout."""
    encoder = make("cl4srec", data, 8, 0, options).eval()
    assert isinstance(encoder, CL4SRec)
    with torch.no_grad():
        loss = encoder.auxiliary(contexts, torch.Generator().manual_seed(0))
        return loss, contexts.last(encoder.states(contexts, rows_of(encoder.items)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_info_nce_by_hand(data, temperature) -> None:
    contexts = Sequences(ALONE, torch.ones(4, dtype=torch.int64), 1)
    loss, states = contrast_of(data, Options(contrast=0.3, temperature=temperature), contexts)
    views = [*states, *states]
    terms = []
    for at, view in enumerate(views):
        others = {k: float(view @ views[k]) / temperature for k in range(8) if k != at}
        below = torch.tensor(list(others.values())).logsumexp(0)
        terms.append(float(below) - others[(at + 4) % 8])
    assert float(loss) == pytest.approx(0.3 * sum(terms) / 8, rel=1e-5)


def test_a_hot_softmax_tells_no_views_apart(data) -> None:
    contexts = Sequences(torch.arange(30), torch.tensor([12, 1, 17]), 17)
    hot, _ = contrast_of(data, Options(contrast=1.0, temperature=1e9), contexts)
    assert float(hot) == pytest.approx(log(5), rel=1e-5)  # of 6 views the 5 others are alike
    cool, _ = contrast_of(data, Options(contrast=1.0, temperature=1.0), contexts)
    assert float(cool) != pytest.approx(log(5), rel=1e-2)


def test_the_weight_is_linear_and_0_switches_it_off(data) -> None:
    contexts = Sequences(torch.arange(30), torch.tensor([12, 1, 17]), 17)
    weights = (0.1, 0.2, 0.0)
    losses = [contrast_of(data, Options(contrast=weight), contexts)[0] for weight in weights]
    one, twice, none = map(float, losses)
    assert twice == pytest.approx(2 * one, rel=1e-6)
    assert none == 0.0
