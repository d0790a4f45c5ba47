"""The CUDA path against the CPU's, on machines that have one."""

from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

from core.checkpoint import pack, unpack, warm_up
from core.registry import Registry
from core.samplers import Query
from core.transition import RULES, Transition
from tests.core.samplers.test_adar import make_query, make_sampler
from tests.service.live import OCTET, floats, octet, pairs, publish, running, settings_for
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
