"""The file forms of interactions; each reader returns labelled pairs in time order within a user.

    .txt            lines of `user item item ...`, oldest first; a user may have several lines
    .csv .tsv       a header with `user`, `item` and perhaps `timestamp`; other columns are ignored
    .inter          RecBole's form: the same with tabs and a typed header, `user_id:token`
    .parquet        columns of those names
    .npy            whole numbers [N, 2]

Where the first line's ids are whole numbers, so must all be; a line that breaks this, or that
cannot be read, is refused with its number and its text.
"""

from collections.abc import Callable
from pathlib import Path

from core.errors import DataError
from trainer.lines import Pairs, all_whole, lines_of, load_array, refuse
from trainer.tables import read_parquet, read_table


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
    for number, line in enumerate(lines_of(path), start=1):
        labels = line.split()
        if not labels:
            continue
        if len(labels) < 2:
            refuse(path, number, line, "`user item item ...` with at least one item")
        if whole is None:
            whole = all_whole(labels)
        if whole and not all_whole(labels):
            refuse(path, number, line, "whole numbers, as on the first line")
        users += labels[:1] * (len(labels) - 1)
        items += labels[1:]
    return users, items


def read_array(path: Path) -> Pairs:
    """A NumPy file of whole numbers [N, 2], oldest first."""
    pairs = load_array(path)
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
