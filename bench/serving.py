"""Latency and throughput of a service of its own, in every format.

    .venv/bin/python -m bench.serving [--rows 2048] [--n 8] [--seconds 5]

A checkpoint is published for each denoiser (d = 64, T = 50, rule `score_aware`), served by
`turnpoint serve` with its defaults, and asked in turn by one caller.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cli.bench import Load, measure
from core.checkpoint import pack
from core.registry import Registry
from core.samplers import ADAR, ADARConfig


def publish(registry: Path, denoiser: str) -> None:
    """A checkpoint whose denoiser is random, since an untrained one is trivial."""
    torch.manual_seed(0)
    sampler = ADAR(ADARConfig(dim=64, denoiser=denoiser)).eval()
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    Registry(registry).publish("bench", pack(sampler))


@contextmanager
def served(registry: Path) -> Iterator[str]:
    """The address of a `turnpoint serve`, stopped at the end."""
    command = [sys.executable, "-m", "cli.main", "serve", "--registry", registry, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    print(
        "| denoiser | format | p50 ms | p95 ms | p99 ms | negatives/s |\n|---|---|---|---|---|---|"
    )
    for denoiser in ("film", "moment"):
        with tempfile.TemporaryDirectory() as folder:
            publish(Path(folder), denoiser)
            with served(Path(folder)) as url:
                for name in ("octet-stream", "safetensors", "json"):
                    load = Load(args.rows, args.n, name, 1, args.seconds)
                    told = measure(url, load)["figures"]
                    times = " | ".join(f"{told[p]:.1f}" for p in ("p50 ms", "p95 ms", "p99 ms"))
                    print(f"| {denoiser} | {name} | {times} | {told['negatives/s']:,.0f} |")


if __name__ == "__main__":
    main()
