"""Diffusing toward the catalogue: the forward process (ADAR Eq. 2) with real items as its noise.

    x_t = sqrt(abar_t) e_i + sqrt(1 - abar_t) e_c,    c the hardest of M items of the catalogue

At t = 0 this is the positive and at t = T, the default, a hard real negative. Nothing is learnt
beside the encoder: its items are the checkpoint. What Gaussian noise cannot give, the catalogue
does: every x_t lies where items lie, and whoever looks c up in a table of its own has a gradient
that reaches items.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core import transition
from core.candidates import candidates, hardest
from core.errors import ConfigError
from core.noise import Noise
from core.samplers.base import Generated, Query
from core.schedule import make_schedule
from core.transition import Transition

RULES = ("fixed", "random", "score_aware")  # the others look at the chain of a denoiser
HARDEST = Transition("fixed", hardness=0.0)  # t* = T
FLOATS = 2**22  # of candidates' embeddings, or of their scores, held at once


@dataclass(frozen=True)
class CatalogueConfig:
    """Everything that shapes a catalogue's sampler; saved in the manifest.

    Attributes:
        dim: d, of user and item embeddings.
        num_items: I.
        num_steps: T.
        schedule: the noise schedule's name.
        candidates: M, items that each negative is the hardest of.
        transition: the rule for t*, one of `RULES`.

    Raises:
        ConfigError: a rule that needs a denoiser, or a size below 1.
    """

    dim: int
    num_items: int
    num_steps: int = 50
    schedule: str = "linear"
    candidates: int = 32
    transition: Transition = field(default=HARDEST)

    def __post_init__(self) -> None:
        check_rule(self.transition)
        for name in ("dim", "num_items", "num_steps", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CatalogueConfig":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "transition": Transition(**values["transition"])})


class Catalogue(nn.Module):
    """Generates, for each (user, positive), negatives from the items that it holds.

    It does not know what a user has taken: with 32 candidates of 12,000 items and a history of 8,
    up to one negative in 50 is in it. `Generated.items` says which items they are.

    Args:
        config: sizes and rule.
        items: (I, d) float32, the encoder's; None leaves zeros for `load_state_dict`.

    Raises:
        ConfigError: items of another shape.
    """

    method: ClassVar[str] = "catalogue"

    items: Tensor

    def __init__(self, config: CatalogueConfig, items: Float[Tensor, "I d"] | None = None) -> None:
        super().__init__()
        self.config = config
        shape = (config.num_items, config.dim)
        if items is not None and tuple(items.shape) != shape:
            raise ConfigError(f"items have shape {list(items.shape)}; it must be {list(shape)}")
        table = torch.zeros(shape) if items is None else items.detach().float().clone()
        self.register_buffer("items", table)
        self.schedule = make_schedule(config.schedule, config.num_steps)

    @classmethod
    def of(cls, items: Float[Tensor, "I d"], **config: Any) -> "Catalogue":
        """The sampler of an encoder's items; the rest is as in `CatalogueConfig`."""
        return cls(CatalogueConfig(items.shape[1], items.shape[0], **config), items)

    @property
    def inputs(self) -> tuple[str, ...]:
        """See `NegativeSampler.inputs`."""
        return ("users", "positives")

    @property
    def dim(self) -> int:
        """d."""
        return self.config.dim

    @property
    def num_steps(self) -> int:
        """T."""
        return self.config.num_steps

    @property
    def num_items(self) -> int:
        """I."""
        return self.config.num_items

    @property
    def device(self) -> torch.device:
        """Where the items are."""
        return self.items.device

    def summary(self) -> dict[str, Any]:
        """The manifest's account of this sampler."""
        return {
            "schedule": self.config.schedule,
            "denoiser": "none",
            "scales": {},
            "transition": asdict(self.config.transition),
            "sampler": asdict(self.config),
        }

    @torch.no_grad()
    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        """See `Generates.generate`; each negative is the hardest of candidates of its own."""
        rows = len(query.users)
        chosen = torch.empty(rows, n, dtype=torch.int64, device=self.device)
        t_star = torch.empty_like(chosen)
        score = (query.users * query.positives).sum(-1)
        for generator, part in noise.requests():
            chosen[part] = self._hardest(query.users[part], n, generator)
            t_star[part] = transition_point(
                self.config.transition, score[part], n, self.num_steps, generator
            )
        signal, other = shares(self.schedule.alpha_bar, t_star, query.users.dtype)
        e_c = self.items.to(query.users.dtype)[chosen]
        x_t = signal.unsqueeze(2) * query.positives.unsqueeze(1) + other.unsqueeze(2) * e_c
        return Generated(x_t, t_star.double().mean(1).round().long(), items=chosen)

    def _hardest(
        self, users: Float[Tensor, "B d"], n: int, generator: torch.Generator
    ) -> Int[Tensor, "B n"]:
        """c, of each row and draw."""
        rows, many = len(users), self.config.candidates
        drawn = candidates(rows, n * many, self.num_items, generator)
        at_once = max(1, FLOATS // (many * max(rows, len(drawn) * self.dim)))
        found = []
        for some in drawn.split(at_once * many, dim=1):
            embeddings = self.items.to(users.dtype)[some]
            found.append(hardest(users, some, embeddings, some.shape[1] // many).items)
        return torch.cat(found, dim=1)


def check_rule(rule: Transition) -> None:
    """Whether t* of a rule is known without a denoiser.

    Raises:
        ConfigError: it is not.
    """
    if rule.rule not in RULES:
        raise ConfigError(
            f"transition = {rule.rule!r} needs the chain of a denoiser, which method catalogue has "
            f"not; choose one of {', '.join(RULES)}"
        )


def transition_point(
    rule: Transition,
    score: Float[Tensor, " B"],
    draws: int,
    num_steps: int,
    generator: torch.Generator,
) -> Int[Tensor, "B k"]:
    """t* of each row and draw, by one of `RULES`."""
    shape = (len(score), draws)
    match rule.rule:
        case "random":
            t_star = transition.random(len(score) * draws, num_steps, generator, score.device)
            return t_star.view(shape)
        case "score_aware":
            t_star = transition.score_aware(score, num_steps, rule.omega, rule.k)
            return t_star.unsqueeze(1).expand(shape)
        case _:  # fixed
            t = transition.fixed(num_steps, rule.hardness)
            return torch.full(shape, t, device=score.device)


def shares(
    alpha_bar: Float[Tensor, "T1"], t_star: Int[Tensor, "B k"], dtype: torch.dtype
) -> tuple[Float[Tensor, "B k"], Float[Tensor, "B k"]]:
    """sqrt(abar_t) of the positive and sqrt(1 - abar_t) of the item, Eq. 2."""
    abar = alpha_bar.to(t_star.device)[t_star]
    return abar.sqrt().to(dtype), (1 - abar).sqrt().to(dtype)
