"""Fixtures: a published registry, the app in process, a live service."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from fastapi import FastAPI

from service.app import create_app
from service.negatives import Service
from tests.service.live import THREADS, Live, publish, running, settings_for


@pytest.fixture(autouse=True)
def _only_known_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not reach them."""
    import os

    for name in os.environ:
        if name.startswith("TURNPOINT_") and name != "TURNPOINT_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _as_many_threads() -> None:
    """The service's, whatever a test before has set.

    Sums of matrix products depend on their number, and answers are compared bit by bit.
    """
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with one published version of `demo`."""
    publish(tmp_path)
    return tmp_path


@pytest.fixture
async def app(registry: Path) -> AsyncIterator[FastAPI]:
    """The application, its lifespan entered."""
    application = create_app(settings_for(registry))
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
def service(app: FastAPI) -> Service:
    parts: Service = app.state.service
    return parts


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to `app` in process."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as one:
        yield one


@pytest.fixture(scope="session")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One running service for all tests that only ask; nothing new is published to it."""
    address = tmp_path_factory.mktemp("registry")
    publish(address)
    with running(settings_for(address)) as live:
        yield live


@pytest.fixture
def start() -> Iterator[Callable[..., Live]]:
    """Starts services of a test's own: `start(address, server={...})`."""
    import contextlib

    with contextlib.ExitStack() as stack:
        yield lambda address, **groups: stack.enter_context(
            running(settings_for(address, **groups))
        )
