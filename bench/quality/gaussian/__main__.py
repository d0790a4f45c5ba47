"""Trains an encoder with each variant, and tells what validation says.

    python -m bench.quality.gaussian [VARIANT ...] --data FOLDER [--encoder mf] [--epochs 100]

Test is not read. What is done is kept, and not done again.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.quality.cells import Settings, resolve
from bench.quality.data import SETS, load_set, without_test
from bench.quality.gaussian.parts import VARIANTS, Altered, Parts
from core.errors import ConfigError
from core.samplers import ADAR
from trainer.config import TrainConfig
from trainer.cotrain import cotrain, new_run
from trainer.data import Interactions
from trainer.methods import Method, make_method
from trainer.pipeline import encoder_of, picker_of
from trainer.run import Diffusion, Run

UNIFORM = "uniform"


def trained(
    name: str, data: Interactions, encoder: str, common: Settings
) -> tuple[Run, TrainConfig]:
    """A run with one of `VARIANTS`, or a plain one, and its configuration."""
    parts = VARIANTS.get(name, Parts({"method": "none"}))
    config = resolve(encoder, {"method": "adar", **common, **parts.settings})

    def method_of(
        diffusion: Diffusion | None, interactions: Interactions, config: TrainConfig
    ) -> Method:
        if diffusion is None or not isinstance(diffusion.sampler, ADAR):
            return make_method(diffusion, interactions, config)
        return Altered(parts, diffusion.sampler, diffusion, config, interactions.num_items)

    run = new_run(encoder_of(config, data), config, data)
    return cotrain(run, data, picker_of(config, data), config, method_of=method_of), config


def told(run: Run, config: TrainConfig) -> dict[str, Any]:
    """What validation says of its best epoch."""
    counts = torch.tensor(run.best_histogram, dtype=torch.float64)
    steps = torch.arange(len(counts), dtype=torch.float64)
    best = next(row for row in run.history if row["epoch"] == run.best_epoch)
    return {
        "valid": run.best_metric,
        "epoch": run.best_epoch,
        "epochs": run.epoch,
        "t*": float(counts @ steps / counts.sum()) if counts.sum() else None,
        "hardness": best.get("hardness"),
        "config": config.as_dict(),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, in the order of `VARIANTS`."""
    lines = [
        "| negatives | valid R@20 | epoch | mean t* | outscores e_j |",
        "|---|---|---|---|---|",
    ]
    for name in (UNIFORM, *VARIANTS):
        if (row := results.get(name)) is None:
            continue
        t_star = "–" if row["t*"] is None else f"{row['t*']:.1f}"
        hardness = "–" if row["hardness"] is None else f"{row['hardness']:.2f}"
        valid = f"{row['valid']:.4f}".lstrip("0")
        lines.append(f"| {name} | {valid} | {row['epoch']} | {t_star} | {hardness} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="bench.quality.gaussian", description=__doc__.splitlines()[0]
    )
    parser.add_argument("variants", nargs="*", help=f"{UNIFORM} and {', '.join(VARIANTS)}")
    folder = os.environ.get("TURNPOINT_DATA")
    parser.add_argument("--data", type=Path, default=folder or None, help="the data sets' folder")
    parser.add_argument("--set", choices=SETS, default="beauty", help="which of them")
    parser.add_argument("--encoder", default="mf")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(".turnpoint/quality"))
    args = parser.parse_args(arguments)
    names = args.variants or [UNIFORM, *VARIANTS]
    if unknown := set(names) - {UNIFORM, *VARIANTS}:
        parser.error(f"no variant is called {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    common = {"epochs": args.epochs}
    try:
        data = without_test(load_set(args.set, resolve(args.encoder, common).split, args.data))
    except ConfigError as error:
        parser.error(str(error))
    path = args.out / f"gaussian-{args.set}-{args.encoder}-{args.epochs}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        if name not in results:
            results[name] = told(*trained(name, data, args.encoder, common))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=2) + "\n")
            print(table({name: results[name]}).splitlines()[-1], flush=True)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
