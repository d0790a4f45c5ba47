"""The environment of whoever runs the tests must not reach the services that they start."""

import os

import pytest


@pytest.fixture(autouse=True)
def _only_known_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TURNPOINT_"):
            monkeypatch.delenv(name)
