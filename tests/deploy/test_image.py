"""The Dockerfile and what it copies, read and not built; `make image-test` builds and runs."""

import json
import re
import time
import tomllib

import httpx
import pytest
from dockerfile_parse import DockerfileParser

from tests.cli.conftest import ENVIRONMENT, ROOT, python
from tests.deploy.compose import MAIN, loaded
from tests.service.live import publish, running, settings_for

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TORCH = re.search(r"^TORCH +\?= (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
BASE = "python:3.11.14-slim-bookworm"


@pytest.fixture(scope="module")
def steps():
    """(instruction, value) of every step."""
    with (ROOT / "Dockerfile").open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [(s["instruction"], s["value"]) for s in structure if s["instruction"] != "COMMENT"]


def arguments(steps):
    """ARG name -> default."""
    pairs = (value.partition("=") for name, value in steps if name == "ARG" and "=" in value)
    return {name: default for name, _, default in pairs}


def test_what_it_copies_is_there_and_reaches_the_builder(steps):
    kept = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    stages = [value.split()[-1] for name, value in steps if name == "FROM"]
    copied = [value.split() for name, value in steps if name == "COPY"]
    for *sources, _ in copied:
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in kept), source
    assert all((ROOT / path).exists() for path in kept)


def test_our_packages_are_all_copied(steps):
    sources = {word for name, value in steps if name == "COPY" for word in value.split()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert {*build["targets"]["wheel"]["packages"], "client"} <= sources


def test_its_defaults_are_those_of_the_rest(steps):
    defaults = arguments(steps)
    assert defaults["TORCH"] == TORCH
    assert defaults["VERSION"] == PROJECT["version"]
    assert defaults["BASE_IMAGE"] == BASE
    assert defaults["TORCH_INDEX"] == defaults["EXTRA_PACKAGES"] == ""
    images = {name: service["image"] for name, service in loaded(MAIN)["services"].items()}
    assert images["service"] == f"turnpoint-service:{PROJECT['version']}"
    assert loaded(MAIN)["services"]["service"]["build"]["args"]["BASE_IMAGE"] == BASE


def test_the_images_run_as_nobody_in_particular_and_drain(steps):
    told = dict(step for step in steps if step[0] in {"USER", "STOPSIGNAL", "ENTRYPOINT"})
    assert told == {"USER": "10001:10001", "STOPSIGNAL": "SIGTERM", "ENTRYPOINT": '["turnpoint"]'}
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    assert steps[last][1].endswith("AS service"), "the default target"
    (check,) = [value for name, value in steps if name == "HEALTHCHECK"]
    argv = json.loads(check.partition("CMD ")[2])
    assert argv == loaded(MAIN)["services"]["service"]["healthcheck"]["test"][1:]


def test_no_package_is_left_unlocked():
    """Of a target's direct needs; `make image-test` looks at all that is installed."""
    locked = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for target in ("service", "trainer"):
        needs = python("deploy/image/needs.py", target, cwd=ROOT).stdout.split("\n")
        assert {_name(need.partition(";")[0]) for need in needs if need} - locked == {"torch"}
        assert {"torch", "numpy", "httpx"} <= {_name(need) for need in needs}


def test_the_health_check_tells_what_the_service_tells(monkeypatch, tmp_path):
    script = ROOT / "deploy" / "image" / "healthcheck.py"
    with running(settings_for(tmp_path)) as live:
        monkeypatch.setitem(ENVIRONMENT, "TURNPOINT_SERVER__PORT", str(live.host[1]))
        told = python(script, cwd=ROOT, check=False)
        assert (told.returncode, "no model is published" in told.stderr) == (1, True)
        publish(tmp_path)
        while httpx.get(f"{live.url}/readyz").status_code != 200:
            time.sleep(0.01)
        assert '"ready"' in python(script, cwd=ROOT).stdout
    monkeypatch.setitem(ENVIRONMENT, "TURNPOINT_SERVER__PORT", "1")
    told = python(script, cwd=ROOT, check=False)
    assert (told.returncode, told.stderr.startswith("no answer: ")) == (1, True)


def _name(requirement):
    return re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-")
