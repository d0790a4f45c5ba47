"""What else can be made of a Gaussian negative: ADAR with one thing changed at a time.

    python -m bench.quality.gaussian [VARIANT ...] --data FOLDER [--encoder mf] [--epochs 100]

Chosen and told by validation; test is not read. What is done is kept, and not done again.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from bench.quality.cells import Settings, resolve
from bench.quality.data import load_set, without_test
from core.chain import Law
from core.losses import augmented_bpr, bpr
from core.samplers import ADAR, Query
from core.samplers.catalogue import shares
from trainer.config import TrainConfig
from trainer.cotrain import cotrain, new_run
from trainer.data import Interactions
from trainer.methods import Method, Ranked, Rows, make_method
from trainer.methods.adar import ADARMethod
from trainer.methods.base import likeness
from trainer.pipeline import encoder_of, picker_of
from trainer.run import Diffusion

UNIFORM = "uniform"
SHOWN = 256  # random items that stand for the catalogue where a user's quantiles are wanted
RAMP = 40  # epochs that a schedule takes from its first value to its last
DRAWS = 4  # where each has a loss of its own


class Altered(ADARMethod):
    """ADAR in parts, some of them others than its own.

    Args:
        parts: what stands in the place of what.
        sampler, diffusion, config: as of `ADARMethod`.
        num_items: I.
    """

    def __init__(
        self,
        parts: "Parts",
        sampler: ADAR,
        diffusion: Diffusion,
        config: TrainConfig,
        num_items: int,
    ) -> None:
        super().__init__(sampler, diffusion, config)
        self.parts = parts
        self.num_items = num_items
        self.ramp = 0.0  # how much of a schedule is over

    def begin(self, epoch: int) -> None:
        """See `Method.begin`."""
        self.ramp = min(1.0, epoch / RAMP)

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """Eq. 8, under the condition that generates."""
        condition = self.parts.condition(self, rows)
        loss: Tensor = self.sampler.loss(condition, rows.e_i, self.generator).total
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """Lines 11 to 17 of Algorithm 1, part by part."""
        seen, parts = rows.detached, self.parts
        threshold = parts.threshold(self, seen)
        query = Query(seen.e_u, seen.e_i, self.config.transition, threshold=threshold)
        t_star = self.sampler.transition_point(query, self.generator)
        law = self.sampler.law_at(replace(query, users=parts.condition(self, seen)), t_star)
        e_d = parts.negatives(self, rows, law)
        s_ud = (e_d * rows.e_u.unsqueeze(1)).sum(-1)
        loss = parts.ranking(self, rows, law, s_ud)
        return Ranked(loss, law.transition, s_ud[:, 0], likeness(rows, e_d[:, 0]))


# ---- mu-, of the rule `exact` ---------------------------------------------------------------


def of_e_j(_: Altered, rows: Rows) -> Float[Tensor, " B"]:
    """The sampled negative's score."""
    return rows.s_uj


def quantile(first: float, last: float | None = None) -> "Threshold":
    """A quantile of the user's scores over random items, or one after the other on a ramp."""

    def threshold(method: Altered, rows: Rows) -> Float[Tensor, " B"]:
        # Batches and e_j have another generator, so they are those of every other variant.
        items = torch.randint(method.num_items, (SHOWN,), generator=method.generator)
        scores = rows.e_u @ rows.encoded.items(items).detach().T
        at = first if last is None else first + method.ramp * (last - first)
        found: Tensor = scores.quantile(at, dim=1)
        return found

    return threshold


# ---- what the diffusion model is conditioned on, in units of users --------------------------


def on_user(_: Altered, rows: Rows) -> Float[Tensor, "B d"]:
    """e_u."""
    return rows.e_u


def on_pair(method: Altered, rows: Rows) -> Float[Tensor, "B d"]:
    """e_u + e_i, each divided by its scale."""
    return rows.e_u + rows.e_i * (method.sampler.user_rms / method.sampler.item_rms)


# ---- e_d ------------------------------------------------------------------------------------


def draws(number: int) -> "Negatives":
    """So many of the law."""
    return lambda method, _, law: law.draw(number, method.generator)


def hardest_of(number: int) -> "Negatives":
    """Of so many draws the one that scores highest."""

    def negatives(method: Altered, rows: Rows, law: Law) -> Float[Tensor, "B 1 d"]:
        drawn = law.draw(number, method.generator)
        best = (drawn @ rows.e_u.detach().unsqueeze(2)).argmax(1, keepdim=True)
        return drawn.take_along_dim(best, 1)

    return negatives


def forward(method: Altered, rows: Rows, law: Law) -> Float[Tensor, "B n d"]:
    """x_t by Eq. 2 from e_i itself, whose gradient is kept; the reverse chain is left out."""
    t_star = law.transition.unsqueeze(1).expand(-1, DRAWS)
    signal, other = shares(method.sampler.schedule.alpha_bar, t_star, rows.e_i.dtype)
    shape = (*t_star.shape, rows.e_i.shape[1])
    noise = torch.randn(shape, generator=method.generator) * method.sampler.item_rms
    return signal.unsqueeze(2) * rows.e_i.unsqueeze(1) + other.unsqueeze(2) * noise


# ---- the encoder's loss ---------------------------------------------------------------------


