"""What is computed, without a server: our collapsed chain, and Algorithm 1 as it is printed.

    python -m bench.serving.kernel --registry R --model M --how collapsed --rows 2048 --n 8

As a process it measures itself: for each line of standard input, a number of seconds, it answers
with a line of JSON.
"""

import argparse
import json
import math
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from bench.serving.checkpoint import pairs
from cli.bench import Driven
from core.checkpoint import unpack
from core.registry import Registry
from core.samplers import ADAR, NegativeSampler, Query

Draw = Callable[[NegativeSampler, Query, int, torch.Generator], Tensor]


class Kernel:
    """From pairs to negatives, each call with a generator of its own, as the service has it.

    Args:
        registry: where the checkpoint is.
        model: its name.
        how: one of `WAYS`.
        threads: of one torch operation; 0 leaves torch's default, one per core.
    """

    def __init__(self, registry: Path, model: str, how: str = "collapsed", threads: int = 1):
        if threads:
            torch.set_num_threads(threads)
        found = Registry(registry)
        version = found.live(model)
        assert version is not None
        self.sampler, _ = unpack(found.read(model, version))
        self.draw = WAYS[how]

    @property
    def dim(self) -> int:
        """d."""
        return self.sampler.dim

    @torch.inference_mode()
    def __call__(self, users: Tensor, positives: Tensor, n: int) -> Tensor:
        """(B, n, d) negatives."""
        generator = torch.Generator().manual_seed(secrets.randbits(32))
        query = Query(users, positives, self.sampler.transition)
        return self.draw(self.sampler, query, n, generator)

    def from_bytes(self, body: bytearray, n: int) -> memoryview:
        """The same from users then positives to negatives, as bytes, without a copy."""
        users, positives = torch.frombuffer(body, dtype=torch.float32).view(2, -1, self.dim)
        return self(users, positives, n).view(-1).view(torch.uint8).numpy().data


def collapsed(sampler: NegativeSampler, query: Query, n: int, generator: torch.Generator) -> Tensor:
    """The kernel of the service: the law by the collapsed chain, then n draws."""
    return sampler.law(query, generator).draw(n, generator)


def coefficients(
    sampler: NegativeSampler,
    query: Query,
    n: int,  # noqa: ARG001
    generator: torch.Generator,
) -> Tensor:
    """The law alone, without a draw: its mean as if it were one negative."""
    return sampler.law(query, generator).mean.unsqueeze(1)


def looped(
    sampler: NegativeSampler, query: Query, n: int, generator: torch.Generator, last: int = 0
) -> Tensor:
    """Algorithm 1, lines 11-16: Eq. 10 for B n rows, one network evaluation a step and row.

    Args:
        sampler: of rule `score_aware`.
        query: B pairs.
        n: negatives per pair.
        generator: draws z.
        last: the step at which the loop ends; 0 is the whole chain, as printed.
    """
    assert isinstance(sampler, ADAR)
    schedule, denoiser = sampler.schedule, sampler.denoiser
    score = (query.users * query.positives).sum(-1)
    rule = query.transition
    t_star = (torch.sigmoid(rule.omega * torch.exp(rule.k * score)) * schedule.num_steps).round()
    t_star = t_star.repeat_interleave(n).unsqueeze(-1)
    condition = (query.users / sampler.user_rms).repeat_interleave(n, 0)
    x = torch.randn(condition.shape, generator=generator)
    negatives = x
    for t in range(schedule.num_steps, last, -1):
        steps = torch.full((len(x),), t)
        gamma, eta = denoiser.coefficients(steps, denoiser.prepare(condition))
        alpha, alpha_bar = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        eps = gamma * x + eta
        x = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha)
        negatives = torch.where(t_star == t - 1, x, negatives)
    return (negatives * sampler.item_rms).view(-1, n, sampler.dim)


def stopped(sampler: NegativeSampler, query: Query, n: int, generator: torch.Generator) -> Tensor:
    """The loop, ended at the smallest t* of the batch: what a careful author adds first."""
    score = (query.users * query.positives).sum(-1).min()
    rule, steps = query.transition, sampler.num_steps
    least = torch.sigmoid(rule.omega * torch.exp(rule.k * score)) * steps
    return looped(sampler, query, n, generator, last=int(least.round()))


WAYS: dict[str, Draw] = {
    "collapsed": collapsed,
    "coefficients": coefficients,
    "looped": looped,
    "stopped": stopped,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--how", choices=WAYS, default="collapsed")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    kernel = Kernel(args.registry, args.model, args.how, args.threads)
    users, positives = torch.from_numpy(pairs(args.rows, kernel.dim))
    kernel(users, positives, args.n)
    print("ready", flush=True)
    for line in sys.stdin:
        begin, cpu = time.perf_counter(), time.process_time()
        latencies: list[float] = []
        while not latencies or sum(latencies) < float(line):
            before = time.perf_counter()
            kernel(users, positives, args.n)
            latencies.append(time.perf_counter() - before)
        spent = {"server": time.process_time() - cpu, "client": 0.0}
        print(json.dumps(asdict(Driven(latencies, time.perf_counter() - begin, spent))), flush=True)


if __name__ == "__main__":
    main()
