"""What Prometheus is given is sound, and every alert fires when it should and not before."""

import re
import subprocess

import pytest

from deploy.stack import hurried, on_loopback
from deploy.tools import ROOT, find
from tests.deploy.alerts import ALERTS, FOLDER, RULE_FILES, TEST_FILES, read

PROMTOOL = find("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: `make tools` brings it")


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_configuration_is_sound():
    promtool("check", "config", FOLDER / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


@needs_promtool
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_the_alerts_fire_when_they_should(file):
    promtool("test", "rules", file)


@needs_promtool
def test_promtool_would_see_a_wrong_threshold(tmp_path):
    """The negative control: with a `for` or a limit that is off, the tests fail."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    text = (FOLDER / "rules" / "service.yml").read_text()
    (tmp_path / "tests" / "service.yml").write_text((FOLDER / "tests" / "service.yml").read_text())
    for right, wrong in [("for: 5m", "for: 0m"), ("> 2 * 86400", "> 3 * 86400")]:
        (tmp_path / "rules" / "service.yml").write_text(text.replace(right, wrong))
        with pytest.raises(AssertionError, match="FAILED"):
            promtool("test", "rules", tmp_path / "tests" / "service.yml")


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_firing_and_not_yet(name):
    """In one story at least: silent first, firing later. All firing alerts are named each time."""
    for file in TEST_FILES:
        for story in read(file)["tests"]:
            fired = [
                any(name in sample["labels"] for sample in moment["exp_samples"])
                for moment in story["promql_expr_test"]
                if moment["expr"] == 'count by (alertname) (ALERTS{alertstate="firing"})'
            ]
            if True in fired and not fired[0]:
                return
    pytest.fail(f"{name} never goes from silent to firing in deploy/prometheus/tests")


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    assert anchor == name.lower()
    assert re.search(rf"^## {name}$", (ROOT / page).read_text(), re.M)


def test_the_runbook_has_no_alert_that_is_gone():
    headings = re.findall(r"^## (Turnpoint\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    assert sorted(headings) == sorted(ALERTS)


def test_on_loopback_only_addresses_and_times_change():
    config = read(FOLDER / "prometheus.yml")
    jobs = {"turnpoint": ["127.0.0.1:1"], "turnpoint-trainer": ["127.0.0.1:2", "127.0.0.1:3"]}
    changed = on_loopback(config, jobs)
    assert changed["rule_files"] == config["rule_files"]
    assert [
        (job["job_name"], job["static_configs"][0]["targets"]) for job in changed["scrape_configs"]
    ] == list(jobs.items())


def test_hurried_changes_how_long_and_nothing_else():
    rules = {"groups": [{"rules": [{"expr": "up[5m]", "for": "2m"}, {"expr": "a", "for": "1h"}]}]}
    assert hurried(rules) == {
        "groups": [{"rules": [{"expr": "up[5m]", "for": "2s"}, {"expr": "a", "for": "60s"}]}]
    }
