"""CL4SRec's augmentations: what they keep, what they change, and how often."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from trainer import augment
from trainer.sequences import Sequences

MASK = 10_000
shares = st.sampled_from([0.1, 0.3, 0.5, 0.6, 1.0])
many_lengths = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def numbered(lengths: list[int]) -> Sequences:
    """Sequence s has the items 100 s, 100 s + 1, ..."""
    items = [100 * s + place for s, length in enumerate(lengths) for place in range(length)]
    return Sequences(torch.tensor(items), torch.tensor(lengths), max(lengths))


def lists(sequences: Sequences) -> list[list[int]]:
    return [part.tolist() for part in sequences.items.split(sequences.lengths.tolist())]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(many_lengths, shares, st.integers(0, 9))
def test_a_crop_is_a_run_of_the_stated_length(lengths, share, seed) -> None:
    cropped = augment.crop(numbered(lengths), share, seeded(seed))
    for number, (before, after) in enumerate(zip(lengths, lists(cropped), strict=True)):
        assert len(after) == max(1, int(share * before))
        assert after == list(range(after[0], after[0] + len(after)))
        assert 100 * number <= after[0] <= 100 * number + before - len(after)
    assert cropped.longest == max(map(len, lists(cropped)))


@given(many_lengths, shares, st.integers(0, 9))
def test_a_mask_hides_the_stated_number_and_nothing_else(lengths, share, seed) -> None:
    sequences = numbered(lengths)
    masked = augment.mask(sequences, share, MASK, seeded(seed))
    for before, after in zip(lists(sequences), lists(masked), strict=True):
        assert len(after) == len(before)
        assert after.count(MASK) == int(share * len(before))
        assert all(new in {old, MASK} for old, new in zip(before, after, strict=True))


@given(many_lengths, shares, st.integers(0, 9))
def test_a_reordering_permutes_one_run(lengths, share, seed) -> None:
    sequences = numbered(lengths)
    reordered = augment.reorder(sequences, share, seeded(seed))
    for before, after in zip(lists(sequences), lists(reordered), strict=True):
        assert sorted(after) == before
        moved = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        if moved:
            assert moved[-1] - moved[0] < int(share * len(before))


def test_places_are_uniform() -> None:
    """Where a crop begins, what a mask hides, and the order of a shuffled run."""
    sequences = numbered([5] * 6000)
    begins = torch.tensor(
        [items[0] % 100 for items in lists(augment.crop(sequences, 0.6, seeded(0)))]
    )
    hidden = augment.mask(sequences, 0.2, MASK, seeded(1)).items.view(-1, 5) == MASK
    whole = augment.reorder(sequences, 1.0, seeded(2)).items.view(-1, 5) % 100
    orders = (whole * 10 ** torch.arange(5)).sum(1).unique(return_counts=True)[1]
    assert len(orders) == 120
    for counts in (begins.bincount(minlength=3), hidden.sum(0), orders):
        assert chisquare(counts.numpy()).pvalue > 0.001
    # The control: half a per cent of the crops moved to the front, of 2000 each, would not be
    # seen, 15 % of one place's would.
    skewed = begins.bincount().double()
    skewed[0] *= 1.15
    assert chisquare(skewed.numpy(), [skewed.mean()] * 3).pvalue < 0.001


@given(many_lengths, st.integers(0, 9))
def test_choosing_takes_each_sequence_from_one_side(lengths, seed) -> None:
    first = numbered(lengths)
    second = augment.crop(first.replaced(first.items + 50), 0.5, seeded(seed))
    take = torch.randint(2, (len(lengths),), generator=seeded(seed)).bool()
    mixed = lists(augment.choose(first, second, take))
    for number, chosen in enumerate(take.tolist()):
        assert mixed[number] == (lists(second) if chosen else lists(first))[number]


@pytest.mark.parametrize("name", ["crop", "reorder"])
def test_a_seed_fixes_the_view(name) -> None:
    sequences, change = numbered([9, 4, 20]), getattr(augment, name)
    one, same, other = (change(sequences, 0.6, seeded(seed)) for seed in (1, 1, 2))
    assert lists(one) == lists(same)
    assert lists(one) != lists(other)
