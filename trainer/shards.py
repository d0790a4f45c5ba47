"""Batches divided among the workers of `trainer.distributed`, and randomness of each one's own.

Two workers with B/2 rows each do what one does with B: every worker draws the same batches and
takes its part. What is drawn while it works on that part (negatives, noise, dropout) must differ
among workers, and all must meet again for the next epoch's order: so for an epoch every generator
is re-seeded by worker, and goes on afterwards from one common point, which is what is saved.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from trainer.batches import Batch, Batches
from trainer.distributed import rank, world
from trainer.run import Run
from trainer.sequences import Sequences


def divided(batches: Batches, run: Run) -> Batches:
    """This worker's part of the batches; all of them where there is no other."""
    return batches if world() == 1 else Shards(batches, run)


class Shards:
    """A part of every batch of `whole`.

    Args:
        whole: the batches of all workers together.
        run: whose generators are each worker's own during an epoch, with torch's.
    """

    def __init__(self, whole: Batches, run: Run) -> None:
        self._whole = whole
        self._generators = [run.generator, _default(run.generator.device)]
        if run.diffusion is not None:
            self._generators.append(run.diffusion.generator)

    def __len__(self) -> int:
        return len(self._whole)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        common = generator.clone_state()
        with own_randomness(self._generators):
            for batch in self._whole.epoch(common):
                yield part_of(batch, rank(), world())


def part_of(batch: Batch, number: int, parts: int) -> Batch:
    """Every `parts`-th row, or sequence with all its rows, from `number` on.

    Of a batch too small to be divided everybody takes everything: the mean is the same.
    """
    contexts = batch.contexts
    units = len(contexts.lengths) if isinstance(contexts, Sequences) else len(contexts)
    if units < parts:
        return batch
    if not isinstance(contexts, Sequences):
        rows = slice(number, None, parts)
        part = Batch(contexts[rows], batch.users[rows], batch.items[rows])
    else:
        taken = torch.zeros(units, dtype=torch.bool, device=contexts.lengths.device)
        taken[number::parts] = True
        at = taken[contexts.owners].nonzero().squeeze(1)
        lengths = contexts.lengths[taken]
        sequences = Sequences(contexts.items[at], lengths, contexts.longest)
        part = Batch(sequences, batch.users[at], batch.items[at])
    return replace(part, weight=parts * len(part.items) / len(batch.items))


@contextmanager
def own_randomness(generators: Iterable[torch.Generator]) -> Iterator[None]:
    """While it lasts each worker draws numbers of its own; then all are at one point again."""
    common = []
    for generator in generators:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        common.append((generator, generator.get_state()))
        generator.manual_seed(seed + rank())
    try:
        yield
    finally:
        for generator, state in common:
            generator.set_state(state)


def _default(device: torch.device) -> torch.Generator:
    """The generator that dropout draws from."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
