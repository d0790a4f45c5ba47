"""Real torchrun workers over gloo: two with half a batch each are one with the whole of it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from core.errors import ConfigError
from core.registry import Registry
from tests.trainer.several_workers import (
    ENCODERS,
    METHODS,
    STEPS,
    embeddings,
    fresh_diffusion,
    one_epoch,
)
from tests.trainer.test_cotrain import CONFIG, encoder_of, small_data
from trainer import distributed
from trainer.batches import Batch, make_batches
from trainer.cotrain import new_run
from trainer.sequences import Sequences
from trainer.shards import own_randomness, part_of

ROOT = Path(__file__).parents[2]
WORKERS = 2
pytestmark = pytest.mark.timeout(400)  # two processes more on a busy machine
Weights = dict[str, Tensor]


def torchrun(*arguments: object, cwd: Path) -> str:
    """Both workers to their end; what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    path = f"{ROOT}:{ROOT / 'client'}"
    done = subprocess.run(
        [*command, "--nproc-per-node", str(WORKERS), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[Weights]]:
    """Scenario -> what each worker ended with."""
    folder = tmp_path_factory.mktemp("workers")
    torchrun("-m", "tests.trainer.several_workers", folder, cwd=ROOT)
    names = {path.name.removesuffix("-0") for path in folder.glob("*-0")}
    assert len(list(folder.glob("*/registry/default/*/manifest.json"))) == 3  # a run, by one worker
    return {
        name: [safetensors.torch.load_file(folder / f"{name}-{rank}") for rank in range(WORKERS)]
        for name in names
    }


def alone() -> Weights:
    """The same steps in one process on the whole batch, each half with its worker's noise."""
    diffusion, parts = fresh_diffusion(), [slice(rank, None, WORKERS) for rank in range(WORKERS)]
    sampler, (users, positives, negatives) = diffusion.sampler, embeddings()
    seed = int(torch.randint(2**62, (), generator=diffusion.generator))
    noises = [torch.Generator().manual_seed(seed + rank) for rank in range(WORKERS)]
    for _ in range(STEPS):
        sampler.observe(users, positives, negatives)
        diffusion.optimizer.zero_grad()
        for part, noise in zip(parts, noises, strict=True):
            loss = sampler.loss(users[part], positives[part], noise).total
            (loss * len(users[part]) / len(users)).backward()
        diffusion.optimizer.step()
    return sampler.state_dict()


def distance(a: Weights, b: Weights) -> float:
    """The largest difference, relative to the largest weight."""
    assert a.keys() == b.keys()
    names = [name for name in a if a[name].is_floating_point()]
    scale = max(float(b[name].abs().max()) for name in names)
    return max(float((a[name] - b[name]).abs().max()) for name in names) / scale


def test_the_diffusion_step_of_two_is_that_of_one(found):
    """Within rounding of float64; a missing average or a wrong weight is far outside of it."""
    reference = alone()
    assert [distance(one, reference) < 1e-12 for one in found["averaged"]] == [True] * WORKERS
    assert min(distance(one, reference) for one in found["apart"]) > 1e-3
    assert min(distance(one, reference) for one in found["unweighted"]) > 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "averaged",
        "begun",
        "uninterrupted",
        *(f"epoch {e}" for e in ENCODERS),
        *(f"method {m}" for m in METHODS),
    ],
)
def test_all_workers_end_with_the_same_bits(found, name):
    first, second = found[name]
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(tensor.isfinite().all() for tensor in first.values())


def test_without_averaging_they_do_not(found):
    assert distance(*found["apart"]) > 1e-3


def test_all_begin_with_what_the_main_worker_drew(found):
    mine, others = found["drawn"]
    assert distance(mine, others) > 1e-3
    assert [distance(one, mine) for one in found["begun"]] == [0, 0]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_epoch_of_two_is_that_of_one(found, encoder):
    """In float32, Adam included; half the batch is something else."""
    reference = one_epoch(encoder)
    other = one_epoch(encoder, batch_size=25)
    assert distance(found[f"epoch {encoder}"][0], reference) < 1e-5
    assert distance(other, reference) > 1e-2


