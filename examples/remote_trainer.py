"""An ordinary PyTorch BPR loop that takes negatives from a Turnpoint service.

    make demo && make serve                       # in one terminal
    .venv/bin/python examples/remote_trainer.py   # in another

It trains the same matrix factorisation twice, with uniform negatives alone and with generated ones
beside them (ADAR Eq. 12), and prints Recall@20 of both. A served model knows the space of the
encoder that it was trained beside; `--start .turnpoint/embeddings.safetensors` starts there.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import embedding, softplus
from turnpoint_client import Client, Prefetcher


def read(path: Path | None) -> list[list[int]]:
    """One list of items a user: from `user item item ...` lines, or generated."""
    if path is not None:
        lines = (line.split() for line in path.read_text().splitlines())
        return [[int(item) - 1 for item in items] for _, *items in lines]
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(1600, 8, generator=generator).split([1000, 600])
    taste = users @ items.T - 2 * torch.rand(1000, 600, generator=generator).log().neg().log()
    return taste.topk(15).indices.tolist()


def split(histories: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Train pairs, and one test pair a user: an item drawn from the history."""
    generator = torch.Generator().manual_seed(1)
    held = [h[int(torch.randint(len(h), (1,), generator=generator))] for h in histories]
    train = [(u, i) for u, history in enumerate(histories) for i in history if i != held[u]]
    return torch.tensor(train), torch.tensor(list(enumerate(held)))


def recall(users: Tensor, items: Tensor, train: Tensor, test: Tensor) -> float:
    """Recall@20 over all items that are not in train, the mean over test pairs."""
    seen = torch.zeros(len(users), len(items), dtype=torch.bool)
    seen[train[:, 0], train[:, 1]] = True
    hits = 0
    for u, i in (pairs.unbind(1) for pairs in test.split(2048)):
        scores = (users[u] @ items.T).masked_fill(seen[u], -torch.inf)
        hits += (scores.topk(20).indices == i.unsqueeze(1)).sum().item()
    return hits / len(test)


def train_bpr(args, train, test, dim: int, client: Client | None) -> float:
    """Recall@20 after `args.epochs`; with a client, its negatives join the loss."""
    generator = torch.Generator().manual_seed(2)
    sizes = [int(train[:, 0].max()) + 1, int(torch.cat([train, test])[:, 1].max()) + 1]
    tables = [0.1 * torch.randn(size, dim, generator=generator) for size in sizes]
    if args.start:
        tables = [load_file(args.start)[name] for name in ("users", "items")]
    users, items = (torch.nn.Parameter(table) for table in tables)
    optimizer = torch.optim.Adam([users, items], lr=5e-3)

    def batches():  # asked ahead: negatives follow from embeddings of two steps before
        for rows in torch.randperm(len(train), generator=generator).split(2048):
            u, i = train[rows].unbind(1)
            yield (u, i), users[u].detach(), items[i].detach()

    for _ in range(args.epochs):
        stream = Prefetcher(client, batches(), transition=args.transition) if client else batches()
        for (u, i), answer, *_ in stream:
            j = torch.randint(len(items), i.shape, generator=generator)
            e_u, e_i, e_j = embedding(u, users), embedding(i, items), embedding(j, items)
            margin = (e_u * (e_i - e_j)).sum(-1)
            if client is not None:
                margin = margin - args.weight * (e_u * answer.negatives[:, 0]).sum(-1)
            penalty = (e_u.square() + e_i.square() + e_j.square()).sum(-1).mean()
            optimizer.zero_grad()
            (softplus(-margin).mean() + 1e-3 * penalty).backward()
            optimizer.step()
    return recall(users.detach(), items.detach(), train, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    parser.add_argument("--data", type=Path, help="`user item item ...` lines; none: generated")
    parser.add_argument("--start", type=Path, help="what `turnpoint train --embeddings` wrote")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--transition", help="rule for t*; default: the checkpoint's")
    parser.add_argument("--weight", type=float, default=0.1, help="lambda of Eq. 12")
    args = parser.parse_args()
    started = load_file(args.start) if args.start else None
    train, test = (started["train"], started["test"]) if started else split(read(args.data))
    with Client(args.url) as client:
        dim = client.models()[0].dim
        print(f"uniform negatives    recall@20 {train_bpr(args, train, test, dim, None):.4f}")
        print(f"with the service     recall@20 {train_bpr(args, train, test, dim, client):.4f}")


if __name__ == "__main__":
    main()
