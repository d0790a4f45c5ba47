"""A published model and a running service, for every test that needs one."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import uvicorn
from fastapi import FastAPI
from torch import Tensor

from core.checkpoint import pack, unpack
from core.registry import Registry
from core.samplers import Query
from core.samplers.adar import ADAR, ADARConfig
from service.app import create_app
from service.server import server_config
from service.settings import Settings, load_settings

DIM = 16
THREADS = 2  # of the service's model thread
OCTET = {"Content-Type": "application/octet-stream"}
SAFE = {"Content-Type": "application/x-safetensors"}
JSON = {"Content-Type": "application/json"}


def make_sampler(seed: int = 0, **config: Any) -> ADAR:
    """An ADAR whose law depends on the user: its last layer is random and its scales are not 1."""
    torch.manual_seed(seed)
    sampler = ADAR(ADARConfig(**{"dim": DIM, "num_steps": 50, **config}))
    torch.nn.init.normal_(sampler.denoiser.out.weight, std=0.05)
    torch.nn.init.normal_(sampler.denoiser.out.bias, std=0.05)
    for _ in range(3):
        users, positives, negatives = 0.7 * torch.randn(3, 256, sampler.dim)
        sampler.observe(users, positives + 0.1 * users, negatives)
    return sampler


def publish(address: str | Path, seed: int = 0, model: str = "demo", **config: Any) -> str:
    """Publish such a sampler; its version."""
    return Registry(address).publish(model, pack(make_sampler(seed, **config)))


def pairs(rows: int, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """users and positives, (B, d)."""
    generator = torch.Generator().manual_seed(seed)
    users, positives = 0.6 * torch.randn(2, rows, dim, generator=generator)
    return users, positives


def octet(users: Tensor, positives: Tensor) -> bytes:
    return users.numpy().tobytes() + positives.numpy().tobytes()


def safe(**tensors: Tensor) -> bytes:
    return safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()})


def as_json(**fields: Any) -> bytes:
    plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in fields.items()}
    return json.dumps(plain).encode()


def floats(content: bytes, *shape: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(content), dtype="<f4").reshape(shape))


def expected(
    address: str | Path,
    version: str,
    users: Tensor,
    positives: Tensor,
    *,
    seed: int,
    n: int = 1,
    model: str = "demo",
    rule: str | None = None,
) -> Tensor:
    """What a version answers to a request, computed here with core alone."""
    sampler, _ = unpack(Registry(address).read(model, version))
    generator = torch.Generator().manual_seed(seed)
    query = Query(users, positives, sampler.transition.override(rule))
    return sampler.law(query, generator).draw(n, generator)


def settings_for(address: str | Path, **groups: dict[str, Any]) -> Settings:
    """Settings of a test: quick polls, any free port."""
    server = {"port": 0, "torch_threads": THREADS, "drain_seconds": 10} | groups.pop("server", {})
    registry = {"address": str(address), "poll_seconds": 0.05} | groups.pop("registry", {})
    return load_settings({"server": server, "registry": registry, **groups})


@dataclass(frozen=True)
class Live:
    """A service that listens on `url`."""

    url: str
    app: FastAPI
    address: str

    @property
    def host(self) -> tuple[str, int]:
        """For a raw socket."""
        name, _, port = self.url.partition("//")[2].partition(":")
        return name, int(port)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Live]:
    """The real application under a real server in a thread, until the block ends."""
    app = create_app(settings)
    listening = socket.create_server(("127.0.0.1", 0))
    config = server_config(app, settings.server)
    ready = threading.Event()

    class Told(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Told(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert ready.wait(30), "the service did not start"
        port = listening.getsockname()[1]
        scheme = "https" if config.is_ssl else "http"
        yield Live(f"{scheme}://127.0.0.1:{port}", app, settings.registry.address)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive(), "the service did not stop"
