"""What a sampler could know of some embeddings: trained on them alone, until it gets no better."""

import torch
from torch import Tensor
from torch.optim import Adam

from core.samplers import ADAR, ADARConfig
from trainer.following.gate import held_out_losses

CHECK_STEPS = 100
PATIENCE = 5  # checks without a better loss
BATCH = 2048


def converged(
    config: ADARConfig, users: Tensor, positives: Tensor, held_out: int, start: ADAR | None
) -> tuple[ADAR, float]:
    """The best sampler met and its loss on the first `held_out` rows, which are not learnt from.

    Args:
        config: of a new one.
        users: (n, d) rows of now.
        positives: likewise.
        held_out: rows.
        start: whose weights it begins with; a new one where there is none.
    """
    torch.manual_seed(0)
    sampler = ADAR(config)
    if start is not None:
        sampler.load_state_dict(start.state_dict())
    sampler.batches.zero_()
    optimizer = Adam(sampler.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    judged = users[:held_out], positives[:held_out]
    users, positives = users[held_out:], positives[held_out:]
    best, state, since = float("inf"), sampler.state_dict(), 0
    while since < PATIENCE:
        for _ in range(CHECK_STEPS):
            rows = torch.randint(len(users), (BATCH,), generator=generator)
            sampler.observe(users[rows], positives[rows], positives[rows.roll(1)])
            loss = sampler.loss(users[rows], positives[rows], generator).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found, since = float(held_out_losses(sampler, *judged).mean()), since + 1
        if found < best:
            since = 0 if found < 0.999 * best else since
            best, state = found, {k: v.clone() for k, v in sampler.state_dict().items()}
    sampler.load_state_dict(state)
    return sampler, best
