"""What ADAR adds to an epoch: one encoder trained plainly and co-trained, epoch by epoch in turn.

    .venv/bin/python -m bench.epochs --data <beauty.txt> [--encoder lightgcn] [--rounds 8]

Each round trains one epoch of every variant, in rotating order, so that a busy moment of the
machine meets all of them; the ratio is that of the medians over rounds.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

from cli.threads import use_threads
from trainer.cotrain import cotrain, new_run
from trainer.data import load
from trainer.defaults import config_for
from trainer.pipeline import encoder_of
from trainer.run import Run
from trainer.sampling import make_picker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="interactions; none: generated")
    parser.add_argument("--encoder", default="lightgcn")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, help="torch threads; default: one per core")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    use_threads(args.threads)
    # Nothing is validated while the clock runs, and nothing stops early.
    plain = config_for(args.encoder, eval_every=10**6)
    data = load(args.data, split=plain.split)
    picker = make_picker("uniform", data)
    configs = {
        "none": plain,
        "adar film": replace(plain, method="adar"),
        "adar moment": replace(plain, method="adar", denoiser="moment"),
    }
    runs: dict[str, Run] = {
        name: new_run(encoder_of(config, data), config) for name, config in configs.items()
    }
    for epoch in range(args.rounds):
        names = list(configs)
        for name in names[epoch % 3 :] + names[: epoch % 3]:
            one_more = replace(configs[name], epochs=epoch + 1, patience=10**6)
            cotrain(runs[name], data, picker, one_more)
        told = "  ".join(f"{name} {runs[name].seconds[-1]:.2f} s" for name in configs)
        print(f"epoch {epoch + 1}: {told}", flush=True)
    medians = {name: float(np.median(run.seconds)) for name, run in runs.items()}
    print("\n| variant | median s per epoch | ratio |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / medians['none']:.2f} |")
    if args.report is not None:
        every = {name: run.seconds for name, run in runs.items()}
        args.report.write_text(json.dumps({"medians": medians, "seconds": every}, indent=2) + "\n")


if __name__ == "__main__":
    main()