def eq_12(method: Altered, rows: Rows, _: Law, s_ud: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """-ln sigmoid(s_ui - (s_uj + lambda s_ud))."""
    return augmented_bpr(rows.s_ui, rows.s_uj, s_ud[:, 0], method.config.weight)


def ramped(first: float, last: float) -> "Ranking":
    """Eq. 12 with lambda on a ramp."""

    def ranking(
        method: Altered, rows: Rows, _: Law, s_ud: Float[Tensor, "B 1"]
    ) -> Float[Tensor, ""]:
        weight = first + method.ramp * (last - first)
        return augmented_bpr(rows.s_ui, rows.s_uj, s_ud[:, 0], weight)

    return ranking


def own_losses(_: Altered, rows: Rows, __: Law, s_ud: Float[Tensor, "B n"]) -> Float[Tensor, ""]:
    """The mean of BPR over e_j and over the draws."""
    losses = softplus(s_ud - rows.s_ui.unsqueeze(1))
    return (bpr(rows.s_ui, rows.s_uj) + losses.mean()) / 2


def weighted(_: Altered, rows: Rows, law: Law, s_ud: Float[Tensor, "B n"]) -> Float[Tensor, ""]:
    """The same, a draw counted as often as one outscores the positive, which the law knows."""
    seen = rows.detached
    mean = (seen.e_u * law.mean).sum(-1)
    deviation = (seen.e_u * law.std).norm(dim=1).clamp(min=1e-12)
    likely = torch.special.ndtr((mean - seen.s_ui) / deviation)
    losses = softplus(s_ud - rows.s_ui.unsqueeze(1)).mean(1)
    return ((softplus(rows.s_uj - rows.s_ui) + likely * losses) / (1 + likely)).mean()


Threshold = Callable[[Altered, Rows], Tensor]
Condition = Callable[[Altered, Rows], Tensor]
Negatives = Callable[[Altered, Rows, Law], Tensor]
Ranking = Callable[[Altered, Rows, Law, Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """What a variant is made of; by default ADAR's own.

    Attributes:
        settings: over the defaults of the encoder and of ADAR.
        threshold: mu- (B,).
        condition: (B, d).
        negatives: e_d (B, n, d).
        ranking: the encoder's loss.
    """

    settings: Settings = field(default_factory=dict)
    threshold: Threshold = of_e_j
    condition: Condition = on_user
    negatives: Negatives = draws(1)  # noqa: RUF009
    ranking: Ranking = eq_12


EXACT: Settings = {"transition.rule": "exact"}
CALIBRATED: Settings = {"transition.rule": "calibrated"}
VARIANTS = {
    "Eq. 11 and 12": Parts(),
    "not standardised": Parts({"standardize": False}),
    "lambda 0 to .3": Parts(ranking=ramped(0.0, 0.3)),
    "lambda .3 to 0": Parts(ranking=ramped(0.3, 0.0)),
    "calibrated": Parts(CALIBRATED),
    "calibrated, on e_u and e_i": Parts(CALIBRATED, condition=on_pair),
    "calibrated, own losses": Parts(CALIBRATED, negatives=draws(DRAWS), ranking=own_losses),
    "calibrated, own losses, from e_i": Parts(CALIBRATED, negatives=forward, ranking=own_losses),
    "exact, mu- of e_j": Parts(EXACT),
    "exact, mu- the median": Parts(EXACT, quantile(0.5)),
    "exact, mu- the .9 quantile": Parts(EXACT, quantile(0.9)),
    "exact, mu- the .99 quantile": Parts(EXACT, quantile(0.99)),
    "exact, mu- from .5 to .99": Parts(EXACT, quantile(0.5, 0.99)),
    "exact, hardest of 8": Parts(EXACT, negatives=hardest_of(8)),
    "exact, own losses": Parts(EXACT, negatives=draws(DRAWS), ranking=own_losses),
    "exact, own losses, weighted": Parts(EXACT, negatives=draws(DRAWS), ranking=weighted),
}


def run(name: str, data: Interactions, encoder: str, common: Settings) -> dict[str, Any]:
    """Trains with one of `VARIANTS`, or plainly; what validation says of the best epoch."""
    parts = VARIANTS.get(name, Parts({"method": "none"}))
    config = resolve(encoder, {"method": "adar", **common, **parts.settings})

    def method_of(
        diffusion: Diffusion | None, interactions: Interactions, config: TrainConfig
    ) -> Method:
        if diffusion is None or not isinstance(diffusion.sampler, ADAR):
            return make_method(diffusion, interactions, config)
        return Altered(parts, diffusion.sampler, diffusion, config, interactions.num_items)

    training = new_run(encoder_of(config, data), config, data)
    cotrain(training, data, picker_of(config, data), config, method_of=method_of)
    counts = torch.tensor(training.best_histogram, dtype=torch.float64)
    steps = torch.arange(len(counts), dtype=torch.float64)
    best = next(row for row in training.history if row["epoch"] == training.best_epoch)
    return {
        "valid": training.best_metric,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help=f"{UNIFORM} and {', '.join(VARIANTS)}")
    folder = os.environ.get("TURNPOINT_DATA")
    parser.add_argument("--data", type=Path, default=folder or None, help="the data sets' folder")
    parser.add_argument("--set", default="beauty", help="which of them")
    parser.add_argument("--encoder", default="mf")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(".turnpoint/quality"))
    args = parser.parse_args(arguments)
    names = args.variants or [UNIFORM, *VARIANTS]
    if unknown := set(names) - {UNIFORM, *VARIANTS}:
        parser.error(f"no variant is called {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    common = {"epochs": args.epochs}
    data = without_test(load_set(args.set, resolve(args.encoder, common).split, args.data))
    path = args.out / f"gaussian-{args.set}-{args.encoder}-{args.epochs}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        if name not in results:
            results[name] = run(name, data, args.encoder, common)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=2) + "\n")
            print(table({name: results[name]}).splitlines()[-1], flush=True)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
