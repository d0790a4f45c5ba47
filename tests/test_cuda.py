"""The CUDA path against the CPU's, on machines that have one."""

from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

from core.checkpoint import pack, unpack, warm_up
from core.errors import NonFiniteError
from core.noise import Noise
from core.registry import Registry
from core.samplers import Query
from core.transition import RULES, Transition
from service.codecs import Inputs
from service.compute import compute
from service.params import Params
from service.server import FAILED
from service.staging import CUDAMemory, HostMemory
from tests.core.samplers import test_cnsdiff, test_dmns, test_gdnsm
from tests.core.samplers.test_adar import make_query, make_sampler
from tests.service import live
from tests.service.faulty import UNLUCKY
from tests.service.jobs import free
from tests.service.live import OCTET, floats, octet, pairs, publish, running, settings_for
from tests.service.test_exit import ask
from tests.service.test_server import process
from tests.trainer.test_cotrain import CONFIG, data, run_of  # noqa: F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("rule", [r for r in RULES if r != "random"])
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_the_law_is_that_of_the_cpu(rule, denoiser):
    cpu, _ = unpack(pack(make_sampler(denoiser=denoiser)))
    gpu, _ = unpack(pack(make_sampler(denoiser=denoiser)), "cuda")
    warm_up(gpu)
    query = make_query(64, rule)
    there = Query(query.users.cuda(), query.positives.cuda(), query.transition)
    on_cpu = cpu.law(query, torch.Generator().manual_seed(0))
    on_gpu = gpu.law(there, torch.Generator("cuda").manual_seed(0))
    same = on_cpu.transition == on_gpu.transition.cpu()
    assert same.double().mean() > 0.95  # a score at the edge of a step may round the other way
    assert torch.allclose(on_cpu.mean[same], on_gpu.mean.cpu()[same], rtol=1e-3, atol=1e-4)
    assert torch.allclose(on_cpu.std[same], on_gpu.std.cpu()[same], rtol=1e-3, atol=1e-4)


class Silence(Noise):
    """Zeros, on whichever device: two machines' generators draw differently."""

    def normal(self, *shape, dtype=torch.float32):
        ((generator, rows),) = self._requests
        return torch.zeros(rows, *shape, dtype=dtype, device=generator.device)


@pytest.mark.parametrize("made", [test_dmns, test_cnsdiff, test_gdnsm])
def test_what_is_generated_is_that_of_the_cpu(made):
    answers = {}
    for device in ("cpu", "cuda"):
        sampler, _ = unpack(pack(made.make_sampler(dtype=torch.float32)), device)
        warm_up(sampler)
        query = made.make_query(64, torch.float32)
        there = replace(
            query,
            users=query.users.to(device),
            positives=query.positives.to(device),
            item_features={name: t.to(device) for name, t in query.item_features.items()},
        )
        answers[device] = sampler.generate(there, 6, Silence([torch.Generator(device)], [64]))
    on_cpu, on_gpu = answers["cpu"], answers["cuda"]
    off = (on_cpu.negatives - on_gpu.negatives.cpu()).norm(dim=-1)
    near = off <= 1e-3 * on_cpu.negatives.norm(dim=-1) + 1e-4
    assert near.double().mean() > 0.95  # two candidates of one score may change places
    if on_cpu.weights is not None:
        assert torch.equal(on_cpu.weights, on_gpu.weights.cpu())


def test_random_steps_and_draws_come_from_the_requests_generator():
    gpu, _ = unpack(pack(make_sampler()), "cuda")
    query = make_query(64)
    there = Query(query.users.cuda(), query.positives.cuda(), Transition("random"))
    drawn = []
    for _ in range(2):
        generator = torch.Generator("cuda").manual_seed(3)
        drawn.append(gpu.law(there, generator).draw(4, generator))
    assert torch.equal(*drawn)


