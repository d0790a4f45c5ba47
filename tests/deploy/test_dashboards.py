"""The dashboards' files are what boards.py makes, and no panel leaves a question open."""

import pytest

from deploy.grafana.boards import BOARDS
from deploy.grafana.generate import FOLDER, as_json
from deploy.grafana.reading import dashboards, panels, queries
from deploy.tools import ROOT
from tests.deploy.alerts import read

PANELS = [
    pytest.param(panel, dashboard, id=f"{uid}: {panel['title']}")
    for uid, dashboard in dashboards().items()
    for panel in panels(dashboard)
]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_files_are_in_step(board):
    """Else: `make dashboards`."""
    assert (FOLDER / f"{board.uid}.json").read_text() == as_json(board)


def test_there_is_no_other_file():
    assert {file.stem for file in FOLDER.iterdir()} == {board.uid for board in BOARDS}


@pytest.mark.parametrize(("panel", "dashboard"), PANELS)
def test_every_panel_has_a_unit_a_description_and_queries(panel, dashboard):
    assert len(panel["description"]) > 5
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "prometheus"
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for query in queries(panel, dashboard, "1m"):
        assert "$" not in query


@pytest.mark.parametrize("uid", dashboards())
def test_panels_fill_the_grid_without_overlap(uid):
    taken = set()
    for panel in dashboards()[uid]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)


def test_panels_have_ids_of_their_own():
    for dashboard in dashboards().values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)


def test_grafana_finds_what_is_mounted():
    """The provisioning's names are those of the dashboards and of docker-compose.yml."""
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = read(provisioning / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = read(provisioning / "dashboards" / "turnpoint.yml")["providers"]
    parts = read(ROOT / "docker-compose.yml")["services"]
    mounted = dict(volume.split(":")[:2] for volume in parts["grafana"]["volumes"])
    assert source["uid"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
