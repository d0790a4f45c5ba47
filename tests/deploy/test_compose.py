"""docker-compose.yml: valid, pinned, hardened, in step with the settings and with what is there."""

import json
import re
import shlex

import pytest
from compose_spec import PyCompose

from service.settings import fields, load_settings
from tests.cli.conftest import turnpoint
from tests.deploy.compose import MAIN, ROOT, SECURE, loaded, variables

VERSIONED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
KNOB = re.compile(r"^#(?P<name>[A-Z_0-9]+)=(?P<value>.*)$", re.M)
# Read by `docker compose` itself, or obligatory where it is asked for.
WITHOUT_DEFAULT = {
    "COMPOSE_PROFILES": "",
    "COMPOSE_FILE": f"{MAIN}:{SECURE}",
    "SECRETS": "./secrets",
}


@pytest.fixture(params=[(MAIN,), (MAIN, SECURE)], ids=["main", "secure"])
def composed(request):
    return loaded(*request.param, SECRETS="./secrets")


def test_it_follows_the_compose_specification(composed):
    services = composed["services"]
    parsed = PyCompose.from_json(json.dumps(composed))
    assert set(parsed.service_names()) == set(services)
    broken = {**composed, "services": {"service": {**services["service"], "imagine": "x"}}}
    with pytest.raises(ValueError, match="imagine"):
        PyCompose.from_json(json.dumps(broken))


def test_every_image_has_a_version(composed):
    for name, service in composed["services"].items():
        assert VERSIONED.fullmatch(service["image"]), name


def test_every_service_is_hardened(composed):
    for name, service in composed["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        for published in service.get("ports", []):
            assert published["host_ip"] == "127.0.0.1", name


def test_what_is_waited_for_has_a_health_check_and_may_be_waited_for(composed):
    services = composed["services"]
    assert services["traffic"]["depends_on"].keys() == {"service"}
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy", name
            assert "test" in services[other]["healthcheck"], other
            # Nothing that always starts may wait for what a profile starts.
            assert "profiles" not in services[other], other


def test_what_is_mounted_and_built_is_there(composed):
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    arguments = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.M)
    for service in composed["services"].values():
        for source in map(_source, service.get("volumes", [])):
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in composed["volumes"], source
        for secret in service.get("secrets", []):
            assert secret in composed["secrets"]
        if "build" in service:
            assert service["build"]["target"] in stages
            assert service["build"]["args"].keys() <= set(arguments)
    assert (ROOT / composed["secrets"]["pip"]["file"]).exists()


def test_the_gpu_profile_reserves_a_device_under_the_same_name():
    gpu = loaded(MAIN)["services"]["service-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (gpu["profiles"], device["driver"], device["count"]) == (["gpu"], "nvidia", 1)
    assert gpu["environment"]["TURNPOINT_SERVER__DEVICE"] == "cuda"
    assert gpu["networks"]["default"]["aliases"] == ["service"]
    assert loaded(MAIN, CPU_REPLICAS="0")["services"]["service"]["scale"] == 0


def test_the_service_starts_with_what_it_is_given(composed, monkeypatch, tmp_path):
    for name in ("service", "service-gpu"):
        for variable, value in composed["services"][name]["environment"].items():
            monkeypatch.setenv(variable, value)
        settings = load_settings()
        grace = composed["services"][name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > settings.server.drain_seconds


def test_others_come_in_with_a_key_only():
    settings = loaded(MAIN, SECURE, SECRETS="./secrets")["services"]["service"]["environment"]
    assert settings["TURNPOINT_AUTH__ALLOW_ANONYMOUS"] == "false"
    assert settings["TURNPOINT_AUTH__KEYS_FILE"] == "/run/secrets/keys"
    with pytest.raises(ValueError, match="name the folder of secrets"):
        loaded(MAIN, SECURE)


def test_the_trainers_flags_exist(tmp_path):
    command, *arguments = shlex.split(loaded(MAIN)["services"]["trainer"]["command"])
    told = turnpoint(command, "--help", cwd=tmp_path).stdout
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert {"--registry", "--model"} <= flags
    assert [flag for flag in flags if flag not in told] == []


def test_every_knob_is_in_the_example_with_its_default():
    """What the compose files leave open, and every setting that they do not fix."""
    open_ = variables(MAIN, SECURE)
    given = loaded(MAIN, SECURE, SECRETS=".")["services"]["service"]["environment"]
    settings = {
        name: _written(field.get_default(call_default_factory=True))
        for name, field in fields().items()
        if name not in given
    }
    shown = dict(KNOB.findall((ROOT / ".env.example").read_text()))
    assert [shown.pop(name) for name in WITHOUT_DEFAULT] == list(WITHOUT_DEFAULT.values())
    assert shown == settings | {name: value for name, value in open_.items() if value is not None}


def _source(volume):
    return volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]


def _written(default):
    return (
        ""
        if default is None
        else str(default).lower()
        if default in {True, False}
        else str(default)
    )
