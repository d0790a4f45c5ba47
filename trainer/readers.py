"""The file forms of interactions; each reader returns labelled pairs in time order within a user.

    .txt            lines of `user item item ...`, oldest first; a user may have several lines
    .csv .tsv       a header with `user`, `item` and perhaps `timestamp`; other columns are ignored
    .inter          RecBole's form: the same with tabs and a typed header, `user_id:token`
    .parquet        columns of those names
    .npy            whole numbers [N, 2]

Where the first line's ids are whole numbers, so must all be; a line that breaks this, or that
cannot be read, is refused with its number and its text.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Never

import numpy as np

from core.errors import ConfigError, DataError

Pairs = tuple[list[str], list[str]]  # users and items, as labels

EXCERPT = 80  # characters of a bad line that its error quotes


def read_pairs(path: Path) -> Pairs:
    """Reads a file in the form that its suffix names.

    Args:
        path: the file.

    Returns:
        users and items, as labels, of equal length and at least one pair.

    Raises:
        DataError: the file is missing, empty, of unknown form, or has a line that cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot tell the form; the suffix must be {', '.join(READERS)}")
    users, items = reader(path)
    if not users:
        raise DataError(f"{path}: the file has no interactions")
    return users, items


def read_lists(path: Path) -> Pairs:
    """Lines of `user item item ...`; blank lines are skipped."""
    users: list[str] = []
    items: list[str] = []
    whole = None
    for number, line in enumerate(_lines(path), start=1):
        labels = line.split()
        if not labels:
            continue
        if len(labels) < 2:
            _refuse(path, number, line, "`user item item ...` with at least one item")
        if whole is None:
            whole = _all_whole(labels)
        if whole and not _all_whole(labels):
            _refuse(path, number, line, "whole numbers, as on the first line")
        users += labels[:1] * (len(labels) - 1)
        items += labels[1:]
    return users, items


def read_table(path: Path) -> Pairs:
    """CSV, or TSV and `.inter` (tabs, quotes are ordinary characters)."""
    lines = list(_lines(path))
    if path.suffix.lower() == ".csv":
        rows = csv.reader(lines, strict=True)
    else:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    number, header = next(_numbered(path, lines, rows), (1, []))
    places = _places(path, header)
    user_at, item_at, time_at = (places.get(name) for name in ("user", "item", "timestamp"))
    if user_at is None or item_at is None:
        _refuse_columns(path, header)
    users: list[str] = []
    items: list[str] = []
    times: list[float] = []
    whole = None
    for number, row in _numbered(path, lines, rows):
        if not row:
            continue
        if len(row) != len(header):
            _refuse(path, number, lines[number - 1], f"{len(header)} fields, as in the header")
        pair = [row[user_at].strip(), row[item_at].strip()]
        if not all(pair):
            _refuse(path, number, lines[number - 1], "a user and an item")
        if whole is None:
            whole = _all_whole(pair)
        if whole and not _all_whole(pair):
            _refuse(path, number, lines[number - 1], "whole numbers as ids, as in the first row")
        users.append(pair[0])
        items.append(pair[1])
        if time_at is not None:
            times.append(_time(path, number, lines[number - 1], row[time_at]))
    return _in_time_order(users, items, times)


def read_parquet(path: Path) -> Pairs:
    """A Parquet file; ids of any type are read as text, timestamps as numbers.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: see `read_pairs`.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(
            f"{path}: Parquet needs pyarrow; install turnpoint[trainer], or give a CSV file"
        ) from error
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    header = table.column_names
    places = _places(path, header)
    if "user" not in places or "item" not in places:
        _refuse_columns(path, header)

    def column(name: str, kind: object) -> list[object]:
        values = table.column(places[name])
        try:
            if name == "timestamp" and pa.types.is_temporal(values.type):
                values = pc.cast(values, pa.int64())
            values = pc.cast(values, kind)
        except pa.ArrowException as error:
            raise DataError(f"{path}: column {header[places[name]]!r}: {error}") from error
        found: list[object] = values.to_pylist()
        if None in found:
            _refuse(path, found.index(None) + 1, "null", f"a {name} (rows counted from 1)")
        return found

    users = [str(value) for value in column("user", pa.string())]
    items = [str(value) for value in column("item", pa.string())]
    times: list[float] = []
    if "timestamp" in places:
        times = [
            _time(path, row, str(value), str(value))
            for row, value in enumerate(column("timestamp", pa.float64()), start=1)
        ]
    return _in_time_order(users, items, times)


def read_array(path: Path) -> Pairs:
    """A NumPy file of whole numbers [N, 2], oldest first."""
    try:
        pairs = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a NumPy array file: {error}") from error
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected whole numbers of shape (N, 2), found {pairs.dtype} {pairs.shape}"
        )
    users, items = pairs.T.astype(str).tolist()
    return users, items


READERS: dict[str, Callable[[Path], Pairs]] = {
    ".txt": read_lists,
    ".csv": read_table,
    ".tsv": read_table,
    ".inter": read_table,
    ".parquet": read_parquet,
    ".npy": read_array,
}


def _lines(path: Path) -> Iterator[str]:
    """The file's lines without their ends; only a newline ends a line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                _refuse(path, number, raw.decode("utf-8", "backslashreplace"), "UTF-8 text")
            yield text.rstrip("\r\n")


def _numbered(
    path: Path, lines: Sequence[str], rows: "csv._reader"
) -> Iterator[tuple[int, list[str]]]:
    """A csv reader's rows with the number of their last line, its errors as ours."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            number = max(1, rows.line_num)
            _refuse(path, number, lines[number - 1], f"comma-separated fields ({error})")
        yield rows.line_num, row


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where `user`, `item` and `timestamp` stand; RecBole's `_id` and `:type` are let go."""
    names = [name.strip().partition(":")[0].removesuffix("_id").lower() for name in header]
    for name in ("user", "item", "timestamp"):
        if names.count(name) > 1:
            raise DataError(f"{path}: more than one column is called {name!r}: {list(header)}")
    return {name: place for place, name in enumerate(names)}


def _refuse_columns(path: Path, header: Sequence[str]) -> Never:
    text = ", ".join(header)[:EXCERPT]
    raise DataError(f"{path}: expected columns user, item and perhaps timestamp, found {text!r}")


def _all_whole(labels: Sequence[str]) -> bool:
    return all(label.isascii() and label.isdigit() for label in labels)


def _time(path: Path, number: int, line: str, text: str) -> float:
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        _refuse(path, number, line, "a finite number as timestamp")
    return time


def _in_time_order(users: list[str], items: list[str], times: list[float]) -> Pairs:
    """Sorts by time, where there is one; equal times keep the file's order."""
    if not times:
        return users, items
    order = np.argsort(times, kind="stable").tolist()
    return [users[row] for row in order], [items[row] for row in order]


def _refuse(path: Path, number: int, line: str, expected: str) -> Never:
    raise DataError(f"{path}, line {number}: expected {expected}, found {line[:EXCERPT]!r}")