def test_a_service_on_the_gpu_answers(tmp_path):
    version = publish(tmp_path)
    users, positives = pairs(300)
    settings = settings_for(tmp_path, server={"device": "cuda"})
    with running(settings) as live, httpx.Client(base_url=live.url) as client:
        asked = {
            "url": "/negatives?n=64&seed=1&transition=fixed&hardness=0.9",
            "content": octet(users, positives),
            "headers": OCTET,
        }
        first, second = (client.post(**asked) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.headers["X-Model-Version"] == version
    assert first.content == second.content
    got = floats(first.content, 300, 64, users.shape[1])
    sampler, _ = unpack(Registry(tmp_path).read("demo", version))
    law = sampler.law(Query(users, positives, Transition("fixed", hardness=0.9)), torch.Generator())
    # 64 draws a row: the standard error of a row's mean is an eighth of its deviation.
    off = (got.mean(1) - law.mean) / (law.std / 8)
    assert off.abs().max() < 6
    assert off.square().mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("encoder", ["lightgcn", "ngcf", "gru4rec", "cl4srec"])
def test_training_runs_there_and_resumes(data, tmp_path, encoder):  # noqa: F811
    config = replace(CONFIG, device="cuda", encoder=encoder, dropout=0.3, negatives="dns")
    run = run_of(data, config)
    run.save(tmp_path, config.as_dict())
    assert run.load(tmp_path, config.as_dict())
    users, items = run.encoder.tables()
    assert users.device.type == "cuda"
    assert np.isfinite(items.cpu().numpy()).all()


def staged(jobs):
    """The answers of a batch by way of pinned memory."""
    return compute(jobs, CUDAMemory(torch.device("cuda"))).land()


def on_gpu(**config):
    sampler, _ = unpack(pack(live.make_sampler(**config)), "cuda")
    return sampler


def test_rows_go_up_and_down_unchanged():
    memory = CUDAMemory(torch.device("cuda"))
    for rows in (1, 1000, 3):  # blocks are used again
        full = torch.randn(rows, 5)
        parts = [full, full.half(), full[:1].bfloat16()]
        there = memory.upload(parts)
        (twice, back), arrival = memory.download([2 * there, there])
        arrival.synchronize()
        assert arrival.query()
        plain = HostMemory().upload(parts)
        assert torch.equal(back, plain)
        assert torch.equal(twice, 2 * plain)


def test_many_batches_under_way_at_once_keep_their_rows():
    memory = CUDAMemory(torch.device("cuda"))
    sent = [torch.full((512, 64), float(number)) for number in range(50)]
    flights = [memory.download([memory.upload([rows]) + 1]) for rows in sent]
    for rows, ((back,), arrival) in zip(sent, flights, strict=True):
        arrival.synchronize()
        assert torch.equal(back, rows + 1)


@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_a_merged_batch_is_its_requests_alone_and_has_the_cpus_law(denoiser):
    sampler, wanted = on_gpu(denoiser=denoiser), ("negatives", "transition", "distribution")
    sizes = ((1, 3), (60, 1), (700, 8))
    told = {"sampler": sampler, "wanted": wanted, "rule": Transition("fixed")}
    jobs = [free(b, seed=b, data=b, params=Params(n=n), **told) for b, n in sizes]
    near = {"rtol": 1e-3, "atol": 1e-4}
    for one, merged in zip(jobs, staged(jobs), strict=True):
        (alone,) = staged([one])
        own = replace(one, sampler=live.make_sampler(denoiser=denoiser))
        (cpu,) = compute([own], HostMemory()).land()
        torch.testing.assert_close(merged["negatives"], alone["negatives"], **near)
        for name in ("transition", "mean", "std"):
            torch.testing.assert_close(merged[name], cpu[name], **near)


@pytest.mark.parametrize("denoiser", ["film", "moment"])
@pytest.mark.parametrize("rule", RULES)
def test_a_bad_row_is_refused_after_the_fact_and_harms_nothing(denoiser, rule):
    users, positives = pairs(8)
    users[3, 1] = torch.nan
    told = {"sampler": on_gpu(denoiser=denoiser), "rule": Transition(rule)}
    poor, good = free(8, inputs=Inputs(users, positives), **told), free(8, **told)
    (refused,) = staged([poor])
    assert isinstance(refused, NonFiniteError)
    assert "users row 3 holds nan in column 1" in str(refused)
    (answer,) = staged([good])  # an index out of a table's range would have lost the device
    assert answer["negatives"].isfinite().all()


def test_a_cuda_error_ends_the_process(tmp_path):
    publish(tmp_path)
    command = ("-m", "tests.service.faulty", "asserted", "serve")
    with process(tmp_path, *command, TURNPOINT_SERVER__DEVICE="cuda") as (child, address):
        assert ask(address, 1).status_code == 200
        assert ask(address, UNLUCKY).status_code == 503
        assert child.wait(60) == FAILED
