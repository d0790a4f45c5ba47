"""A trainer whose hard negatives a service picks among the items that the trainer publishes.

    .venv/bin/python examples/hard_items.py                          # generated data, half a minute
    .venv/bin/python examples/hard_items.py --data beauty.txt --epochs 60

Matrix factorisation in plain PyTorch, with uniform negatives and with the service's. Every
`--refresh` steps it publishes its item table as a model of method `catalogue`; `turnpoint serve`,
the one process beside it, swaps it in. A batch asks for n hard items a row and looks them up in the
trainer's own table, so that the gradient reaches them. What a user has taken is left out here: the
service does not know it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from online_loop import free_port, process, wait_for_a_model
from remote_trainer import read, recall, split
from torch import Tensor
from torch.nn.functional import embedding, softplus
from turnpoint_client import Client, ItemPrefetcher

from core.checkpoint import pack
from core.registry import Registry
from core.samplers import Catalogue

MODEL, DIM, EVERY = "items", 64, 5
SHARE = 380  # 32 candidates of Beauty's 12,101 items are hard enough, and not too hard


class Trainer:
    """Users, items, and who has taken what."""

    def __init__(self, train: Tensor, sizes: list[int], batch_size: int, seed: int) -> None:
        torch.manual_seed(seed)
        tables = [torch.nn.init.xavier_uniform_(torch.empty(size, DIM)) for size in sizes]
        self.users, self.items = (torch.nn.Parameter(table) for table in tables)
        self.train, self.batch = train, batch_size
        self.taken = torch.zeros(sizes, dtype=torch.bool)
        self.taken[train[:, 0], train[:, 1]] = True

    def publish(self, registry: Registry, candidates: int) -> None:
        """The items as they are now become the live version; the one before is kept."""
        registry.publish(MODEL, pack(Catalogue.of(self.items, candidates=candidates)))
        registry.prune(MODEL, keep=2)

    def batches(self):
        """Asked ahead: negatives follow from embeddings of a step before."""
        for rows in torch.randperm(len(self.train)).split(self.batch):
            u, i = self.train[rows].unbind(1)
            yield (u, i), self.users[u].detach(), self.items[i].detach()

    def loss(self, u: Tensor, i: Tensor, hard: Tensor | None, l2: float) -> Tensor:
        """BPR over hard items [B, n], or over a uniform one, which is penalised anyway."""
        j = torch.randint(len(self.items), i.shape)
        negatives = j.unsqueeze(1) if hard is None else hard
        free = ~self.taken[u.unsqueeze(1), negatives]
        e_u, e_i = embedding(u, self.users), embedding(i, self.items)
        s_ui = (e_u * e_i).sum(-1, keepdim=True)
        s_un = (embedding(negatives, self.items) @ e_u.unsqueeze(2)).squeeze(2)
        penalty = sum(e.square().sum() for e in (e_u, e_i, embedding(j, self.items)))
        return (free * softplus(s_un - s_ui)).mean() + l2 / 2 * penalty / len(u)


def run(args, pairs: dict[str, Tensor], l2: float, client: Client | None, registry: Registry):
    """(valid, test) Recall@20 of the epoch that is best on valid; test is read once."""
    train, valid, test = pairs.values()
    sizes = (torch.cat([train, valid, test]).max(0).values + 1).tolist()
    trainer = Trainer(train, sizes, args.batch_size, args.seed)
    optimizer = torch.optim.Adam([trainer.users, trainer.items], lr=3e-3)
    best, chosen, versions, steps = 0.0, [], set(), 0
    candidates = args.candidates or max(2, round(len(trainer.items) / SHARE))
    if client is not None:
        trainer.publish(registry, candidates)
        wait_for_a_model(client, Path(registry.address))
    for epoch in range(1, args.epochs + 1):
        stream = trainer.batches()
        if client is not None:
            stream = ItemPrefetcher(client, stream, n=args.n, depth=1)
        for (u, i), answer, *_ in stream:
            versions.add(answer.version if client else None)
            optimizer.zero_grad()
            trainer.loss(u, i, answer.items if client else None, l2).backward()
            optimizer.step()
            steps += 1
            if client is not None and steps % args.refresh == 0:
                trainer.publish(registry, candidates)
        if epoch % EVERY == 0 or epoch == args.epochs:
            tables = [table.detach().clone() for table in (trainer.users, trainer.items)]
            found = recall(*tables, train, valid)
            print(f"  epoch {epoch:3}: valid recall@20 {found:.4f}", flush=True)
            best, chosen = max((best, chosen), (found, tables), key=lambda one: one[0])
    if client is not None:
        print(f"  {len(versions)} versions of the items answered")
    return best, recall(*chosen, torch.cat([train, valid]), test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="`user item item ...` lines; none: generated")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--refresh", type=int, default=20, help="steps between publications")
    parser.add_argument("--n", type=int, default=4, help="hard items a row")
    parser.add_argument(
        "--candidates", type=int, help="M that each is the hardest of; default: a 380th of all"
    )
    parser.add_argument("--l2", type=float, default=0.03, help="of uniform negatives")
    parser.add_argument("--hard-l2", type=float, default=0.1, help="of hard ones, which want more")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rest, test = split(read(args.data))
    held = torch.rand(len(rest), generator=torch.Generator().manual_seed(3)) < 0.05
    pairs = {"train": rest[~held], "valid": rest[held], "test": test}
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        registry = Registry(folder / "registry")
        (folder / "registry").mkdir()
        serve = (sys.executable, "-m", "cli.main", "serve", "--registry", registry.address)
        soon = {"TURNPOINT_REGISTRY__POLL_SECONDS": "0.2"}
        print("uniform negatives")
        uniform = run(args, pairs, args.l2, None, registry)
        print("hard items from the service")
        with (
            process(folder, "serve", *serve, "--port", port, **soon),
            Client(f"http://127.0.0.1:{port}") as client,
        ):
            hard = run(args, pairs, args.hard_l2, client, registry)
    print(f"recall@20 (valid, test): uniform {uniform[0]:.4f}, {uniform[1]:.4f}; "
          f"hard items {hard[0]:.4f}, {hard[1]:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
