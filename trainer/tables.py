"""Tables of interactions: columns `user`, `item` and perhaps `timestamp`, by header.

RecBole's names and types (`user_id:token`) are understood, further columns are ignored, and rows
are put into the order of their timestamps where there are any.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Never

import numpy as np

from core.errors import ConfigError, DataError
from trainer.lines import EXCERPT, Pairs, all_whole, lines_of, refuse


def read_table(path: Path) -> Pairs:
    """CSV, or TSV and `.inter` (tabs, quotes are ordinary characters)."""
    lines = list(lines_of(path))
    if path.suffix.lower() == ".csv":
        rows = csv.reader(lines, strict=True)
    else:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    _, header = next(_numbered(path, lines, rows), (1, []))
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
            refuse(path, number, lines[number - 1], f"{len(header)} fields, as in the header")
        pair = [row[user_at].strip(), row[item_at].strip()]
        if not all(pair):
            refuse(path, number, lines[number - 1], "a user and an item")
        if whole is None:
            whole = all_whole(pair)
        if whole and not all_whole(pair):
            refuse(path, number, lines[number - 1], "whole numbers as ids, as in the first row")
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
            # float64 rounds nanoseconds to 256 of them, which is good enough for an order.
            values = pc.cast(values, kind, safe=name != "timestamp")
        except pa.ArrowException as error:
            raise DataError(f"{path}: column {header[places[name]]!r}: {error}") from error
        found: list[object] = values.to_pylist()
        if None in found:
            refuse(path, found.index(None) + 1, "null", f"a {name} (rows counted from 1)")
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
            refuse(path, number, lines[number - 1], f"comma-separated fields ({error})")
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


def _time(path: Path, number: int, line: str, text: str) -> float:
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        refuse(path, number, line, "a finite number as timestamp")
    return time


def _in_time_order(users: list[str], items: list[str], times: list[float]) -> Pairs:
    """Sorts by time, where there is one; equal times keep the file's order."""
    if not times:
        return users, items
    order = np.argsort(times, kind="stable").tolist()
    return [users[row] for row in order], [items[row] for row in order]
