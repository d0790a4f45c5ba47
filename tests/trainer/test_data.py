import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from trainer.data import Interactions, load
from trainer.features import standardised


def labelled(data: Interactions, pairs: np.ndarray) -> list[tuple[str, str]]:
    return [(str(data.user_labels[user]), str(data.item_labels[item])) for user, item in pairs]


def everything(data: Interactions) -> np.ndarray:
    return np.concatenate([data.train, data.valid, data.test])


def test_a_file_is_numbered_split_and_can_be_mapped_back(tmp_path: Path) -> None:
    path = tmp_path / "shop.txt"
    lists = {user: [user * 7 + step for step in range(6)] for user in (3, 20, 100)}
    path.write_text("\n".join(f"{u} {' '.join(map(str, items))}" for u, items in lists.items()))
    data = load(path, seed=1)
    assert (data.name, data.num_users, data.num_items) == ("shop", 3, 18)
    assert data.user_labels.tolist() == ["3", "20", "100"]  # as numbers, not as text
    expected = [(str(user), str(item)) for user, items in lists.items() for item in items]
    assert sorted(labelled(data, everything(data))) == sorted(expected)
    assert len(data.test) == 3
    assert len(data.valid) == 1  # 5 % of 15


def test_labels_that_are_no_numbers_are_in_alphabetical_order(tmp_path: Path) -> None:
    path = tmp_path / "shop.txt"
    path.write_text("eve B9 A1 10\nbob A1 C3 B9\n")
    data = load(path)
    assert data.user_labels.tolist() == ["bob", "eve"]
    assert data.item_labels.tolist() == ["10", "A1", "B9", "C3"]


def test_order_within_a_user_is_kept_and_a_second_time_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user,item,timestamp\n1,5,9\n0,1,1\n1,4,8\n1,5,7\n1,3,6\n0,2,0\n1,3,99\n")
    data = load(path, test_fraction=0.4, valid_fraction=0.0)
    held = set(labelled(data, data.test))
    expected = [("0", "2"), ("0", "1"), ("1", "3"), ("1", "5"), ("1", "4")]
    assert len(held) == 2
    assert labelled(data, data.train) == [pair for pair in expected if pair not in held]


