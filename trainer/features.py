"""What is known of items beside who took them: a table of numbers per modality.

A directory of interactions may hold one NumPy file per modality, `image.npy`, `audio.npy`: floats
[rows, f], whose row i belongs to the item that the interactions call `i`.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from core.errors import DataError
from trainer.lines import all_whole, load_array


def read_features(
    files: Iterable[Path], item_labels: Shaped[np.ndarray, "I"]
) -> dict[str, Float32[np.ndarray, "I _"]]:
    """Reads feature files, by name, their rows in the order of the interactions' items.

    Args:
        files: NumPy files of float16, float32 or float64 [rows, f], f >= 1.
        item_labels: str [I], whole numbers where there is a file; the row of each item.

    Returns:
        float32 [I, f] by the file's name without suffix. Rows of items that nobody took are left
        out.

    Raises:
        DataError: a file is not such an array, lacks an item's row, or has a number in one that is
            not finite as float32; or items are not numbered. The message names file and row.
    """
    return {file.stem: _rows_of(file, item_labels) for file in files}


def standardised(features: Float32[np.ndarray, "I f"]) -> Float32[np.ndarray, "I f"]:
    """Centred on the mean item, and divided by one number so that the mean square is 1.

    What all items have in common tells none of them apart: non-negative image features have a
    cosine of .86 on average, centred ones of about 0. One divisor for all columns keeps angles.
    """
    centred = features - features.mean(axis=0, dtype=np.float64)
    rms = np.sqrt(np.square(centred).mean())
    scaled: np.ndarray = (centred / (rms or 1.0)).astype(np.float32)
    return scaled


def _rows_of(file: Path, item_labels: np.ndarray) -> np.ndarray:
    table = load_array(file)
    if table.ndim != 2 or table.dtype.kind != "f" or not table.shape[1]:
        raise DataError(
            f"{file}: expected features, floats of shape (items, f), found {table.dtype} "
            f"{table.shape}; move the file away if it holds something else"
        )
    if not all_whole(item_labels.tolist()):
        raise DataError(
            f"{file}: features belong to items by row, so items must be called 0, 1, 2, ..., "
            f"not {str(item_labels[-1])!r}"
        )
    rows = item_labels.astype(np.int64)
    if rows.max() >= len(table):
        raise DataError(
            f"{file}: expected a row for every item, the last of which is {rows.max()}, found "
            f"{len(table)} rows"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        features: np.ndarray = table[rows].astype(np.float32)
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        row, column = rows[bad[0, 0]], bad[0, 1]
        raise DataError(
            f"{file}, row {row}: expected finite numbers that float32 can hold, found "
            f"{table[row, column]!s} in column {column} (both counted from 0)"
        )
    return features
