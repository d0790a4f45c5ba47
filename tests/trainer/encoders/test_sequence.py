"""Encoders of sequences: causal, indifferent to padding and batch-mates, blind to the held out."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from core.errors import DataError
from trainer.batches import SequenceBatches
from trainer.cotrain import cotrain, new_run
from trainer.data import Interactions, load
from trainer.defaults import config_for
from trainer.encoders import Options, make
from trainer.evaluate import evaluate
from trainer.sampling import make_picker
from trainer.sequences import WIDTHS, Sequences

NAMES = ("gru4rec", "sasrec", "cl4srec")
DIM = 8


@pytest.fixture(scope="module")
def data() -> Interactions:
    return load(None, split="leave-one-out")


@pytest.fixture(params=NAMES)
def encoder(request, data):
    encoder = make(request.param, data, DIM, seed=0).eval()
    with torch.no_grad():  # away from the small first values, so that every item matters
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    return encoder


def sequences(*lists: list[int]) -> Sequences:
    lengths = [len(items) for items in lists]
    return Sequences(
        torch.tensor([*chain.from_iterable(lists)]), torch.tensor(lengths), max(lengths)
    )


def states_of(encoder, contexts: Sequences) -> torch.Tensor:
    return encoder.encode(contexts).users


# One of every band, so that each is put back where it belongs.
LISTS = ([5, 3, 9], list(range(30)), [7], list(range(40, 55)), [1, 2, 3, 4, 5, 6, 7, 8], [3, 3])


def test_the_lists_fill_every_band() -> None:
    bands = sequences(*LISTS)._bands
    assert len(bands) == len(WIDTHS) + 1
    assert [len(part.lengths) for _, part in bands] == [4, 1, 1]


def test_a_later_item_never_changes_an_earlier_state(encoder) -> None:
    items = [4, 8, 15, 16, 23, 42]
    before = states_of(encoder, sequences(items))
    for changed in range(len(items)):
        other = states_of(encoder, sequences([*items[:changed], 99, *items[changed + 1 :]]))
        torch.testing.assert_close(other[:changed], before[:changed])
        # The control: from the changed item on every state is another.
        gap = (other[changed:] - before[changed:]).abs().max(1).values
        assert (gap > 1e-4).all()


def test_states_depend_on_the_order(encoder) -> None:
    one, other = states_of(encoder, sequences([1, 2, 3])), states_of(encoder, sequences([2, 1, 3]))
    assert (one[-1] - other[-1]).abs().max() > 1e-4


def test_padding_and_batch_mates_do_not_matter(encoder) -> None:
    together = states_of(encoder, sequences(*LISTS)).split([len(items) for items in LISTS])
    for items, states in zip(LISTS, together, strict=True):
        torch.testing.assert_close(states, states_of(encoder, sequences(items)))
        wider = replace(sequences(items), longest=50)
        torch.testing.assert_close(states, states_of(encoder, wider))


def test_tables_end_where_the_split_says(encoder, data) -> None:
    """For validation the train items, for test the validation item as well; never the test item."""
    valid, test = encoder.tables("valid")[0], encoder.tables("test")[0]
    for user in (0, 7, 1999):
        history = data.train[data.train[:, 0] == user, 1].tolist()
        next_item = data.valid[data.valid[:, 0] == user, 1].tolist()
        assert len(next_item) == 1
        for table, items in ((valid, history), (test, history + next_item)):
            state = states_of(encoder, sequences(items[-50:]))[-1]
            torch.testing.assert_close(table[user], state)


def test_tables_do_not_see_what_is_held_out(data) -> None:
    """Other test items, and for validation other validation items, change nothing."""
    rng = np.random.default_rng(0)
    others = {
        name: np.stack([pairs[:, 0], rng.permutation(pairs[:, 1])], axis=1)
        for name, pairs in (("valid", data.valid), ("test", data.test))
    }
    one, same = (make("sasrec", d, DIM, seed=0).eval() for d in (data, replace(data, **others)))
    assert torch.equal(one.tables("valid")[0], same.tables("valid")[0])
    assert not torch.equal(one.tables("test")[0], same.tables("test")[0])
    only_test = make("sasrec", replace(data, test=others["test"]), DIM, seed=0).eval()
    assert torch.equal(one.tables("test")[0], only_test.tables("test")[0])


def test_a_user_without_history_has_no_embedding_but_zero(data) -> None:
    bare = replace(data, train=data.train[data.train[:, 0] != 3], valid=data.valid[:0])
    users, _ = make("gru4rec", bare, DIM, seed=0).eval().tables()
    assert not users[3].any()
    assert users[4].any()


def test_batches_are_every_next_item_of_the_latest(data) -> None:
    batches = SequenceBatches(data, size=64, max_length=5)
    seen: dict[int, tuple[list[int], list[int]]] = {}
    count = 0
    for batch in batches.epoch(torch.Generator().manual_seed(0)):
        contexts = batch.contexts
        assert int(contexts.lengths.max()) == contexts.longest
        assert len(batch.users) == len(batch.items) == int(contexts.lengths.sum())
        lengths = contexts.lengths.tolist()
        columns = (batch.users, contexts.items, batch.items)
        for users, inputs, nexts in zip(
            *(column.split(lengths) for column in columns), strict=True
        ):
            assert len(set(users.tolist())) == 1
            seen[int(users[0])] = (inputs.tolist(), nexts.tolist())
        count += 1
    assert count == len(batches)
    for user in range(data.num_users):
        items = data.train[data.train[:, 0] == user, 1].tolist()[-6:]
        assert seen.get(user, ([], [])) == (items[:-1], items[1:])


def test_data_without_a_next_item_are_refused(data) -> None:
    first = np.flatnonzero(np.diff(data.train[:, 0], prepend=-1))
    with pytest.raises(DataError, match="synthetic: no user has two train items"):
        SequenceBatches(replace(data, train=data.train[first]), size=64, max_length=5)


def test_padding_is_undone() -> None:
    ragged = sequences(*LISTS)
    rows = torch.randn(len(ragged.items), 3, generator=torch.Generator().manual_seed(0))
    rectangle = ragged.pad(rows)
    assert rectangle.shape == (6, 30, 3)
    assert torch.equal(ragged.unpad(rectangle), rows)
    assert not rectangle[0, 3:].any()
    assert torch.equal(rectangle[1], rows[3:33])
    assert torch.equal(ragged.last(rows)[[0, 2]], rows[[2, 33]])
    assert torch.equal(ragged.in_bands(lambda part, _: 2 * part, rows), 2 * rows)


@pytest.fixture(scope="module")
def rule() -> Interactions:
    """Everybody walks round a circle of 40 items in steps of 3, from a place and for a time of
    their own: the next item follows from the last one, and from nothing else.
    """
    rng = np.random.default_rng(0)
    walks = [
        (start + 3 * np.arange(length)) % 40 for start, length in rng.integers(6, 20, (150, 2))
    ]
    walks = [(walk + rng.integers(40)) % 40 for walk in walks]
    columns = {"train": slice(-2), "valid": slice(-2, -1), "test": slice(-1, None)}
    parts = {
        name: np.array([[user, item] for user, walk in enumerate(walks) for item in walk[part]])
        for name, part in columns.items()
    }
    labels = [np.arange(size).astype(str) for size in (150, 40)]
    return Interactions("circle", 150, 40, **parts, user_labels=labels[0], item_labels=labels[1])


@pytest.mark.parametrize("name", [*NAMES, "mf"])
def test_what_follows_from_the_order_is_learnt(name, rule) -> None:
    torch.set_num_threads(1)
    config = config_for(name, dim=16, epochs=30, learning_rate=1e-2, batch_size=64, dropout=0.1)
    config = replace(config, eval_every=30)
    run = new_run(make(name, rule, 16, 0, Options(dropout=0.1)), config)
    cotrain(run, rule, make_picker("uniform", rule), config)
    ndcg = evaluate(*run.encoder.eval().tables("test"), rule, "test")["ndcg@10"]
    if name == "mf":  # the control: it knows who walks where, but not which way (0.64)
        assert ndcg < 0.75
    else:
        assert ndcg > 0.9
