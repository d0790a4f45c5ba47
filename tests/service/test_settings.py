"""One frozen tree; a wrong name or value is one line that names the mend."""

import pytest
from pydantic import ValidationError

from core.errors import ConfigError
from service.app import create_app
from service.settings import fields, load_settings, masked, print_config


def test_defaults_work_and_are_frozen() -> None:
    settings = load_settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.server.max_n == 256
    assert settings.server.max_json_rows == 4096
    for owner, name in ((settings, "server"), (settings.server, "port")):
        with pytest.raises(ValidationError):
            setattr(owner, name, 1)


def test_flags_over_environment_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNPOINT_SERVER__PORT", "9000")
    monkeypatch.setenv("TURNPOINT_SERVER__HOST", "0.0.0.0")
    settings = load_settings({"server": {"port": 9001, "host": None}})
    assert (settings.server.port, settings.server.host) == (9001, "0.0.0.0")
    assert settings.server.max_n == 256


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TURNPOINT_SERVER__PROT", "TURNPOINT_SERVER__PORT"),
        ("TURNPOINT_SERVER_PORT", "TURNPOINT_SERVER__PORT"),
        ("TURNPOINT_REGISTRY", "TURNPOINT_REGISTRY__MODEL"),
        ("turnpoint_batching__queue_row", "TURNPOINT_BATCHING__QUEUE_ROWS"),
        ("TURNPOINT_ZZZ", "TURNPOINT_"),
    ],
)
def test_an_unknown_name_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"unknown setting {name}.*{near}"):
        load_settings()


def test_the_data_path_of_the_tests_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNPOINT_DATA", "/data/beauty.txt")
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER__PORT", "eighty"),
        ("SERVER__PORT", "70000"),
        ("SERVER__MAX_N", "257"),
        ("REGISTRY__POLL_SECONDS", "0"),
        ("LOG__LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TURNPOINT_{name}", value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert f"TURNPOINT_{name} = {value}: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_queue_too_small_for_the_largest_request_is_refused() -> None:
    with pytest.raises(ConfigError, match="QUEUE_ROWS = 10 is below SERVER__MAX_ROWS"):
        load_settings({"batching": {"queue_rows": 10}})
    with pytest.raises(ConfigError, match="QUEUE_BYTES = 2000 is below"):
        load_settings({"batching": {"queue_bytes": 2000}})


def test_every_setting_is_described_and_shown() -> None:
    settings = load_settings({"registry": {"address": "s3://me:secret@bucket/registry"}})
    shown = print_config(settings)
    assert "secret" not in shown
    assert "TURNPOINT_REGISTRY__ADDRESS=s3://***@bucket/registry" in shown
    assert [line.partition("=")[0] for line in shown.splitlines()] == list(fields())
    assert all(len(field.description or "") > 8 for field in fields().values())


def test_what_is_shown_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"server": {"port": 1234}, "registry": {"model": "demo"}})
    for line in print_config(settings).splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_masked() -> None:
    assert masked("redis://:pw@host:1/0") == "redis://***@host:1/0"
    assert masked("/a/b@c") == "/a/b@c"
    assert masked("redis://u:a/b@c@host:1/0") == "redis://***@host:1/0"
    assert masked("redis://host/0?password=pw&db=1") == "redis://host/0?password=***&db=1"
    assert masked("rediss://host:1/0?ssl_ca_certs=/a") == "rediss://host:1/0?ssl_ca_certs=/a"


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "toaster"])
def test_a_device_that_is_not_there_is_told_at_the_start(device: str) -> None:
    with pytest.raises(ConfigError, match=f"TURNPOINT_SERVER__DEVICE = '{device}' cannot be used"):
        create_app(load_settings({"server": {"device": device}}))
