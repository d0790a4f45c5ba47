import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DataError
from trainer.readers import read_pairs

PAIRS = (["7", "7", "9"], ["1", "3", "2"])

TEXTS = {
    "lists.txt": "7 1 3\n9 2\n",
    "one_pair_a_line.txt": "7 1\n7 3\n9 2\n",
    "blank_lines_and_no_last_newline.txt": "\n7 1 3\n\n9 2",
    "windows.txt": "7 1 3\r\n9 2\r\n",
    "byte_order_mark.txt": "\ufeff7 1 3\n9 2\n",
    "plain.csv": "user,item\n7,1\n7,3\n9,2\n",
    "timed.csv": "item,user,timestamp\n3,7,20\n2,9,30.5\n1,7,10\n",
    "quoted.csv": 'user,item,title\n7,1,"a, b"\n7,3,""\n9,2,c\n',
    "tabs.tsv": 'user\titem\ttitle\n7\t1\t12" disc\n7\t3\t\n9\t2\tc\n',
    "recbole.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "7\t3\t1.0\t20\n7\t1\t5.0\t10\n9\t2\t3.0\t30\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_form_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    users, items = read_pairs(tmp_path / name)
    order = np.argsort(users, kind="stable")
    assert ([users[row] for row in order], [items[row] for row in order]) == PAIRS


def test_equal_timestamps_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ties.csv"
    path.write_text("user,item,timestamp\n1,9,5\n1,8,5\n1,7,4\n")
    assert read_pairs(path) == (["1"] * 3, ["7", "9", "8"])


@pytest.mark.parametrize(
    "timestamps",
    [
        [30, 10, 20],
        [3.0, 1.0, 2.0],
        pa.array([3, 1, 2], pa.timestamp("us")),
        pa.array(
            [1_700_000_000_000_003_001 + step for step in (2000, 0, 1000)], pa.timestamp("ns")
        ),
    ],
)
def test_parquet_with_numbers_or_dates_as_timestamps(tmp_path: Path, timestamps: object) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {"user": [9, 7, 7], "item": ["b", "a", "c"], "timestamp": timestamps}
    pq.write_table(pa.table(columns), path)
    assert read_pairs(path) == (["7", "7", "9"], ["a", "c", "b"])


def test_parquet_without_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"user_id": ["x", "y"], "item_id": [1, 2], "rating": [5, 4]}), path)
    assert read_pairs(path) == (["x", "y"], ["1", "2"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1, None], "item": [1, 2]}, "line 2: expected a user"),
        ({"user": [1], "thing": [1]}, "expected columns user, item.*user, thing"),
        ({"user": [1], "item": [1], "timestamp": ["soon"]}, "'timestamp'"),
        ({"user": [1, 2], "item": [1, 2], "timestamp": [0.0, float("inf")]}, "line 2.*finite"),
        ({"user": [[1]], "item": [1]}, "'user'"),
    ],
)
def test_parquet_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=message):
        read_pairs(path)


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "pairs.npy", np.array([[7, 1], [7, 3], [9, 2]], dtype=np.int32))
    assert read_pairs(tmp_path / "pairs.npy") == PAIRS


@pytest.mark.parametrize("array", [np.zeros((3, 3), int), np.zeros((3, 2)), np.zeros(3, int)])
def test_arrays_of_another_shape_or_type_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "pairs.npy", array)
    with pytest.raises(DataError, match=re.escape(str(array.shape))):
        read_pairs(tmp_path / "pairs.npy")


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "pairs.npy").open("wb") as file:
        np.savez(file, np.zeros((3, 2), int))
    with pytest.raises(DataError, match="an archive of several"):
        read_pairs(tmp_path / "pairs.npy")


@pytest.mark.parametrize("name", ["pairs.npy", "pairs.parquet"])
def test_binary_files_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not what the suffix says")
    with pytest.raises(DataError, match=name):
        read_pairs(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "number", "line", "expected"),
    [
        ("a.txt", "1 2\n3\n", 2, "3", "at least one item"),
        ("a.txt", "1 2\n\n3 x4\n", 3, "3 x4", "whole numbers, as on the first line"),
        ("a.txt", "1 2\n3 -4\n", 2, "3 -4", "whole numbers"),
        ("a.txt", "1,2\n", 1, "1,2", "user item item"),
        ("a.csv", "user,item\n1,2\n1\n", 3, "1", "2 fields"),
        ("a.csv", "user,item\n1,2\n1,2,3\n", 3, "1,2,3", "2 fields"),
        ("a.csv", "user,item\n1,2\n1,\n", 3, "1,", "a user and an item"),
        ("a.csv", "user,item\n1,2\none,2\n", 3, "one,2", "as in the first row"),
        ("a.csv", 'user,item\n1,"2"x\n', 2, '1,"2"x', "comma-separated"),
        ("a.csv", "user,item,timestamp\n1,2,nan\n", 2, "1,2,nan", "a finite number"),
        ("a.csv", "user,item,timestamp\n1,2,3\n1,2,inf\n", 3, "1,2,inf", "a finite number"),
        ("a.csv", "user,item,timestamp\n1,2,noon\n", 2, "1,2,noon", "a finite number"),
        ("a.inter", "user_id:token\titem_id:token\n1 2\n", 2, "1 2", "2 fields"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number_and_text(
    tmp_path: Path, name: str, text: str, number: int, line: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {number}: expected ")
    assert expected in message
    assert message.endswith(f"found {line!r}")


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 500)
    with pytest.raises(DataError, match="line 1: .* found '" + "x" * 80 + "'$"):
        read_pairs(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1 2\n3 \xff\n")
    with pytest.raises(DataError, match=r"line 2: expected UTF-8 text, found '3 \\\\xff"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "no interactions"),
        ("a.txt", "\n\n", "no interactions"),
        ("a.csv", "", "expected columns user, item"),
        ("a.csv", "user,item\n", "no interactions"),
        ("a.csv", "user,thing\n1,2\n", "expected columns user, item.*user, thing"),
        ("a.csv", "1,2\n3,4\n", "expected columns user, item.*1, 2"),
        ("a.csv", "user,user_id,item\n1,1,2\n", "more than one column is called 'user'"),
        ("a.xlsx", "1 2", "suffix must be .txt"),
    ],
)
def test_files_that_cannot_be_read_as_a_whole(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt: no such file"):
        read_pairs(tmp_path / "absent.txt")


def test_the_text_of_other_alphabets_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item\nÅsa,三\nb\u2028c,2\n", encoding="utf-8")
    assert read_pairs(path) == (["Åsa", "b\u2028c"], ["三", "2"])