def test_a_directory_keeps_its_splits_and_its_further_tests(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2\n1 2\n2 5 6 7\n")
    (tmp_path / "valid_iid.txt").write_text("0 1 3\n")  # 1 is in train already
    (tmp_path / "test_ood.txt").write_text("1 4\n1 1\n")
    (tmp_path / "test_iid.csv").write_text("user,item\n0,4\n0,3\n1,2\n")  # two seen before
    image = np.random.default_rng(0).random((9, 4))  # features, not interactions
    np.save(tmp_path / "image.npy", image)
    data = load(tmp_path)
    assert data.name == tmp_path.name
    assert labelled(data, data.valid) == [("0", "3")]
    assert labelled(data, data.test) == [("0", "4")]
    assert list(data.extra_tests) == ["test_ood"]
    assert labelled(data, data.extra_tests["test_ood"]) == [("1", "4"), ("1", "1")]
    assert list(data.features) == ["image"]
    assert data.item_labels.tolist() == ["1", "2", "3", "4", "5", "6", "7"]  # nobody took 0 and 8
    assert np.array_equal(data.features["image"], image[1:8].astype(np.float32))


def test_a_directory_without_validation_takes_it_out_of_train(tmp_path: Path) -> None:
    (tmp_path / "shop.train.txt").write_text("0 1 2 3\n1 1 2 3\n")
    (tmp_path / "shop.test.txt").write_text("0 4\n")
    data = load(tmp_path, valid_fraction=0.3)
    assert (len(data.train), len(data.valid), len(data.test)) == (4, 2, 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "0 1"}, "expected a file test"),
        ({"test.txt": "0 1"}, "expected a file train"),
        ({"train.txt": "0 1", "train.csv": "", "test.txt": "0 1"}, "both train.csv and train.txt"),
        ({"train.txt": "0 1", "test.txt": "0 1"}, "test: nothing to test on"),
        (
            {"train.txt": "0 1", "test_iid.txt": "0 2", "test_ood.txt": "0 1"},
            "test_ood: nothing to test on",
        ),
        ({"train.txt": "0 1", "test.txt": ""}, "test.txt: the file has no interactions"),
    ],
)
def test_directories_that_cannot_be_used(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_file_with_too_little_for_anybody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 1 2\n1 1\n")
    with pytest.raises(DataError, match="nothing to test on"):
        load(tmp_path / "a.txt")


def test_leaving_one_out_keeps_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("user,item,timestamp\n1,5,9\n0,1,1\n1,4,8\n0,7,2\n1,5,7\n1,3,6\n0,2,0\n")
    data = load(path, split="leave-one-out")
    assert labelled(data, data.train) == [("0", "2"), ("1", "3")]
    assert labelled(data, data.valid) == [("0", "1"), ("1", "5")]
    assert labelled(data, data.test) == [("0", "7"), ("1", "4")]


def test_a_directory_without_validation_leaves_the_last_out_of_train(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2 3\n1 9\n")
    (tmp_path / "test.txt").write_text("0 4\n1 4\n")
    data = load(tmp_path, split="leave-one-out")
    assert labelled(data, data.train) == [("0", "1"), ("0", "2"), ("1", "9")]
    assert labelled(data, data.valid) == [("0", "3")]


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split = 'by-date'; known: random, leave-one-out"):
        load(None, split="by-date")


@pytest.mark.parametrize("fractions", [{"test_fraction": 1.0}, {"valid_fraction": -0.1}])
def test_fractions_out_of_range_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        load(None, **fractions)


def interactions(train: list[list[int]]) -> Interactions:
    empty = np.empty((0, 2), dtype=np.int64)
    labels = np.array(["a", "b"])
    return Interactions("hand", 2, 2, np.array(train), empty, empty, labels, labels)


@pytest.mark.parametrize(
    ("train", "message"),
    [([[1, 0], [0, 0]], "ascend"), ([[0, 2]], r"\[0, 2\)"), ([[-1, 0]], r"\[0, 2\)")],
)
def test_interactions_made_by_hand_are_checked(train: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        interactions(train)


def test_features_have_a_row_for_each_item() -> None:
    given = interactions([[0, 0]])
    with pytest.raises(DataError, match="hand, image: 3 rows of features do not fit 2 items"):
        replace(given, features={"image": np.zeros((3, 4), dtype=np.float32)})


def test_popularity_counts_train_alone() -> None:
    data = replace(interactions([[0, 0], [0, 1], [1, 0]]), test=np.array([[1, 1]]))
    assert data.popularity.tolist() == [2, 1]
    assert interactions([[0, 0]]).popularity.tolist() == [1, 0]


def test_generated_data_has_features() -> None:
    data = load(None)
    assert {name: table.shape for name, table in data.features.items()} == {
        "image": (data.num_items, 32),
        "audio": (data.num_items, 16),
    }
    assert data.describe().endswith("; features of items: image (32), audio (16)")


def test_description() -> None:
    text = interactions([[0, 0], [0, 1], [1, 0]]).describe()
    assert text.startswith("hand: 2 users, 2 items, 3 interactions (3 train, 0 valid, 0 test)")
    assert "density 75.000%" in text
    assert text.endswith("tenth of items has 67%")


def test_beauty(data_dir: Path) -> None:
    start = time.perf_counter()
    data = load(data_dir / "amazon" / "beauty.txt")
    seconds = time.perf_counter() - start
    assert (data.num_users, data.num_items, len(everything(data))) == (22363, 12101, 198502)
    assert len(data.test) / 198502 == pytest.approx(0.2, abs=0.01)
    assert seconds < 5  # about 0.5 s on a quiet core


def test_yelp(data_dir: Path) -> None:
    data = load(data_dir / "ood" / "yelp2018")
    assert (data.num_users, data.num_items) == (8093, 13879)
    sizes = (len(data.train), len(data.valid), len(data.test), len(data.extra_tests["test_ood"]))
    assert sizes == (238515, 47570, 95173, 16346)


def test_tiktok(data_dir: Path) -> None:
    data = load(data_dir / "multimodal" / "tiktok")
    assert (data.num_users, data.num_items) == (9308, 6710)
    assert (len(data.train), len(data.valid), len(data.test)) == (59541, 3051, 6130)
    assert (data.item_labels.astype(int) == np.arange(6710)).all()  # rows of the feature files
    assert {name: table.shape[1] for name, table in data.features.items()} == {
        "audio": 128,
        "image": 128,
    }
    image = data.features["image"]
    assert mean_cosine(image) == pytest.approx(0.86, abs=0.005)
    assert abs(mean_cosine(standardised(image))) < 0.02


def mean_cosine(table: np.ndarray) -> float:
    """Over all pairs of rows, each with itself left out."""
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    rows = len(unit)
    return float((np.square(unit.sum(0)).sum() - rows) / (rows * (rows - 1)))
