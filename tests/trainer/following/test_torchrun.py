"""Two workers of torchrun follow one stream as one worker does."""

import json

import pytest
import redis
import safetensors
import torch

from core.checkpoint import unpack
from core.registry import Registry
from tests.service.redis_server import redis_server  # noqa: F401
from tests.trainer.following.processes import SMALL, following
from tests.trainer.following.world import MODEL, World
from tests.trainer.test_distributed import ROOT, torchrun
from trainer.following.gate import held_out_losses
from trainer.following.state import STATE_FILE

ENTRIES, ROWS = 50, 64


def counts(folder) -> dict[str, float]:
    with safetensors.safe_open(folder / MODEL / ".follow" / STATE_FILE, framework="pt") as state:
        return json.loads(state.metadata()["record"])["learner"]["counts"]


@pytest.mark.timeout(400)  # four imports of torch and a collective a step, on a busy machine
def test_two_workers_are_one(redis_server, tmp_path):  # noqa: F811
    """The same rows, the same steps; noise differs as that of two seeds does."""
    for database in (0, 1):
        client = redis.Redis(port=redis_server.port, db=database, protocol=2)
        World().send(client, ENTRIES, ROWS)
        client.close()
    ending = (*SMALL, "--stop-when-idle", "1")
    with following(tmp_path, "alone", "--redis", redis_server.url, *ending) as alone:
        assert alone.process.wait(60) == 0
    url = redis_server.url.removesuffix("/0") + "/1"
    command = ("-m", "cli.main", "follow", "--registry", tmp_path / "two", "--model", MODEL)
    told = torchrun(*command, "--redis", url, *ending, cwd=ROOT)
    assert told.count("begins a new model") == 1  # one of them talks
    assert counts(tmp_path / "two") == counts(tmp_path / "registry")
    assert counts(tmp_path / "two")["rows"] == ENTRIES * ROWS
    rows = World(0).rows(4096)
    losses = []
    for folder in ("registry", "two"):
        registry = Registry(tmp_path / folder)
        sampler, _ = unpack(registry.read(MODEL, registry.live(MODEL)))
        losses.append(float(held_out_losses(sampler, *rows).mean()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    untrained = type(sampler)(sampler.config)
    untrained.item_rms.copy_(sampler.item_rms)
    untrained.user_rms.copy_(sampler.user_rms)
    with torch.no_grad():  # the negative control: learning nothing is seen
        assert float(held_out_losses(untrained, *rows).mean()) > 1.2 * losses[0]
