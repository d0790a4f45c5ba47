"""Runs scenarios; exits with 1 if anything does not hold.

python -m bench.soak all|SCENARIO... [--seconds 60] [--redis] [--out FOLDER]
"""

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.serving import report
from bench.soak.findings import Findings, Size
from service.settings import fields

# And the setting without which a service has nothing to be tested by it.
SCENARIOS = {
    "overload": None,
    "chaos": None,
    "restart": None,
    "swaps": None,
    "memory": None,
    "malformed": None,
    "strangers": None,
    "keys": "TURNPOINT_AUTH__RATE_ROWS_PER_SECOND",
    "livez": None,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", choices=("all", *SCENARIOS), metavar="SCENARIO")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of load; counts in proportion, full at 60"
    )
    parser.add_argument("--redis", action="store_true", help="with a real Redis, killed under load")
    parser.add_argument("--out", type=Path, help="a folder for a JSON file each and soak.md")
    args = parser.parse_args()
    chosen = SCENARIOS if "all" in args.scenarios else args.scenarios
    size, broken = Size(args.seconds, args.redis), 0
    for name in chosen:
        if why := why_not(name):
            print(f"\n## {name}\n\nskipped: {why}", flush=True)
            continue
        before, begin = report.machine(), time.monotonic()
        findings = scenario(name, size)
        host = {"machine": before, "machine after": report.machine()}
        busy = [one["load average"] for one in host.values()]
        text = (
            f"{findings.markdown(name)}\n\n`python -m bench.soak {' '.join(sys.argv[1:])}`: "
            f"{time.monotonic() - begin:.0f} s on {before['cores']} cores, load average "
            f"{busy[0]:.1f} before and {busy[1]:.1f} after, torch {before['torch']}"
        )
        print("\n" + text, flush=True)
        if args.out is not None:
            write(args.out, name, {**host, "size": asdict(size), **asdict(findings)}, text)
        broken += len(findings.failed())
    return 1 if broken else 0


def why_not(name: str) -> str:
    """Why a scenario cannot run here; empty if it can."""
    needs = SCENARIOS[name]
    return "" if needs is None or needs in fields() else f"the service has no {needs}"


def scenario(name: str, size: Size) -> Findings:
    """What one of them finds."""
    found: Findings = importlib.import_module(f"bench.soak.{name}").run(size)
    return found


def write(folder: Path, name: str, document: dict[str, object], text: str) -> None:
    """NAME.json and NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
