import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch

from core import checkpoint
from core.checkpoint import Checkpoint, pack, read_manifest, unpack, warm_up
from core.errors import CheckpointCorruptError, CheckpointRefusedError
from core.samplers import ADAR, ADARConfig
from core.transition import Transition
from tests.core.samplers.test_adar import law, make_query, make_sampler


def edit(packed: Checkpoint, **fields) -> Checkpoint:
    manifest = json.loads(packed.manifest)
    return replace(packed, manifest=json.dumps({**manifest, **fields}).encode())


@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_round_trip_gives_the_same_law_bit_for_bit(denoiser):
    sampler = make_sampler(denoiser=denoiser, transition=Transition("exact", hardness=0.7))
    again, manifest = unpack(pack(sampler, {"seed": 3}, {"recall@20": 0.1}))
    assert again.transition == Transition("exact", hardness=0.7)
    assert manifest.config["seed"] == 3
    assert manifest.metrics == {"recall@20": 0.1}
    assert manifest.scales["user_rms"] == pytest.approx(float(sampler.user_rms))
    query = make_query(16, "fixed", hardness=0.9)
    assert torch.equal(law(sampler, query).mean, law(again, query).mean)
    assert torch.equal(law(sampler, query).std, law(again, query).std)


def test_needs_nothing_but_safetensors_and_json():
    packed = pack(make_sampler())
    weights = safetensors.numpy.load(packed.weights)
    manifest = json.loads(packed.manifest)
    assert weights["denoiser.out.weight"].shape == (2 * manifest["dim"], 16)
    assert all(np.isfinite(w).all() for w in weights.values())


def test_versions_sort_by_time_and_name_their_weights():
    first, second = (read_manifest(pack(make_sampler()).manifest) for _ in range(2))
    assert first.version < second.version
    assert first.version.endswith(first.sha256[:8])


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_flipped_byte_is_refused(position):
    packed = pack(make_sampler())
    weights = bytearray(packed.weights)
    weights[position] ^= 1
    with pytest.raises(CheckpointCorruptError, match="altered"):
        unpack(replace(packed, weights=bytes(weights)))


def test_truncated_weights_are_refused():
    packed = pack(make_sampler())
    with pytest.raises(CheckpointCorruptError, match="truncated"):
        unpack(replace(packed, weights=packed.weights[:-1]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"schema": 1}', b"\xff"])
def test_a_broken_manifest_is_refused(content):
    with pytest.raises(CheckpointCorruptError, match="manifest cannot be read"):
        read_manifest(content)


def test_a_newer_schema_is_refused():
    with pytest.raises(CheckpointRefusedError, match="schema 99; this Turnpoint reads 1"):
        read_manifest(edit(pack(make_sampler()), schema=99).manifest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 7}, "manifest says dim 7"),
        ({"method": "gan"}, "method = 'gan'"),
        ({"config": {}}, "sampler"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(CheckpointRefusedError, match=message):
        unpack(edit(pack(make_sampler()), **fields))


def test_weights_of_another_shape_are_refused():
    small, large = pack(make_sampler()), pack(ADAR(ADARConfig(dim=7)))
    config = json.loads(large.manifest)["config"]
    with pytest.raises(CheckpointRefusedError, match="size mismatch"):
        unpack(edit(small, config=config))


def test_nan_weights_are_refused():
    sampler = make_sampler()
    sampler.denoiser.out.bias.data[3] = torch.nan
    with pytest.raises(CheckpointRefusedError, match=r"not finite: denoiser\.out\.bias"):
        unpack(pack(sampler))


def test_weights_that_explode_in_the_chain_are_refused():
    sampler = make_sampler()
    sampler.denoiser.out.weight.data.fill_(1e30)
    again, _ = unpack(pack(sampler))
    with pytest.raises(CheckpointRefusedError, match="not finite in the warm-up"):
        warm_up(again)


def test_every_manifest_field_is_documented():
    documented = checkpoint.Manifest.__doc__ or ""
    for name in json.loads(pack(make_sampler()).manifest):
        assert f"{name}: " in documented, name
