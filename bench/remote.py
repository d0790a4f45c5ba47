"""What remote negatives cost a training loop: LightGCN, prefetching, one core each.

    .venv/bin/python -m bench.remote --data <beauty.txt> [--rounds 3] [--denoiser film]

One BPR loop, with three sources of negatives: (u) uniform ones, drawn in process; (s) these and one
generated negative a pair (Eq. 12) that a service makes and a `Prefetcher` asks for ahead; (l) the
same made in process by the loop of Eq. 10 as it is written. The trainer has one core and one torch
thread, `turnpoint serve` another core. Each round trains one epoch of every variant, in rotating
order, so that a busy moment of the machine meets all of them; ratios are of medians over rounds.

Every variant starts from one encoder, which was co-trained for an epoch with the model that is
served: there t* is still near 0.73 T, and the service has most to do.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.optim import Adam
from turnpoint_client import Client, Prefetcher

from bench.serving.processes import free_port, started, wait_for
from core import transition
from core.checkpoint import pack
from core.losses import augmented_bpr, bpr
from core.registry import Registry
from core.samplers import ADAR, Query
from trainer.config import TrainConfig
from trainer.cotrain import cotrain, new_run
from trainer.data import Interactions, load
from trainer.encoders import LightGCN, make
from trainer.encoders.lightgcn import propagate
from trainer.sampling import UniformNegatives, make_picker

Batch = tuple[Tensor, Tensor, Tensor]  # users, items, uniform negatives
NAMES = {
    "u": "uniform, in process",
    "s": "service, prefetched",
    "l": "looped ADAR, in process",
}


@dataclass
class Epoch:
    """What one epoch took, in seconds.

    Attributes:
        seconds: by the clock.
        cpu: of the trainer's process, the client's threads included.
        negatives: by the clock, for generated negatives: waiting for them (s) or making them (l).
        late: steps that had to wait (s).
    """

    seconds: float
    cpu: float
    negatives: float = 0.0
    late: int = 0


class Loop:
    """LightGCN under BPR with uniform negatives, and generated ones if there are any."""

    def __init__(self, data: Interactions, encoder: LightGCN) -> None:
        self.config = config = TrainConfig()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.negatives = UniformNegatives(data.train, data.num_users, data.num_items)
        self.pairs = torch.from_numpy(data.train)
        self.encoder = LightGCN(data.train, data.num_users, data.num_items, encoder.dim)
        self.encoder.load_state_dict(encoder.state_dict())
        self.optimizer = Adam(self.encoder.parameters(), lr=config.learning_rate, fused=True)
        self.latest = torch.cat(self.encoder.tables())  # as the last step's forward pass left them

    def batches(self) -> Iterator[Batch]:
        """One epoch, in random order."""
        order = torch.randperm(len(self.pairs), generator=self.generator)
        for rows in order.split(self.config.batch_size):
            users, items = self.pairs[rows].unbind(1)
            yield users, items, self.negatives.sample(users, self.generator)

    def ahead(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """The batches, each with its pairs' latest embeddings: no propagation of their own."""
        for batch in self.batches():
            users, items, _ = batch
            rows = torch.cat([users, items + self.encoder.num_users])
            yield batch, *embedding(rows, self.latest).chunk(2)

    def step(self, batch: Batch, generate: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        """One step; `generate` gives e_d, [B, d], for e_u and e_i."""
        users, items, negatives = batch
        encoder = self.encoder
        final = propagate(encoder.table, encoder.adjacency, encoder.num_layers)
        self.latest = final.detach()
        rows = torch.cat([users, items + encoder.num_users, negatives + encoder.num_users])
        e_u, e_i, e_j = embedding(rows, final).chunk(3)
        s_ui, s_uj = (e_u * e_i).sum(-1), (e_u * e_j).sum(-1)
        if generate is None:
            loss = bpr(s_ui, s_uj)
        else:
            e_d = generate(e_u.detach(), e_i.detach())
            loss = augmented_bpr(s_ui, s_uj, (e_u * e_d).sum(-1), self.config.weight)
        penalty = encoder.penalty(users, torch.cat([items, negatives]))
        self.optimizer.zero_grad()
        (loss + self.config.l2 * penalty).backward()
        self.optimizer.step()


def uniform_epoch(loop: Loop) -> tuple[float, int]:
    for batch in loop.batches():
        loop.step(batch, None)
    return 0.0, 0


def service_epoch(loop: Loop, client: Client, depth: int) -> tuple[float, int]:
    with Prefetcher(client, loop.ahead(), depth=depth, format="octet-stream") as stream:
        for batch, answer in stream:
            e_d = answer.negatives.squeeze(1)
            loop.step(batch, lambda *_, e_d=e_d: e_d)
    return stream.stats.waited, stream.stats.late


def looped_epoch(loop: Loop, sampler: ADAR) -> tuple[float, int]:
    spent = 0.0

    def generate(e_u: Tensor, e_i: Tensor) -> Tensor:
        nonlocal spent
        begin = time.perf_counter()
        e_d = looped(sampler, e_u, e_i, torch.randn(e_u.shape, generator=loop.generator))
        spent += time.perf_counter() - begin
        return e_d

    for batch in loop.batches():
        loop.step(batch, generate)
    return spent, 0


@torch.no_grad()
def looped(sampler: ADAR, users: Tensor, positives: Tensor, z: Tensor) -> Tensor:
    """Algorithm 1, lines 11-16, as written: one network call a step, and the state at t*."""
    denoiser, schedule = sampler.denoiser, sampler.schedule
    condition = users / sampler.user_rms
    t_star = transition.score_aware((users * positives).sum(-1), schedule.num_steps).unsqueeze(1)
    x = found = z
    for t in range(schedule.num_steps, 0, -1):
        gamma, eta = denoiser.coefficients(torch.full((len(x),), t), denoiser.prepare(condition))
        alpha, alpha_bar = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        x = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * (gamma * x + eta)) / math.sqrt(alpha)
        found = torch.where(t_star == t - 1, x, found)
    return found * sampler.item_rms


