import re
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from trainer.features import read_features, standardised

LABELS = np.array(["0", "2"])


def test_rows_follow_the_items_and_are_cast_first(tmp_path: Path) -> None:
    table = np.array([[1, 2048], [np.nan, np.nan], [3, 2049]], dtype=np.float16)
    np.save(tmp_path / "audio.npy", table)  # nobody took item 1
    (audio,) = read_features([tmp_path / "audio.npy"], LABELS).values()
    assert audio.dtype == np.float32
    assert audio.tolist() == [[1, 2048], [3, 2048]]  # 2049 is no float16


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros(3), "expected features, floats of shape (items, f), found float64 (3,)"),
        (np.zeros((3, 0)), "found float64 (3, 0)"),
        (np.zeros((3, 4), int), "found int64 (3, 4)"),
        (np.zeros((2, 4)), "the last of which is 2, found 2 rows"),
        (np.array([[0.0], [0.0], [np.nan]]), "row 2: expected finite numbers"),
        (np.array([[0.0, 1e39], [0.0, 0.0], [0.0, 0.0]]), "found 1e+39 in column 1"),
    ],
)
def test_what_is_no_feature_of_these_items_is_refused(
    tmp_path: Path, table: np.ndarray, message: str
) -> None:
    path = tmp_path / "image.npy"
    np.save(path, table)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_features([path], LABELS)
    assert str(caught.value).startswith(str(path))


def test_items_without_numbers_have_no_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"items must be called 0, 1, 2.* not 'B9'"):
        read_features([tmp_path / "image.npy"], np.array(["1", "B9"]))


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"image\.npy: not a NumPy array file"):
        read_features([tmp_path / "image.npy"], LABELS)


def test_standardised_is_centred_at_unit_scale_and_keeps_angles() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((50, 3), dtype=np.float32) * np.float32([1, 10, 100]) + 1000
    out = standardised(table)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    assert np.square(out).mean() == pytest.approx(1)
    centred = table - table.mean(0, dtype=np.float64)
    scale = np.sqrt(np.square(centred).mean())
    np.testing.assert_allclose(out, centred / scale, atol=1e-5)


def test_what_does_not_vary_is_zero() -> None:
    assert not standardised(np.full((4, 2), 7, dtype=np.float32)).any()
