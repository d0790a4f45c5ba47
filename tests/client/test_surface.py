"""What help() shows, and that the two clients show the same."""

import inspect
import tomllib
from pathlib import Path

import pytest
import turnpoint_client
from turnpoint_client import AsyncClient, Client, Options

METHODS = ["negatives", "items", "distribution", "models", "model"]


@pytest.mark.parametrize("name", METHODS)
def test_the_clients_are_twins(name: str) -> None:
    blocking, awaited = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking) == inspect.signature(awaited)
    assert blocking.__doc__ == awaited.__doc__
    assert inspect.iscoroutinefunction(awaited)
    assert not inspect.iscoroutinefunction(blocking)


def test_every_option_is_spelled_out_and_described() -> None:
    for method in (Client.negatives, Client.items, Client.distribution):
        parameters = inspect.signature(method).parameters
        for name in Options.__annotations__:
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[name].default is None
            assert name in (Options.__doc__ or "")
    assert list(inspect.signature(Client.negatives).parameters)[:4] == [
        "self",
        "users",
        "positives",
        "n",
    ]


def test_every_public_name_exists() -> None:
    assert all(hasattr(turnpoint_client, name) for name in turnpoint_client.__all__)


def test_the_version_is_the_distributions() -> None:
    path = Path(turnpoint_client.__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    assert project["version"] == turnpoint_client.__version__
