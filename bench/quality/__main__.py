"""Runs tables, tells how far they are, and writes the report.

python -m bench.quality run TABLE [--cell LABEL ...] [--workers 2] [--seeds 0 1 2] [--data FOLDER]
python -m bench.quality status TABLE
python -m bench.quality report
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.quality import progress
from bench.quality.cells import Cell, overridden
from bench.quality.store import Store
from bench.quality.tables import TABLES
from bench.quality.work import Plan, work


def main() -> int:
    args = arguments()
    store = Store(args.out)
    if args.command == "report":
        from bench.quality.report import REPORTED, write

        print(write(store, args.to, args.tables or REPORTED))
        return 0
    cells = overridden(selected(args.table, args.cell), dict(args.set))
    seeds = tuple(args.seeds) if args.seeds else None
    plan = Plan(cells, store, args.data, seeds, args.device)
    if args.command == "status":
        print(progress.status(plan))
    workers = args.workers * args.beside
    print(progress.outlook(plan, workers), flush=True)
    if args.command == "run" and args.workers > 1:
        return together(args.workers)
    if args.command == "run":
        torch.set_num_threads(args.threads)
        for job in work(plan):
            print(progress.finished(job, plan), flush=True)
            print("  " + progress.outlook(plan, workers), flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.quality", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("--out", type=Path, default=Path(".turnpoint/quality"), help="results")
    report = commands.add_parser("report", parents=[out], help="pages and plots of what is there")
    report.add_argument("tables", nargs="*", help=f"{', '.join(TABLES)}; default: all but smoke")
    report.add_argument("--to", type=Path, default=Path("docs"), help="the folder of quality.md")
    wanted = argparse.ArgumentParser(add_help=False, parents=[out])
    wanted.add_argument("table", choices=TABLES)
    wanted.add_argument("--cell", nargs="+", help="labels; default: all")
    wanted.add_argument("--seeds", type=int, nargs="+", help="of final runs; default: the cell's")
    wanted.add_argument(
        "--set",
        type=setting,
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="fix settings of every cell, which takes them out of its search",
    )
    data = os.environ.get("TURNPOINT_DATA")
    wanted.add_argument("--data", type=Path, default=data or None, help="the data sets' folder")
    wanted.add_argument("--device", default="cpu")
    wanted.add_argument("--workers", type=int, default=1, help="processes")
    wanted.add_argument("--threads", type=int, default=1, help="torch's, of each process")
    wanted.add_argument("--beside", type=int, default=1, help=argparse.SUPPRESS)
    commands.add_parser("run", parents=[wanted], help="do what is not done yet")
    commands.add_parser(
        "status", parents=[wanted], help="what is done, and how long the rest takes"
    )
    return parser.parse_args()


def setting(text: str) -> tuple[str, Any]:
    """FIELD=VALUE, the value as JSON where it is."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def selected(table: str, labels: list[str] | None) -> list[Cell]:
    cells = TABLES[table]
    if unknown := set(labels or ()) - {cell.label for cell in cells}:
        known = ", ".join(cell.label for cell in cells)
        sys.exit(f"{table} has no cell {', '.join(sorted(unknown))}; there are {known}")
    return [cell for cell in cells if labels is None or cell.label in labels]


def together(workers: int) -> int:
    """The same command in so many processes; their locks share the work out."""
    alone = ["--workers", "1", "--beside", str(workers)]
    command = [sys.executable, "-m", "bench.quality", *sys.argv[1:], *alone]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # --threads says otherwise to torch
    running = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    try:
        return max(process.wait() for process in running)
    finally:
        for process in running:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
