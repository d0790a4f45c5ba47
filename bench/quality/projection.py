"""Users' embeddings in two dimensions, as the paper's Fig. 3 shows them."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def project(users: Tensor) -> Tensor:
    """Scaled to length 1, then on their two principal axes.

    Differs from the paper, which takes t-SNE: distances on a PCA plot mean something, and nothing
    of it is random.

    Args:
        users: float [U, d], d >= 2; a row of zeros stays there.

    Returns:
        float32 [U, 2].
    """
    unit = normalize(users.double())
    centred = unit - unit.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)  # ascending; d x d, so exact is cheap
    return (centred @ axes[:, -2:].flip(1)).float()
