"""Everybody in one run.

    python -m bench.serving --rows 2048 --n 8 [--seconds 2 --rounds 3] [--out FOLDER]

For each denoiser all contenders are started, warmed up and then measured in rounds, in rotating
order, so that a busy moment of the machine meets all of them. With `--pinned` everybody who answers
has the first core and the callers have the others. Figures are medians over rounds,
ratios medians of the ratios within a round. The floor is the bare kernel in process plus an echo
server that moves the same bytes.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.serving import report
from bench.serving.checkpoint import publish
from bench.serving.contenders import Case, Contender, everybody
from bench.serving.load import in_process, measured
from bench.serving.processes import UNCACHED, Running, free_port, started, wait_for

SERVING = {0}  # the cores of those who answer, where they are pinned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--denoisers", nargs="+", default=["film", "moment"])
    parser.add_argument("--concurrency", type=int, default=1, help="callers at once")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--pinned", action="store_true", help="servers and kernels on core 0, callers elsewhere"
    )
    parser.add_argument("--only", nargs="+", help="parts of the names of those who take part")
    parser.add_argument("--out", type=Path, help="a folder for results.json, results.md, plots")
    args = parser.parse_args()
    if args.pinned:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - SERVING)
    results: dict[str, Any] = {"load": _load(args), "machine": report.machine(), "denoisers": {}}
    for denoiser in args.denoisers:
        with tempfile.TemporaryDirectory() as folder:
            model = publish(Path(folder), denoiser, args.dim, args.num_steps)
            case = Case(Path(folder), model, args.rows, args.n, args.dim)
            results["denoisers"][denoiser] = run(case, args)
    results["machine after"] = report.machine()
    text = report.markdown(results)
    print("\n" + text)
    if args.out is not None:
        report.write(args.out, results, text)


def run(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one case: their rounds, their peak memory, and who could not take part."""
    wanted = [
        contender
        for contender in everybody(case)
        if not args.only or any(part in contender.name for part in args.only)
    ]
    missing = {one.name: one.why_not for one in wanted if one.why_not}
    for name, why in missing.items():
        print(f"{name}: skipped, {why}")
    taking_part = [one for one in wanted if not one.why_not]
    rounds: dict[str, list[dict[str, float]]] = {one.name: [] for one in taking_part}
    with ExitStack() as stack:
        cores = SERVING if args.pinned else None
        running = {one.command: start(stack, one, cores) for one in unique(taking_part)}
        for one in taking_part:
            measured(running[one.command], one, case, args.concurrency, 0, warm_up=2)
        for index in range(args.rounds):
            for one in rotated(taking_part, index):
                found = measured(
                    running[one.command], one, case, args.concurrency, args.seconds, warm_up=1
                )
                rounds[one.name].append(found)
                print(f"round {index + 1}  {one.name:34} {found['p50 ms']:9.2f} ms", flush=True)
        peaks = {one.name: running[one.command].memory() for one in taking_part}
    return {"rounds": rounds, "peak MiB": peaks, "skipped": missing}


def unique(contenders: list[Contender]) -> list[Contender]:
    """One of each process."""
    return list({one.command: one for one in contenders}.values())


def rotated(contenders: list[Contender], by: int) -> list[Contender]:
    """Every round starts with somebody else; an odd step, so that neighbours change too."""
    first = by * 5 % len(contenders)
    return contenders[first:] + contenders[:first]


def start(stack: ExitStack, contender: Contender, cores: set[int] | None) -> Running:
    """Its process, once it can be asked; on these cores where they are given."""
    if contender.wire is None:
        running = stack.enter_context(started(contender.command, 0, UNCACHED, cores))
        assert running.process.stdout is not None
        running.process.stdout.readline()
        in_process(running, 0)
        return running
    port = free_port()
    running = stack.enter_context(
        started((*contender.command, "--port", port), port, UNCACHED, cores)
    )
    wait_for(running)
    return running


def _load(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name != "out"}


if __name__ == "__main__":
    main()
