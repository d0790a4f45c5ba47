"""What every method's sampler takes, without a service: 2,048 rows of d = 64, n = 1.

    .venv/bin/python -m bench.samplers [--rows 2048] [--n 1] [--rounds 20] [--threads 2]

Each round times every sampler once, in rotating order, so that a busy moment of the machine meets
all of them. For GDNSM's shorter chains it also tells how far their samples are from those of the
whole deterministic chain from the same noise, in units of a sample's deviation; the denoiser is
trained before, on items that are the sum of what text, image and user tell of them.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import numpy as np
import torch

from cli.threads import use_threads
from core.noise import Noise
from core.samplers import (
    ADAR,
    DMNS,
    GDNSM,
    ADARConfig,
    Catalogue,
    CNSDiff,
    CNSDiffConfig,
    DMNSConfig,
    GDNSMConfig,
    NegativeSampler,
    Query,
    draw,
)
from core.samplers.cnsdiff import VARIANTS

NAMES = ("text", "image")
TAUGHT_STEPS = 400
CATALOGUE = 12_101  # items, as many as Beauty has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, help="torch threads; default: one per core")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    use_threads(args.threads)
    samplers = made(args.dim)
    query = asked(args.rows, args.dim)
    taken = timed(samplers, query, args.n, args.rounds)
    errors = ddim_errors(samplers, query)
    print(f"\n{args.rows} rows, d = {args.dim}, n = {args.n}, {torch.get_num_threads()} threads\n")
    print("| sampler | median ms | least ms | rms error |\n|---|---|---|---|")
    for name, seconds in taken.items():
        middle, least = 1000 * np.median(seconds), 1000 * min(seconds)
        error = f"{errors[name]:.3f}" if name in errors else ""
        print(f"| {name} | {middle:.1f} | {least:.1f} | {error} |")
    if args.report is not None:
        kept = {"seconds": taken, "errors": errors, "arguments": {**vars(args), "report": None}}
        args.report.write_text(json.dumps(kept, indent=2) + "\n")


def made(dim: int) -> dict[str, NegativeSampler]:
    """Every method, and GDNSM's ways to be faster; those that matter here are taught."""
    torch.manual_seed(0)
    samplers: dict[str, NegativeSampler] = {
        "adar": ADAR(ADARConfig(dim)),
        "dmns": DMNS(DMNSConfig(dim)),
    }
    for variant in VARIANTS:
        samplers[f"cnsdiff {variant}"] = CNSDiff(CNSDiffConfig(dim, variant=variant))
    samplers["catalogue"] = Catalogue.of(torch.randn(CATALOGUE, dim))
    features = tuple((name, dim) for name in NAMES)
    for kind in ("mlp", "linear"):
        config = GDNSMConfig(dim, features, denoiser=kind)
        taught = _taught(GDNSM(config))
        for steps in (None, 50, 25, 8, 4):
            name = f"gdnsm {kind}, " + (f"ddim {steps}" if steps else "T = 50")
            samplers[name] = GDNSM(replace(config, ddim_steps=steps))
            samplers[name].load_state_dict(taught.state_dict())
    return {name: sampler.eval() for name, sampler in samplers.items()}


def asked(rows: int, dim: int, seed: int = 1) -> Query:
    """Pairs whose positives are told by their features and their user, but for some noise."""
    generator = torch.Generator().manual_seed(seed)
    users, rest = torch.randn(2, rows, dim, generator=generator)
    tables = {name: torch.randn(rows, dim, generator=generator) for name in NAMES}
    positives = sum(tables.values(), 0.5 * users + 0.3 * rest)
    return Query(users, positives, item_features=tables)


def timed(
    samplers: dict[str, NegativeSampler], query: Query, n: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round, without the first two."""
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    names = list(samplers)
    for turn in range(rounds + 2):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            generator = torch.Generator().manual_seed(turn)
            with torch.inference_mode():
                begin = time.perf_counter()
                draw(samplers[name], query, n, generator)
                taken[name].append(time.perf_counter() - begin)
    return {name: seconds[2:] for name, seconds in taken.items()}


def ddim_errors(samplers: dict[str, NegativeSampler], query: Query) -> dict[str, float]:
    """RMS distance to the deterministic chain of all steps from the same noise, in deviations."""
    rows, errors = len(query.users), {}
    for kind in ("mlp", "linear"):
        found = {}
        for steps in (50, 25, 8, 4):
            sampler = samplers[f"gdnsm {kind}, ddim {steps}"]
            noise = Noise([torch.Generator().manual_seed(0)], [rows])
            found[steps] = sampler.generate(query, 1, noise).negatives
        whole = found.pop(50)
        for steps, drawn in found.items():
            off = (drawn - whole).square().mean().sqrt() / whole.std()
            errors[f"gdnsm {kind}, ddim {steps}"] = float(off)
    return errors


def _taught(sampler: GDNSM) -> GDNSM:
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=3e-3)
    for step in range(TAUGHT_STEPS):
        batch = asked(512, sampler.dim, seed=step)
        sampler.observe(batch.users, batch.positives)
        loss = sampler.loss(batch.users, batch.positives, batch.item_features, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sampler


if __name__ == "__main__":
    main()
