"""Where a positive stops being positive: the rules for t* (ADAR Eq. 11, Theorem 1, Table 3).

`Transition` is what a caller asks for: a rule's name and its parameters. The functions give t*
where it can be known before the chain runs; `exact` and `mixed` look at the chain itself
(`core.chain`).

    score_aware   Eq. 11 on the raw score: t* = sigmoid(omega exp(k p_s)) T, to the nearest integer
    calibrated    Eq. 11 on the score standardised by its running mean and deviation, within +-3
    theorem       Theorem 1: the t whose abar_t is nearest to (mu- / mu+)^2
    exact         the smallest t at which the generated sample scores at most mu-
    random        uniform over 1..T          (Table 3)
    fixed         t = T / 2                  (Table 3)
    mixed         the mean of the samples at T/2, T/4, T/8, T/10   (Table 3; DMNS)

`hardness` in [0, 1] turns the two rules that have such a knob: `fixed` takes t = (1 - hardness) T,
`exact` lets the sample score above mu- with probability `hardness`. At 1/2, the default, both are
the rules of the table.
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from core.errors import OutOfRangeError

RULES = ("score_aware", "calibrated", "theorem", "exact", "random", "fixed", "mixed")
NEEDS_THRESHOLD = frozenset({"theorem", "exact"})
_PARAMETERS = {
    "score_aware": {"omega", "k"},
    "calibrated": {"omega", "k"},
    "exact": {"hardness"},
    "fixed": {"hardness"},
}
CALIBRATED_BOUND = 3.0


@dataclass(frozen=True)
class Transition:
    """A rule for t* and its parameters.

    Attributes:
        rule: one of `RULES`.
        omega: > 0, of Eq. 11.
        k: > 0, of Eq. 11.
        hardness: in [0, 1], of `exact` and `fixed`.

    Raises:
        OutOfRangeError: unknown rule, or a parameter outside its range.
    """

    rule: str = "score_aware"
    omega: float = 1.0
    k: float = 1.0
    hardness: float = 0.5

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise OutOfRangeError(f"transition = {self.rule!r}; known rules: {', '.join(RULES)}")
        for name in ("omega", "k"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise OutOfRangeError(f"{name} = {value}; it must be finite and above 0")
        if not 0 <= self.hardness <= 1:
            raise OutOfRangeError(f"hardness = {self.hardness}; it must lie in [0, 1]")

    def override(
        self,
        rule: str | None = None,
        *,
        omega: float | None = None,
        k: float | None = None,
        hardness: float | None = None,
    ) -> "Transition":
        """This rule with what the caller named put in its place.

        Raises:
            OutOfRangeError: as above, or a parameter that the resulting rule does not take.
        """
        chosen = {"omega": omega, "k": k, "hardness": hardness}
        named = {name: value for name, value in chosen.items() if value is not None}
        if rule is None and not named:
            return self
        merged = Transition(**{**asdict(self), **named, "rule": rule or self.rule})
        for name in named:
            if name not in _PARAMETERS.get(merged.rule, set()):
                rules = [r for r in RULES if name in _PARAMETERS.get(r, set())]
                raise OutOfRangeError(
                    f"{name} is no parameter of transition rule {merged.rule!r}; "
                    f"it belongs to {', '.join(rules)}: leave it out or change the rule"
                )
        return merged


def score_aware(
    score: Float[Tensor, " B"], num_steps: int, omega: float = 1.0, k: float = 1.0
) -> Int[Tensor, " B"]:
    """Eq. 11, t* = sigmoid(omega exp(k p_s)) T, rounded to the nearest integer.

    Since omega exp(.) > 0, t* >= T/2; for p_s >= 0 and omega = k = 1, t* >= 0.73 T; from p_s about
    2.2 on it is T for T = 50 (exp overflows to infinity harmlessly: sigmoid(inf) = 1). A score that
    is not a number gives T, so that training that diverges shows it by its loss, not by a crash.
    """
    share = torch.sigmoid(omega * torch.exp(k * score.double()))
    return (share * num_steps).round().nan_to_num(num_steps).long()


def calibrated(
    score: Float[Tensor, " B"],
    mean: Float[Tensor, ""],
    std: Float[Tensor, ""],
    num_steps: int,
    omega: float = 1.0,
    k: float = 1.0,
) -> Int[Tensor, " B"]:
    """Eq. 11 on (p_s - mean)/std within +-3, so that t* spreads over [T/2, T]."""
    bounded = ((score - mean) / std).clamp(-CALIBRATED_BOUND, CALIBRATED_BOUND)
    return score_aware(bounded, num_steps, omega, k)


def theorem(
    score: Float[Tensor, " B"], threshold: Float[Tensor, " B"], alpha_bar: Float64[Tensor, "T1"]
) -> Int[Tensor, " B"]:
    """Theorem 1: the t whose abar_t is nearest to (mu- / mu+)^2, mu+ the positive's score.

    mu+ <= mu- gives 0 (the positive itself is at the threshold already), else mu- <= 0 gives T (the
    expected score reaches 0 only in pure noise).
    """
    ratio = threshold.double() / score.double()
    target = torch.where(threshold <= 0, 0.0, ratio.square())
    target = torch.where(score <= threshold, 1.0, target)
    falling = alpha_bar.to(score.device)
    midpoints = ((falling[:-1] + falling[1:]) / 2).flip(0)
    return len(midpoints) - torch.searchsorted(midpoints, target.contiguous(), right=True)


def random(
    rows: int, num_steps: int, generator: torch.Generator, device: torch.device
) -> Int[Tensor, " B"]:
    """Uniform over 1..T (Table 3); t = 0 would be the positive itself."""
    return torch.randint(1, num_steps + 1, (rows,), generator=generator, device=device)


def fixed(num_steps: int, hardness: float = 0.5) -> int:
    """t = (1 - hardness) T, to the nearest integer; T/2 by default (Table 3)."""
    return math.floor((1 - hardness) * num_steps + 0.5)


def mixed_stops(num_steps: int) -> list[int]:
    """T/2, T/4, T/8, T/10, rounded down (Table 3; DMNS section 4)."""
    return [num_steps // divisor for divisor in (2, 4, 8, 10)]


def hardness_quantile(hardness: float) -> float:
    """The quantile q of N(0, 1) with P(q > N) = 1 - hardness; +-inf at 0 and 1."""
    if hardness in (0, 1):
        return math.inf if hardness == 0 else -math.inf
    return 0.0 if hardness == 0.5 else NormalDist().inv_cdf(1 - hardness)
