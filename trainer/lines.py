"""What readers share: lines and arrays of a file, the test for whole numbers, the refusal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Never

import numpy as np

from core.errors import DataError

Pairs = tuple[list[str], list[str]]  # users and items, as labels

EXCERPT = 80  # characters of a bad line that its error quotes


def lines_of(path: Path) -> Iterator[str]:
    """The file's lines without their ends; only a newline ends a line.

    Args:
        path: a file of UTF-8 text, with or without a byte order mark.

    Yields:
        one line after the other.

    Raises:
        DataError: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                refuse(path, number, raw.decode("utf-8", "backslashreplace"), "UTF-8 text")
            yield text.rstrip("\r\n")


def load_array(path: Path) -> np.ndarray:
    """The array of a NumPy file.

    Raises:
        DataError: the file is none, or an archive of several.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a NumPy array file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one array, found an archive of several")
    return array


def all_whole(labels: Sequence[str]) -> bool:
    """Whether every label is a whole number in plain digits."""
    return all(label.isascii() and label.isdigit() for label in labels)


def refuse(path: Path, number: int, line: str, expected: str) -> Never:
    """Refuses a line.

    Args:
        path: its file.
        number: counted from 1.
        line: its text, of which `EXCERPT` characters are quoted.
        expected: what would have been right.

    Raises:
        DataError: always.
    """
    raise DataError(f"{path}, line {number}: expected {expected}, found {line[:EXCERPT]!r}")
