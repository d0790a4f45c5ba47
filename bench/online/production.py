"""The production trainer: Algorithm 1's encoder half, with negatives from a service."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from turnpoint_client import Client

from core.losses import augmented_bpr
from trainer.batches import make_batches
from trainer.config import NO_METHOD, TrainConfig
from trainer.cotrain import new_run
from trainer.data import Interactions
from trainer.evaluate import evaluate
from trainer.pipeline import encoder_of, picker_of

Rows = tuple[Tensor, Tensor]


class Production:
    """An encoder that asks for its negatives, step by step, as `cotrain` makes its own.

    Attributes:
        turn: (d, d), what the service is sent is multiplied by it, and its answers by the inverse:
            another space for whoever follows, the same training here.
        steps: so far.
    """

    def __init__(self, data: Interactions, config: TrainConfig, client: Client) -> None:
        self.data, self.config, self.client = data, config, client
        self.encoder = encoder_of(config, data)
        self.run = new_run(self.encoder, replace(config, method=NO_METHOD))
        self.picker = picker_of(config, data)
        self.batches = make_batches(self.encoder, data, config.batch_size)
        self.turn = torch.eye(config.dim)
        self.steps = 0

    def epoch(self, on_step: Callable[[Tensor, Tensor], None]) -> None:
        """One pass; `on_step` is given what was sent."""
        config, encoder = self.config, self.encoder
        encoder.train()
        for batch in self.batches.epoch(self.run.generator):
            encoded = encoder.encode(batch.contexts)
            e_u, e_i = encoded.users, encoded.items(batch.items)
            e_j, negatives = self.picker.pick(batch, encoded, self.run.generator)
            s_ui, s_uj = (e_u * e_i).sum(-1), (e_u * e_j).sum(-1)
            sent = (e_u.detach() @ self.turn, e_i.detach() @ self.turn)
            answer = self.client.negatives(*sent, n=1, returns="negatives")
            e_d = answer.negatives[:, 0] @ torch.linalg.inv(self.turn)
            loss = augmented_bpr(s_ui, s_uj, (e_u * e_d).sum(-1), config.weight)
            penalty = encoder.penalty(batch.users, torch.cat([batch.items, negatives]))
            self.run.optimizer.zero_grad()
            (loss + config.l2 * penalty).backward()
            self.run.optimizer.step()
            self.steps += 1
            on_step(*sent)

    @torch.no_grad()
    def rows(self, count: int | None = None) -> Rows:
        """(user, positive) embeddings as the service would be sent them now; None: an epoch's."""
        found: list[Rows] = []
        self.encoder.train()
        for batch in self.batches.epoch(torch.Generator().manual_seed(1)):
            encoded = self.encoder.encode(batch.contexts)
            found.append((encoded.users @ self.turn, encoded.items(batch.items) @ self.turn))
            if count is not None and sum(len(users) for users, _ in found) >= count:
                break
        users, positives = (torch.cat(part)[:count] for part in zip(*found, strict=True))
        return users, positives

    def judged(self) -> dict[str, float]:
        """Test metrics now."""
        self.encoder.eval()
        return evaluate(*self.encoder.tables("test"), self.data, "test")
