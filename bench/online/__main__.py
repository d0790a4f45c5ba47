"""The online loop beside in-process co-training at equal epochs, and how well it keeps up.

    .venv/bin/python -m bench.online --data <beauty.txt> --encoder lightgcn --epochs 60 --seeds 3
    .venv/bin/python -m bench.online --turn rotate --at 10       # the space turned in mid-run

Each seed: `cotrain` (Algorithm 1, one process); then the same encoder, batches and sampled
negatives with a service's generated negatives, while `turnpoint follow` learns from the service's
stream. Both are judged on test after the last epoch. On the way, `--looks` times, the held-out
diffusion loss of the live version is compared with that of a sampler trained offline to convergence
on the encoder's embeddings of that moment; production waits meanwhile. The live version has met the
pairs of the comparison in epochs before, as they were then; the offline one has not.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turnpoint_client import Client

from bench.online.offline import converged
from bench.online.plot import draw
from bench.online.processes import MODEL, Loop, online
from bench.online.production import Production
from core.checkpoint import unpack
from core.samplers import ADAR
from trainer.config import TrainConfig
from trainer.cotrain import cotrain, new_run
from trainer.data import Interactions, load
from trainer.defaults import config_for
from trainer.evaluate import evaluate
from trainer.following.gate import held_out_losses
from trainer.pipeline import encoder_of, picker_of

HELD_OUT = 8192  # rows of a look; the offline sampler learns from all others of an epoch
CLOSE = 1.1  # times what was reached before the turn: recovered


@dataclass
class Watch:
    """What one online run showed; seconds are since its first request.

    Attributes:
        versions: seconds, version, its follower's steps, its manifest's losses.
        looks: seconds, epoch, losses of the live version and of the offline one.
        turned: of a turn: production's and follower's steps when, and until noticed and recovered.
        useful: seconds and follower's steps of the first version below the unconditional loss.
        recall: test recall@20 of the online loop and of cotrain.
    """

    versions: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, float]] = field(default_factory=list)
    turned: dict[str, float] = field(default_factory=dict)
    useful: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)


class Observer:
    """Looks at the registry and at the encoder while production runs."""

    def __init__(self, loop: Loop, production: Production, watch: Watch) -> None:
        self.loop, self.production, self.watch = loop, production, watch
        self.begin = time.monotonic()
        self.reference: ADAR | None = None
        self.before = 0.0  # the live version's loss when the space was turned

    def seconds(self) -> float:
        """Since the first request."""
        return time.monotonic() - self.begin

    def live(self) -> ADAR:
        """The sampler of the live version."""
        version = self.loop.registry.live(MODEL)
        sampler, _ = unpack(self.loop.registry.read(MODEL, str(version)))
        assert isinstance(sampler, ADAR)
        return sampler

    def step(self, users: Tensor, positives: Tensor) -> None:
        """After each request: is there a new version, and is a turn noticed, or over?"""
        self._versions()
        turned = self.watch.turned
        if not turned or "recovered_after_steps" in turned:
            return
        jumps = self.loop.jumps()
        if "noticed_after_steps" not in turned and len(jumps) > turned["jumps"]:
            turned["noticed_after_steps"] = jumps[-1] - turned["follower_steps"]
            turned["noticed_after_requests"] = self.production.steps - turned["requests"]
        if "noticed_after_steps" in turned:
            loss = float(held_out_losses(self.live(), users, positives).mean())
            if loss <= CLOSE * self.before:
                turned["recovered_after_steps"] = self.loop.steps() - turned["follower_steps"]
                turned["recovered_after_requests"] = self.production.steps - turned["requests"]

    def look(self, epoch: int) -> None:
        """The live version beside what could be known now."""
        users, positives = self.production.rows()
        live = self.live()
        now, held_out = self.seconds(), min(HELD_OUT, len(users) // 4)
        loss = float(held_out_losses(live, users[:held_out], positives[:held_out]).mean())
        self.reference, best = converged(live.config, users, positives, held_out, self.reference)
        look = {"seconds": now, "epoch": epoch, "live": loss, "offline": best}
        self.watch.looks.append(look | {"ratio": loss / best})
        print("  " + "  ".join(f"{k} {v:.4g}" for k, v in self.watch.looks[-1].items()), flush=True)

    def turn(self, how: str) -> None:
        """Another space for whoever follows."""
        production = self.production
        self.before = float(held_out_losses(self.live(), *production.rows(HELD_OUT)).mean())
        dim = production.config.dim
        generator = torch.Generator().manual_seed(0)
        drawn = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
        production.turn = drawn if how == "rotate" else 5 * torch.eye(dim)
        self.watch.turned = {
            "requests": production.steps,
            "follower_steps": self.loop.caught_up(),
            "jumps": len(self.loop.jumps()),
        }

    def _versions(self) -> None:
        version = self.loop.registry.live(MODEL)
        if version is None or (self.watch.versions and self.watch.versions[-1]["name"] == version):
            return
        manifest = self.loop.registry.manifest(MODEL, version)
        steps = manifest.config["counts"]["steps"]
        entry = {"name": version, "seconds": self.seconds(), "steps": steps, **manifest.metrics}
        self.watch.versions.append(entry)
        losses = manifest.metrics
        if (
            not self.watch.useful
            and losses
            and (losses["loss_candidate"] < losses["loss_unconditional"])
        ):
            self.watch.useful = {"seconds": entry["seconds"], "steps": steps}


def together(data: Interactions, config: TrainConfig) -> float:
    """Test recall@20 of in-process co-training after the last epoch."""
    encoder = encoder_of(config, data)
    run = cotrain(new_run(encoder, config), data, picker_of(config, data), config)
    run.encoder.eval()
    return evaluate(*run.encoder.tables("test"), data, "test")["recall@20"]


def one_seed(args: argparse.Namespace, data: Interactions, config: TrainConfig) -> Watch:
    watch = Watch()
    if not args.turn:
        watch.recall["cotrain"] = together(data, config)
    options = ("--num-steps", config.num_steps, "--transition", config.transition.rule)
    with (
        tempfile.TemporaryDirectory() as folder,
        online(Path(folder), config.dim, *options, *args.follow.split()) as loop,
        Client(loop.url) as client,
    ):
        production = Production(data, config, client)
        observer = Observer(loop, production, watch)
        every = max(1, config.epochs // args.looks)
        for epoch in range(1, config.epochs + 1):
            if args.turn and epoch == args.at:
                observer.turn(args.turn)
            production.epoch(observer.step)
            if epoch % every == 0:
                observer.look(epoch)
        watch.recall["online"] = production.judged()["recall@20"]
        print(loop.follower.log())
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="interactions; none: generated")
    parser.add_argument("--encoder", default="lightgcn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--looks", type=int, default=5, help="comparisons with offline, a run")
    parser.add_argument("--turn", choices=("rotate", "rescale"), help="the space, in mid-run")
    parser.add_argument("--at", type=int, default=10, help="epoch of the turn")
    parser.add_argument("--follow", default="", help="more options of `turnpoint follow`, quoted")
    parser.add_argument("--report", type=Path, help="JSON; the plot goes beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in range(args.seeds):
        config = config_for(
            args.encoder, method="adar", epochs=args.epochs, eval_every=args.epochs, seed=seed
        )
        data = load(args.data, seed=seed, split=config.split)
        print(f"seed {seed}: {data.describe()}", flush=True)
        runs.append(asdict(one_seed(args, data, config)))
        shown = {name: runs[-1][name] for name in ("recall", "useful", "turned")}
        print(json.dumps(shown | {"versions": len(runs[-1]["versions"])}), flush=True)
    if args.report is not None:
        told = {"data": data.describe(), "encoder": args.encoder, "epochs": args.epochs}
        args.report.write_text(json.dumps({**told, "follow": args.follow, "runs": runs}, indent=2))
        draw(runs, args.report.with_suffix(".png"))


if __name__ == "__main__":
    main()
