"""docs/operations.md: its commands name what there is, and do what it says."""

import os
import re
import shlex
import subprocess
import time

import pytest
import yaml

from tests.cli.conftest import ROOT
from tests.deploy.compose import MAIN, loaded

TEXT = (ROOT / "docs" / "operations.md").read_text()
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()
]
COMPOSE = [shlex.split(line, comments=True) for line in LINES if line.startswith("docker compose")]
DAY = 86400


def test_what_compose_is_asked_for_is_there():
    services = loaded(MAIN)["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    asked = re.findall(r"--profile (\w+)", TEXT)
    assert set(asked) <= profiles
    ran = [words for words in COMPOSE if words[2] == "run"]
    assert len(ran) >= 5
    for words in ran:
        assert "trainer" in words, words
    named = re.findall(r"docker compose (?:stop|logs|exec) ([\w-]+)", TEXT)
    assert set(named) == {"trainer", "service"} <= services.keys()


def test_knobs_that_are_named_exist():
    example = (ROOT / ".env.example").read_text()
    (table,) = re.findall(r"\| to \| set in `.env` \|.*?\n\n", TEXT, re.S)
    for name in re.findall(r"`([A-Z_]+)=", table):
        assert f"#{name}=" in example, name


def test_old_versions_go_and_the_live_one_and_young_ones_stay(tmp_path):
    model = tmp_path / "demo"
    for name, days in (("old", 40), ("live", 40), ("young", 3)):
        (model / name).mkdir(parents=True)
        (model / name / "manifest.json").write_text("{}")
        then = time.time() - days * DAY
        os.utime(model / name, (then, then))
    (model / "LATEST").write_text("live")
    (command,) = [words[-1] for words in COMPOSE if "find" in words[-1]]
    subprocess.run(["sh", "-c", command.replace("/registry", str(tmp_path))], check=True)
    assert sorted(path.name for path in model.iterdir()) == ["LATEST", "live", "young"]


@pytest.mark.parametrize("overlay", re.findall(r"deploy/k8s/(\w+)(?: |\n|`)", TEXT))
def test_overlays_that_are_named_exist(overlay):
    assert yaml.safe_load((ROOT / "deploy" / "k8s" / overlay / "kustomization.yaml").read_text())
