"""Every contender answers from the law of the reference: else comparing them is worth nothing."""

import numpy as np
import pytest
import torch

from bench.serving.checkpoint import pairs, publish
from bench.serving.contenders import ECHO, Case, everybody
from bench.serving.kernel import Kernel
from bench.serving.load import answer, in_process
from bench.serving.processes import free_port, started, wait_for
from bench.serving.report import summary, table
from core.checkpoint import unpack
from core.registry import Registry
from tests.reference.looped import eq11, looped_chain

ROWS, N, DIM, STEPS = 48, 200, 8, 10
OURS = ["turnpoint octet-stream", "turnpoint safetensors", "turnpoint json"]
PEERS = ["mosec binary", "litserve binary", "litserve json", "naive fastapi"]


@pytest.fixture(scope="module", params=["film", "moment"])
def case(request, tmp_path_factory) -> Case:
    registry = tmp_path_factory.mktemp("registry")
    model = publish(registry, request.param, DIM, STEPS)
    return Case(registry, model, ROWS, N, DIM)


def law(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each row's negatives, by the slow twins: two runs of the loop.

    The chain is affine in z, so it maps 0 to the mean and 1 to mean + deviation.
    """
    registry = Registry(case.registry)
    sampler, _ = unpack(registry.read(case.model, registry.live(case.model)))
    users, positives = torch.from_numpy(pairs(ROWS, DIM))
    ends = [
        looped_chain(
            sampler.denoiser, sampler.schedule, users / sampler.user_rms, torch.full_like(users, z)
        )
        for z in (0.0, 1.0)
    ]
    t_star = [round(eq11(score, STEPS)) for score in (users * positives).sum(-1).tolist()]
    mean, above = (
        torch.stack([end[t][row] for row, t in enumerate(t_star)]) * sampler.item_rms
        for end in ends
    )
    return mean.numpy(), (above - mean).numpy()


def is_drawn_from(negatives: np.ndarray, mean: np.ndarray, std: np.ndarray) -> bool:
    """Whether 76,800 standardised numbers look like N(0, 1), as a whole and in each of 384 cells.

    Five standard deviations each: a deviation that is 3 % off, or users in another order, fail.
    """
    z = (negatives - mean[:, None]) / std[:, None]
    count = z.size
    cells = np.abs(z.mean(1)).max() * np.sqrt(z.shape[1])
    return bool(
        abs(z.mean()) < 5 / np.sqrt(count)
        and abs(z.var() - 1) < 5 * np.sqrt(2 / count)
        and cells < 5
    )


def test_the_check_rejects_a_wrong_law(case):
    mean, std = law(case)
    z = np.random.default_rng(0).standard_normal((ROWS, N, DIM))
    right = mean[:, None] + std[:, None] * z
    assert is_drawn_from(right, mean, std)
    assert not is_drawn_from(right, mean, 1.03 * std)
    assert not is_drawn_from(right, mean[::-1], std)


@pytest.mark.parametrize("how", ["collapsed", "looped", "stopped"])
def test_in_process(case, how):
    kernel = Kernel(case.registry, case.model, how, torch.get_num_threads())
    found = kernel(*torch.from_numpy(pairs(ROWS, DIM)), N)
    assert is_drawn_from(found.numpy(), *law(case))


def test_the_law_alone(case):
    kernel = Kernel(case.registry, case.model, "coefficients", torch.get_num_threads())
    found = kernel(*torch.from_numpy(pairs(ROWS, DIM)), N)
    np.testing.assert_allclose(found[:, 0].numpy(), law(case)[0], atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_turnpoint(case, name):
    check_served(case, name)


@pytest.mark.parametrize("case", ["film"], indirect=True)
@pytest.mark.parametrize("name", PEERS)
def test_peer(case, name):
    check_served(case, name)


def check_served(case: Case, name: str) -> None:
    (contender,) = (one for one in everybody(case) if one.name == name)
    if contender.why_not:
        pytest.skip(contender.why_not)
    port = free_port()
    with started((*contender.command, "--port", port), port) as running:
        wait_for(running)
        negatives = answer(running, contender, case, pairs(ROWS, DIM))
        assert is_drawn_from(negatives, *law(case))
        assert running.memory() >= running.memory("VmRSS") > 0
        assert running.cpu_seconds() > 0
    assert running.process.returncode is not None
    assert running.memory() == 0


def test_a_process_measures_itself(case):
    command = ("bench.serving.kernel", "--registry", case.registry, "--model", case.model)
    with started((*command, "--rows", 16, "--n", 2)) as running:
        assert running.process.stdout.readline() == "ready\n"
        driven = in_process(running, 0.05)
        running.process.stdin.close()
        assert running.process.wait(30) == 0
    assert sum(driven.latencies) >= 0.05
    assert driven.figures(16, 2)["negatives/s"] > 0


def test_echo_answers_as_many_bytes(case):
    (echo,) = (one for one in everybody(case) if one.name == ECHO)
    port = free_port()
    with started((*echo.command, "--port", port), port) as running:
        wait_for(running)
        assert not answer(running, echo, case, pairs(ROWS, DIM)).any()


def test_ratios_are_paired_by_round():
    def rounds(*p50: float) -> list[dict[str, float]]:
        return [{"p50 ms": value} for value in p50]

    found = {
        "rounds": {
            "floor: kernel": rounds(1, 2, 4),
            "floor: echo": rounds(1, 2, 4),
            "turnpoint octet-stream": rounds(3, 6, 12),  # a machine that gets ever busier
            "naive fastapi": rounds(30, 60, 120),
        },
        "peak MiB": {"naive fastapi": 300.0},
    }
    told = {row["contender"]: row for row in summary(found)}
    assert told["naive fastapi"]["x Turnpoint"] == 10
    assert told["turnpoint octet-stream"]["x floor"] == 1.5
    assert told["floor: kernel + echo"]["p50 ms"] == 4
    assert [row["contender"] for row in summary(found)][-1] == "naive fastapi"


def test_table():
    assert table(["a", "b"], [["1", ""]]) == ["| a | b |", "|---|---|", "| 1 |  |"]
