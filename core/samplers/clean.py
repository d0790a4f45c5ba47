"""CNSDiff's denoiser: it predicts x_0, and averages over the strata of popularity in one pass."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from core.denoiser import time_embedding


class Codes(NamedTuple):
    """What is added to the hidden layer, computed once a chain.

    Attributes:
        steps: (T+1, hidden), by step.
        added: (k, B or 1, hidden), by stratum.
        shares: (k,), what each stratum counts, adding up to 1.
    """

    steps: Float[Tensor, "T1 hidden"]
    added: Float[Tensor, "k b hidden"]
    shares: Float[Tensor, " k"]

    def rows(self, part: slice) -> "Codes":
        """The same for some of the rows."""
        one_for_all = self.added.shape[1] == 1
        return self if one_for_all else Codes(self.steps, self.added[:, part], self.shares)


class CleanDenoiser(nn.Module):
    """x0_hat = W_o tanh(W_x x/|x| + W_t PE(t) + s_E).

    The last layer is linear, so the average over strata, sum_E P(E) f(x_t, t, E), is taken of the
    hidden layer and costs a tanh for each stratum, not a network.

    Args:
        num_steps: T.
        dim: d.
        hidden: width of the hidden layer.
        strata: K; with 1 there is no s_E.
    """

    time_codes: Tensor

    def __init__(self, num_steps: int, dim: int, hidden: int, strata: int) -> None:
        super().__init__()
        time_dim = 2 * math.ceil(dim / 2)
        self.code = nn.Linear(time_dim, time_dim)
        self.time = nn.Linear(time_dim, hidden)
        self.x = nn.Linear(dim, hidden, bias=False)
        self.out = nn.Linear(hidden, dim)
        # x and PE(t) are one layer's input, in two parts.
        for layer, fan_in in ((self.code, time_dim), (self.out, hidden)):
            _xavier_normal(layer, fan_in)
        for layer in (self.time, self.x):
            _xavier_normal(layer, time_dim + dim)
        self.strata = nn.Parameter(torch.zeros(strata, hidden), requires_grad=strata > 1)
        codes = time_embedding(num_steps, time_dim)
        self.register_buffer("time_codes", codes.float(), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "B d"],
        t: Int[Tensor, " B"],
        popularity: Int[Tensor, " B"] | None,
        mask: Float[Tensor, "B d"],
    ) -> Float[Tensor, "B d"]:
        """x0_hat at a step t in [1, T] per row, each in its own stratum; for training.

        Args:
            x: (B, d) x_t.
            t: (B,).
            popularity: (B,) strata; None is the first.
            mask: (B, d) of dropout, scaled.
        """
        stratum = self.strata[:1] if popularity is None else self.strata[popularity]
        hidden = self.x(normalize(x) * mask) + self._steps()[t] + stratum
        out: Tensor = self.out(hidden.tanh())
        return out

    def codes(self, exposure: Float[Tensor, " K"], popularity: Int[Tensor, " B"] | None) -> Codes:
        """Of one stratum per row where it is given, else of all of them with their shares."""
        steps, strata = self._steps(), self.strata
        if popularity is None:
            return Codes(steps, strata.unsqueeze(1), exposure.to(strata.dtype))
        return Codes(steps, strata[popularity].unsqueeze(0), torch.ones_like(strata[:1, 0]))

    def step(
        self, x: Float[Tensor, "B *n d"], t: int, codes: Codes, of_clean: float, of_state: float
    ) -> Float[Tensor, "B *n d"]:
        """a sum_E P(E) f(x_t, t, E) + b x_t, one t in [1, T] for all; without gradient.

        Args:
            x: x_t.
            t: the step.
            codes: of the rows.
            of_clean: a.
            of_state: b.
        """
        flat = x.flatten(0, -2)
        length = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1e-12)
        base = linear(flat, self.x.weight).div_(length)
        wide = base.view(*x.shape[:-1], -1)
        shape = (-1, *(1 for _ in x.shape[1:-1]), base.shape[-1])
        first, *others = ((codes.steps[t] + added).view(shape) for added in codes.added)
        if others:
            mixed, scratch = torch.zeros_like(wide), torch.empty_like(wide)
            for added, share in zip((first, *others), codes.shares, strict=True):
                mixed.addcmul_(torch.add(wide, added, out=scratch).tanh_(), share)
        else:
            mixed = wide.add_(first).tanh_()
        # a (W h + bias) + b x, with one pass over the product.
        after = torch.addmm(
            flat, mixed.flatten(0, -2), self.out.weight.T, beta=of_state, alpha=of_clean
        )
        return after.add_(self.out.bias, alpha=of_clean).view(x.shape)

    def _steps(self) -> Float[Tensor, "T1 hidden"]:
        """W_t PE(t) + b for every t."""
        steps: Tensor = self.time(self.code(self.time_codes))
        return steps


def _xavier_normal(layer: nn.Linear, fan_in: int) -> None:
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (fan_in + layer.out_features)))
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.001)
