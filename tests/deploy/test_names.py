"""A metric named in a rule, a dashboard or a document is on a live page, with the labels used."""

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.reading import dashboards, panels
from deploy.tools import ROOT
from tests.deploy.alerts import RECORDED, RULE_FILES, TEST_FILES
from tests.service.live import OCTET, octet, pairs, publish, running, settings_for
from tests.trainer.test_cotrain import CONFIG, data, run_of  # noqa: F401
from trainer.following.metrics import FollowMetrics

NAME = re.compile(r"(?<![\w:./-])(?:turnpoint_|process_)\w+")
SELECTOR = re.compile(r"((?:turnpoint|process)_\w+)\{([^}]*)\}")
GROUPING = re.compile(r"by \(([^)]*)\)")
NOT_METRICS = {"turnpoint_client", "turnpoint_queue_seconds_mean"}  # a package; the HPA's own
SET_BY_PROMETHEUS = {"job", "instance", "le"}
WRITTEN = [
    *RULE_FILES,
    *TEST_FILES,
    *sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")),
    *sorted((ROOT / "deploy" / "k8s").rglob("*.yaml")),
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.fixture(scope="module")
def live(data, tmp_path_factory) -> dict[str, set[str]]:  # noqa: F811
    """Sample's name -> its labels, of a service that answered and a trainer that learnt."""
    folder = tmp_path_factory.mktemp("registry")
    publish(folder)
    with running(settings_for(folder)) as service:
        for query in ("", "n=0"):
            body = octet(*pairs(5))
            httpx.post(f"{service.url}/negatives?{query}", content=body, headers=OCTET, timeout=30)
        page = httpx.get(f"{service.url}/metrics").text
    trainer = FollowMetrics()  # which has all that a training run has
    run_of(data, CONFIG, trainer.watcher)
    page += generate_latest(trainer.registry).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.name)
def test_every_name_is_live(file: Path, live):
    for name in set(NAME.findall(file.read_text())) - NOT_METRICS:
        assert name in live, name


def test_every_metric_of_the_trainer_is_documented(live):
    rows = re.findall(
        r"^\| `(turnpoint_trainer_\w+)`", (ROOT / "docs" / "api.md").read_text(), re.M
    )
    ours = {name for name in live if name.startswith("turnpoint_trainer_")}
    assert set(rows) == {name for name in ours if f"{name}_total" not in ours}


def test_every_recorded_name_exists():
    """Prometheus does not tell a misspelt one from one without data."""
    for expression in expressions():
        assert set(re.findall(r"\bturnpoint:\w+:\w+", expression)) <= set(RECORDED), expression


def expressions() -> list[str]:
    told = [
        target["expr"] for d in dashboards().values() for p in panels(d) for target in p["targets"]
    ]
    return told + [line for file in RULE_FILES for line in file.read_text().splitlines()]


def test_every_label_is_one_that_the_metric_has(live):
    for expression in expressions():
        for name, selector in SELECTOR.findall(expression):
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector))
            assert labels <= live[name] | SET_BY_PROMETHEUS, (name, labels)
        names = [name for name in NAME.findall(expression) if name in live]
        for grouping in GROUPING.findall(expression):
            for name in names:
                assert set(grouping.split(", ")) <= live[name] | SET_BY_PROMETHEUS, (name, grouping)


def test_legends_name_labels_that_survive_the_query():
    for dashboard in dashboards().values():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                groupings = GROUPING.findall(target["expr"])
                if groupings:
                    labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                    kept = {label for one in groupings for label in one.split(", ")}
                    assert labels <= kept, json.dumps(target)
