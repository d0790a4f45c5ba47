"""What the service adds to each method's sampler: a client's call over the bare draw.

    .venv/bin/python -m bench.overhead [--rows 2048] [--n 1] [--rounds 60] [--threads 1]

Each round draws in this process and then asks a service, with as many threads, for the same: the
ratio of the two, made on a machine in one state, is what is told. The client's own work, arrays to
bytes and back, is in it. What a sampler takes is sent along: GDNSM's features are as many bytes
again as users and positives.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import numpy as np
import torch
from turnpoint_client import Client

from bench.samplers import asked, made
from bench.serving.processes import served
from cli.threads import use_threads
from core.checkpoint import pack
from core.registry import Registry
from core.samplers import NegativeSampler, Query, draw

WARM_UP = 3  # rounds that are not counted
COMPARED = (
    "adar",
    "dmns",
    "cnsdiff released",
    "cnsdiff described",
    "cnsdiff causal",
    "gdnsm mlp, T = 50",
    "gdnsm mlp, ddim 8",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1, help="torch's; the service's default")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    use_threads(args.threads)
    everybody = made(args.dim)
    samplers = {name: everybody[name] for name in COMPARED}
    taken = compared(samplers, asked(args.rows, args.dim), args.n, args.rounds)
    print(f"\n{args.rows} rows, d = {args.dim}, n = {args.n}, {torch.get_num_threads()} threads\n")
    print("| sampler | bare, median ms | served, median ms | ratio |\n|---|---|---|---|")
    for name, (bare, called) in taken.items():
        ratio = np.median(np.divide(called, bare))
        print(f"| {name} | {1e3 * np.median(bare):.1f} | {1e3 * np.median(called):.1f} |"
              f" {ratio:.2f} |")  # fmt: skip
    if args.report is not None:
        args.report.write_text(json.dumps({"seconds": taken}, indent=2) + "\n")


def compared(
    samplers: dict[str, NegativeSampler], query: Query, n: int, rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each round, bare and served."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in samplers}
    models = {name: f"m{place}" for place, name in enumerate(samplers)}
    with tempfile.TemporaryDirectory() as folder:
        for name, sampler in samplers.items():
            Registry(folder).publish(models[name], pack(sampler))
        threads = torch.get_num_threads()
        settings = {"SERVER__TORCH_THREADS": threads, "CACHE__MODE": "off"}
        with served(Path(folder), **settings) as service, Client(service.url) as client:
            for turn in range(WARM_UP + rounds):
                for name, sampler in samplers.items():
                    bare, called = taken[name]
                    bare.append(_bare(sampler, query, n, turn))
                    called.append(_called(client, models[name], sampler, query, n, turn))
    return {name: (bare[WARM_UP:], called[WARM_UP:]) for name, (bare, called) in taken.items()}


def _bare(sampler: NegativeSampler, query: Query, n: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        begin = time.perf_counter()
        draw(sampler, query, n, generator)
        return time.perf_counter() - begin


def _called(
    client: Client, model: str, sampler: NegativeSampler, query: Query, n: int, seed: int
) -> float:
    features = query.item_features if sampler.method == "gdnsm" else None
    begin = time.perf_counter()
    client.negatives(
        query.users, query.positives, n=n, returns="negatives", model=model, seed=seed,
        **({"item_features": features} if features else {}),
    )  # fmt: skip
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
