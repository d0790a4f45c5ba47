"""GDNSM's denoiser: noise predicted under a user and the modalities of an item, with guidance.

Its first layer is linear in [x_t ; time ; user ; modalities], so all but x_t is computed once a
chain; and its last is linear, so a guided prediction, a sum of several with weights that add up to
1, is taken of the hidden layer: guidance costs activations and no matrix products.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from core.denoiser import time_embedding
from core.errors import ConfigError
from core.schedule import Schedule

KINDS = ("linear", "mlp")


class Guidance(NamedTuple):
    """What is added to the hidden layer, computed once a chain.

    Attributes:
        steps: (T+1, hidden), by step.
        codes: of each prediction, (B, 1, hidden): those of the n negatives of a row are alike.
        weights: of each prediction; they add up to 1.
    """

    steps: Float[Tensor, "T1 hidden"]
    codes: tuple[Float[Tensor, "B 1 hidden"], ...]
    weights: tuple[float, ...]


class GuidedDenoiser(nn.Module):
    """eps_theta = sqrt(1 - abar_t) x_t + f([x_t ; time(t) ; e_u ; modalities]).

    f is one layer (`linear`) or two with a GELU between (`mlp`); it begins at zero. An unknown
    modality is a learned null.

    Differs from the released code: what f corrects is the optimum for unit Gaussian data. Without
    it an untrained chain blows its samples up by 1/sqrt(abar_T).

    Args:
        schedule: gives T and abar.
        dim: d.
        features: name -> width of every modality.
        kind: one of `KINDS`.
        time_dim: width of the time embedding, even.

    Raises:
        ConfigError: unknown kind, or no modality.
    """

    time_codes: Tensor
    noise: Tensor

    def __init__(
        self,
        schedule: Schedule,
        dim: int,
        features: Mapping[str, int],
        kind: str,
        time_dim: int = 64,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"denoiser = {kind!r}; known: {', '.join(KINDS)}")
        if not features or min(features.values()) < 1:
            raise ConfigError(f"features = {dict(features)}; at least one, each of width 1 or more")
        self.names = tuple(features)
        hidden = dim if kind == "linear" else 2 * dim
        self.time = nn.Sequential(nn.Linear(time_dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.modalities = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
            for width in features.values()
        )
        self.nulls = nn.Parameter(torch.randn(len(features), dim) / dim**0.5)
        self.x = nn.Linear(dim, hidden)
        self.of_time = nn.Linear(dim, hidden, bias=False)
        self.of_user = nn.Linear(dim, hidden, bias=False)
        self.of_modality = nn.ModuleList(nn.Linear(dim, hidden, bias=False) for _ in features)
        self.out = nn.Linear(hidden, dim) if kind == "mlp" else None
        last = [self.x, self.of_time, self.of_user, *self.of_modality]
        for layer in last if self.out is None else [self.out]:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        codes = time_embedding(schedule.num_steps, time_dim)
        self.register_buffer("time_codes", codes.float(), persistent=False)
        self.register_buffer("noise", (1 - schedule.alpha_bar).sqrt(), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "B d"],
        t: Int[Tensor, " B"],
        users: Float[Tensor, "B d"],
        features: Sequence[Float[Tensor, "B _"]],
        keep: Bool[Tensor, "B M"],
    ) -> Float[Tensor, "B d"]:
        """eps_theta at a step t per row, for training; where `keep` is False stands the null."""
        code = self.of_user(users) + self.of_time(self.time(self.time_codes))[t]
        for place, table in enumerate(features):
            known = torch.where(
                keep[:, place, None], self.modalities[place](table), self.nulls[place]
            )
            code = code + self.of_modality[place](known)
        hidden = self.x(x) + code
        correction = hidden if self.out is None else self.out(gelu(hidden))
        guess: Tensor = self.noise.to(x.dtype)[t, None] * x + correction
        return guess

    def guide(
        self,
        users: Float[Tensor, "B d"],
        features: Sequence[Float[Tensor, "B _"] | None],
        predictions: Mapping[tuple[int, ...], float],
    ) -> Guidance:
        """Prepare a guided chain.

        Args:
            users: (B, d).
            features: of each modality, (B, f); None where unknown.
            predictions: the modalities that each sees, and its weight; see `guidance_weights`.
        """
        base = self.of_user(users)
        null = [
            layer(own) for layer, own in zip(self.of_modality, self.nulls.unbind(), strict=True)
        ]
        known = [
            null[place] if table is None else self.of_modality[place](self.modalities[place](table))
            for place, table in enumerate(features)
        ]
        codes = [
            base + sum((known if place in seen else null)[place] for place in range(len(null)))
            for seen in predictions
        ]
        weights = list(predictions.values())
        if self.out is None:  # a sum of linear predictions is the prediction under the sum
            codes = [sum(w * code for w, code in zip(weights, codes, strict=True))]
            weights = [1.0]
        steps = self.of_time(self.time(self.time_codes))
        return Guidance(steps, tuple(code.unsqueeze(1) for code in codes), tuple(weights))

    def step(
        self, x: Float[Tensor, "B n d"], t: int, guidance: Guidance, of_state: float, of_f: float
    ) -> Float[Tensor, "B n d"]:
        """of_state x_t + of_f f(x_t), one t for all; without gradient.

        Args:
            x: x_t.
            t: the step, in [1, T].
            guidance: of the rows.
            of_state: a.
            of_f: q.
        """
        flat = x.flatten(0, 1)
        base = linear(x, self.x.weight, self.x.bias + guidance.steps[t])
        if self.out is None:
            return base.add_(guidance.codes[0]).mul_(of_f).add_(x, alpha=of_state)
        mixed: Tensor | None = None
        scratch = torch.empty_like(base)
        for code, weight in zip(guidance.codes, guidance.weights, strict=True):
            active = gelu(torch.add(base, code, out=scratch))
            mixed = active.mul_(weight) if mixed is None else mixed.add_(active, alpha=weight)
        hidden = base if mixed is None else mixed
        after = torch.addmm(
            flat, hidden.flatten(0, 1), self.out.weight.T, beta=of_state, alpha=of_f
        )
        return after.add_(self.out.bias, alpha=of_f).view(x.shape)


def guidance_weights(
    modalities: Sequence[int], scales: Sequence[float]
) -> dict[tuple[int, ...], float]:
    """What each prediction counts in a guided one (classifier-free guidance, one scale a modality).

        e = eps(0) + sum_k s_k (eps(m_1..m_k) - eps(m_1..m_{k-1}))

    in which eps(m_1..m_k) counts s_k - s_{k+1}; those that count 0 are left out.

    Args:
        modalities: m_1, m_2, ..., in the order in which they are added.
        scales: s of every modality; 0 is no guidance, 1 the plain prediction.
    """
    own = [1.0, *(scales[m] for m in modalities), 0.0]
    weights = {
        tuple(sorted(modalities[:k])): own[k] - own[k + 1] for k in range(len(modalities) + 1)
    }
    return {seen: weight for seen, weight in weights.items() if weight != 0}
