"""The rules and their promtool tests, as Python sees them."""

from pathlib import Path
from typing import Any

import yaml

from deploy.tools import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULE_FILES = sorted((FOLDER / "rules").glob("*.yml"))
TEST_FILES = sorted((FOLDER / "tests").glob("*.yml"))


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def rules() -> list[dict[str, Any]]:
    return [
        rule for file in RULE_FILES for group in read(file)["groups"] for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = [rule["record"] for rule in rules() if "record" in rule]
