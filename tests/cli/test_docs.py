"""What is written is executed: the README's lines, the pages' blocks and tables, the links."""

import re
import subprocess
import urllib.request

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from core.checkpoint import unpack
from core.registry import Registry
from service.settings import fields
from tests.cli.conftest import ROOT, python, turnpoint

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLE_ROW = re.compile(
    r"^\| `(?P<name>[A-Za-z_]+)` \|\s*(?P<second>.*?)\s*\| (?P<rest>.*) \|$", re.M
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def test_the_readmes_python_runs_against_the_demo(demonstrated, url):
    folder, _ = demonstrated
    (code,) = blocks("README.md", "python")
    python("-c", code.replace("http://localhost:8000", url), cwd=folder)


def test_the_readmes_curl_line_runs_against_the_demo(demonstrated, url):
    folder, _ = demonstrated
    (line,) = [block for block in blocks("README.md", "sh") if block.startswith("curl")]
    subprocess.run(
        line.replace("localhost:8000", url.removeprefix("http://")) + "\n",
        shell=True,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (folder / "negatives.f32").stat().st_size == 1024 * 8 * 64 * 4


def test_the_readmes_flags_exist(demonstrated):
    folder, _ = demonstrated
    (block,) = [b for b in blocks("README.md", "sh") if "turnpoint train" in b]
    for line in block.splitlines():
        _, command, *arguments = line.split()
        told = turnpoint(command, "--help", cwd=folder).stdout
        for flag in (word for word in arguments if word.startswith("--")):
            assert flag in told


def test_your_own_encoder_and_method_run(tmp_path):
    encoder, method = blocks("docs/architecture.md", "python")
    python("-c", encoder + method, cwd=tmp_path)


def test_every_setting_is_documented_as_it_is():
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = {row["name"]: row for row in TABLE_ROW.finditer(text)}
    assert list(rows) == list(fields())
    for name, field in fields().items():
        default = field.get_default(call_default_factory=True)
        assert rows[name]["second"] == ("–" if default is None else f"`{default}`")
        assert rows[name]["rest"] == field.description


def test_every_metric_is_documented_and_every_documented_metric_is_there(url):
    documented = {
        row["name"]
        for row in TABLE_ROW.finditer((ROOT / "docs" / "api.md").read_text())
        if row["name"].startswith("turnpoint_")
        and not row["name"].startswith("turnpoint_trainer_")  # see tests/deploy/test_names.py
    }
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        live = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in families
            if family.name.startswith("turnpoint_")
        }
    assert documented == live


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", text):
        if target and "://" not in target:
            assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", text):
        linked = (page.parent / target if target else page).read_text()
        headings = re.findall(r"^#+ (.*)$", linked, re.M)
        anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, anchor


def test_a_table_of_your_own_is_published(tmp_path):
    (code,) = blocks("docs/methods.md", "python")
    registry, items = Registry(tmp_path), torch.randn(40, 8)
    exec(code, {"registry": registry, "items": items})
    sampler, _ = unpack(registry.read("items", registry.live("items")))
    assert torch.equal(sampler.items, items)
