"""Real data where it is mounted; tests that need it skip elsewhere."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_dir() -> Path:
    path = os.environ.get("TURNPOINT_DATA")
    if not path or not Path(path).is_dir():
        pytest.skip("TURNPOINT_DATA does not name a directory with the real data sets")
    return Path(path)
