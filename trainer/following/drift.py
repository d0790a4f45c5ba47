"""How far the cloud of embeddings has moved since a moment: its mean, its variance, its direction.

    mean        |m - m0| over the cloud's deviation then, sqrt(tr C0)
    variance    |ln(tr C / tr C0)|
    direction   1 - <C, C0> / (|C| |C0|), in [0, 1]: of the covariances of users and positives
                together, each half over its own deviation, so that a change of scale is none

of z = [e_u ; e_i], m its mean and C its covariance. Rotating the space moves `direction`, unless
the cloud is as wide in every direction and users say nothing of positives: then a rotation changes
nothing that a sampler could learn either.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MEASURES = ("mean", "variance", "direction")
_TINY = 1e-30  # variance of a cloud that is one point; far below any embedding's


@dataclass(frozen=True)
class Cloud:
    """Moments of n rows.

    Attributes:
        mean: (2 d), of users, then positives.
        covariance: (2 d, 2 d).
        rows: n.
    """

    mean: Float[Tensor, " D"]
    covariance: Float[Tensor, "D D"]
    rows: int

    @classmethod
    def of(cls, users: Float[Tensor, "n d"], positives: Float[Tensor, "n d"]) -> "Cloud":
        """The moments of at least two rows."""
        both = torch.cat([users, positives], 1)
        return cls(both.mean(0), torch.cov(both.T), len(both))


@torch.no_grad()
def drift(now: Cloud, then: Cloud) -> dict[str, float]:
    """The measures above, by name; 0 for what has not moved, up to the noise of finite clouds."""
    total, total_then = _trace(now.covariance), _trace(then.covariance)
    found = {
        "mean": (now.mean - then.mean).norm() / total_then.sqrt(),
        "variance": (total / total_then).log().abs(),
        "direction": 1 - _cosine(now, then),
    }
    return {name: float(value) for name, value in found.items()}


def _trace(covariance: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    return covariance.trace().clamp_min(_TINY)


def _cosine(now: Cloud, then: Cloud) -> Float[Tensor, ""]:
    """Of the covariances, over their norms without what sampling n rows adds, (tr C)^2 / n."""
    a, b = _scaled(now.covariance), _scaled(then.covariance)
    product = (a * b).sum()
    for one, rows in ((a, now.rows), (b, then.rows)):
        square = one.square().sum()
        product = product / (square - one.trace().square() / rows).clamp_min(square / 2).sqrt()
    return product.clamp(0, 1)


def _scaled(covariance: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """Both halves divided by their deviations."""
    half = len(covariance) // 2
    users, positives = covariance[:half, :half], covariance[half:, half:]
    deviation = torch.cat([_trace(block).sqrt().expand(half) for block in (users, positives)])
    return covariance / (deviation.unsqueeze(0) * deviation.unsqueeze(1))