def test_what_was_stopped_goes_on_as_if_nothing_had_been(found):
    for uninterrupted, resumed in zip(found["uninterrupted"], found["resumed"], strict=True):
        assert distance(resumed, uninterrupted) == 0


def test_the_command_runs_under_torchrun(tmp_path):
    lines = [f"{user},{item}" for user, item in small_data().train.tolist()]
    (tmp_path / "pairs.csv").write_text("\n".join(["user,item", *lines]))
    arguments = "--encoder mf --method adar --dim 8 --num-steps 5 --epochs 2 --eval-every 1"
    arguments += " --batch-size 4096 --data pairs.csv --registry registry --report report.json"
    told = torchrun("-m", "cli.main", "train", *arguments.split(), cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert told.count("report: ") == told.count("epoch 2/2") == 1
    assert report["versions"]["published"] == Registry(tmp_path / "registry").versions("default")
    assert report["config"]["batch_size"] == 4096
    assert report["transition"] is not None


def test_alone_everything_is_as_it_was():
    run = new_run(encoder_of(small_data(), CONFIG), CONFIG)
    rows = torch.randn(3, 4)
    with distributed.joined("cpu") as device:
        assert (device, distributed.world(), distributed.is_main()) == ("cpu", 1, True)
        before = {name: tensor.clone() for name, tensor in run.encoder.state_dict().items()}
        distributed.begin_alike(run.encoder)
        assert all(torch.equal(run.encoder.state_dict()[name], before[name]) for name in before)
        assert torch.equal(distributed.gathered(rows)[0], rows)
        assert distributed.weight(7) == 1.0
        assert distributed.from_main(lambda: object) is object


@pytest.mark.parametrize("encoder", ["mf", "sasrec"])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_are_the_batch(encoder, parts):
    """Every row once, weights that make their mean the mean, sequences kept whole."""
    generator = torch.Generator().manual_seed(0)
    batches = make_batches(
        encoder_of(small_data(), replace(CONFIG, encoder=encoder)), small_data(), 50
    )
    for batch in batches.epoch(generator):
        divided = [part_of(batch, number, parts) for number in range(parts)]
        values = torch.rand(80, generator=generator)
        means = [part.weight * values[part.items].mean() for part in divided]
        assert torch.isclose(sum(means) / parts, values[batch.items].mean())
        if _units(batch) < parts:
            assert all(part is batch for part in divided)
            continue
        together = torch.cat([torch.stack([part.users, part.items]) for part in divided], 1)
        whole = torch.stack([batch.users, batch.items])
        assert sorted(map(tuple, together.T.tolist())) == sorted(map(tuple, whole.T.tolist()))
        if isinstance(batch.contexts, Sequences):
            for part in divided:
                owners = part.contexts.owners
                assert len(owners) == len(part.items) == int(part.contexts.lengths.sum())
                assert all(len(part.users[owners == one].unique()) == 1 for one in owners.unique())


def test_randomness_is_each_ones_own_and_then_common(monkeypatch):
    drawn, after = [], []
    for rank in range(2):
        monkeypatch.setattr("trainer.shards.rank", lambda rank=rank: rank)
        generator = torch.Generator().manual_seed(4)
        with own_randomness([generator]):
            drawn.append(torch.rand(rank + 3, generator=generator)[:3])
        after.append(torch.rand(3, generator=generator))
    assert not torch.equal(*drawn)
    assert torch.equal(*after)


def test_one_device_for_several_workers_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="say cuda"), distributed.joined("cuda:0"):
        pass
    with pytest.raises(ConfigError, match="has no device"), distributed.joined("cuda"):
        pass


def _units(batch: Batch) -> int:
    contexts = batch.contexts
    return len(contexts.lengths) if isinstance(contexts, Sequences) else len(contexts)