def start(data: Interactions, denoiser: str) -> tuple[LightGCN, ADAR]:
    """An encoder and the sampler that was co-trained with it for an epoch."""
    config = TrainConfig(method="adar", denoiser=denoiser, epochs=1, eval_every=10**6)
    encoder = make("lightgcn", data, config.dim, config.seed)
    run = cotrain(new_run(encoder, config), data, make_picker("uniform", data), config)
    assert isinstance(encoder, LightGCN)
    assert run.diffusion is not None
    return encoder, run.diffusion.sampler.eval()


def check(loop: Loop, sampler: ADAR) -> float:
    """That both ways make the same negatives, or their times tell nothing; the mean of t*."""
    _, e_u, e_i = next(loop.ahead())
    z = torch.randn(e_u.shape, generator=torch.Generator().manual_seed(0))
    law = sampler.law(Query(e_u, e_i, sampler.transition), torch.Generator())
    made = looped(sampler, e_u, e_i, z)
    torch.testing.assert_close(made, law.mean + law.std * z, rtol=1e-3, atol=1e-5)
    return float(law.transition.double().mean())


def timed(epoch: Callable[[], tuple[float, int]]) -> Epoch:
    begin, cpu = time.perf_counter(), time.process_time()
    negatives, late = epoch()
    return Epoch(time.perf_counter() - begin, time.process_time() - cpu, negatives, late)


def measure(
    args: argparse.Namespace, data: Interactions, url: str, encoder: LightGCN, sampler: ADAR
) -> dict[str, list[Epoch]]:
    """Every epoch of every variant."""
    loops = {name: Loop(data, encoder) for name in NAMES}
    with Client(url) as client:
        epochs: dict[str, Callable[[], tuple[float, int]]] = {
            "u": lambda: uniform_epoch(loops["u"]),
            "s": lambda: service_epoch(loops["s"], client, args.depth),
            "l": lambda: looped_epoch(loops["l"], sampler),
        }
        found: dict[str, list[Epoch]] = {name: [] for name in NAMES}
        for turn in range(args.rounds):
            names = list(NAMES)
            for name in names[turn % 3 :] + names[: turn % 3]:
                found[name].append(timed(epochs[name]))
            told = "  ".join(f"({name}) {found[name][-1].seconds:.2f} s" for name in NAMES)
            print(f"round {turn + 1}: {told}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="interactions; none: generated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--denoiser", choices=("moment", "film"), default="film")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("one core is not enough: the trainer takes one and the service another")
    torch.set_num_threads(1)
    data = load(args.data)
    encoder, sampler = start(data, args.denoiser)
    t_star = check(Loop(data, encoder), sampler)
    with tempfile.TemporaryDirectory() as folder:
        Registry(Path(folder)).publish("bench", pack(sampler))
        os.sched_setaffinity(0, {cores[1]})  # which the service inherits
        port = free_port()
        with started(("cli.main", "serve", "--registry", folder, "--port", port), port) as service:
            os.sched_setaffinity(0, {cores[0]})
            wait_for(service)
            found = measure(args, data, f"http://127.0.0.1:{port}", encoder, sampler)

    def middle(name: str, field: str) -> float:
        return median(getattr(epoch, field) for epoch in found[name])

    print(
        f"\n{data.name}, {len(data.train):,} pairs, {args.denoiser} denoiser, mean t* "
        f"{t_star:.1f}, depth {args.depth}, {args.rounds} rounds\n\n"
        "| negatives | median s per epoch | ratio | trainer's CPU s | s for negatives | late |\n"
        "|---|---|---|---|---|---|"
    )
    for name, told in NAMES.items():
        ratio = middle(name, "seconds") / middle("u", "seconds")
        print(
            f"| ({name}) {told} | {middle(name, 'seconds'):.2f} | {ratio:.2f} "
            f"| {middle(name, 'cpu'):.2f} | {middle(name, 'negatives'):.3f} "
            f"| {middle(name, 'late'):.0f} |"
        )
    times = middle("l", "negatives") / max(middle("s", "negatives"), 1e-9)
    print(f"\nWaiting for the service is {times:.0f}x shorter than making them in process.")
    if args.report is not None:
        report = {
            "denoiser": args.denoiser,
            "depth": args.depth,
            "pairs": len(data.train),
            "mean_transition": t_star,
            "torch": torch.__version__,
            "epoch_ratio": middle("s", "seconds") / middle("u", "seconds"),
            "waiting_ratio": times,
            "epochs": {name: [asdict(epoch) for epoch in found[name]] for name in NAMES},
        }
        args.report.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
