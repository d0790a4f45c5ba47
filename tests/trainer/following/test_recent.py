"""The ring keeps the latest rows, in order, and draws the new ones more often."""

import pytest
import torch

from trainer.following.recent import Recent


def rows(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    users = torch.tensor(values).unsqueeze(1)
    return users, -users


@pytest.mark.parametrize("capacity", [1, 3, 7, 100])
def test_it_is_a_list_of_the_latest(capacity):
    generator = torch.Generator().manual_seed(capacity)
    ring, kept, fell = Recent(capacity, 1), [], []
    for count in torch.randint(0, 9, (40,), generator=generator).tolist():
        values = torch.rand(count, generator=generator).tolist()
        users, positives = ring.add(*(part.reshape(-1, 1) for part in rows(*values)))
        kept += values
        fell, kept = kept[: max(0, len(kept) - capacity)], kept[-capacity:]
        assert users.flatten().tolist() == pytest.approx(fell)
        assert torch.equal(positives, -users)
        assert ring.all()[0].flatten().tolist() == pytest.approx(kept)
        assert len(ring) == len(kept)
    ring.clear()
    assert len(ring) == 0


def frequencies(half_life: int) -> torch.Tensor:
    """Of 8 rows of ages 7..0, over 80,000 draws."""
    ring = Recent(8, 1)
    ring.add(*rows(*(float(value) for value in range(-3, 8))))
    users, positives = ring.draw(80_000, half_life, torch.Generator().manual_seed(0))
    assert torch.equal(positives, -users)
    return users.flatten().long().bincount(minlength=8) / 80_000


@pytest.mark.parametrize("half_life", [1, 3, 10**6])
def test_a_row_as_old_as_the_half_life_is_drawn_half_as_often(half_life):
    wanted = 2.0 ** (torch.arange(8) / half_life)
    wanted = wanted / wanted.sum()
    assert (frequencies(half_life) - wanted).abs().max() < 0.008  # 4.5 standard errors
    # Negative control: 10 % off in the half-life is seen where it matters.
    if half_life == 3:
        wrong = 2.0 ** (torch.arange(8) / (1.1 * half_life))
        assert (frequencies(half_life) - wrong / wrong.sum()).abs().max() > 0.008
