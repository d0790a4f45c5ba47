"""GDNSM: guidance identities, its chains against a loop, fewer steps, and what makes it harder."""

import math

import pytest
import torch

from core.checkpoint import pack, unpack, warm_up
from core.errors import ConfigError
from core.noise import Noise
from core.samplers import GDNSM, GDNSMConfig, Generates, Query, TakesFeatures, draw
from core.samplers.gdnsm import chain_steps
from core.samplers.guided import KINDS, guidance_weights
from core.schedule import make_schedule
from tests.reference import gdnsm as reference

FEATURES = (("text", 5), ("image", 3))


def make_sampler(kind="mlp", num_steps=10, dtype=torch.float64, **config) -> GDNSM:
    torch.manual_seed(5)
    sampler = GDNSM(GDNSMConfig(6, FEATURES, num_steps, denoiser=kind, **config)).to(dtype)
    for parameter in sampler.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    users, positives = torch.randn(2, 256, 6, dtype=dtype)
    sampler.observe(0.3 * users, 2 * positives)
    sampler.fit({name: 3 + 2 * torch.randn(50, width, dtype=dtype) for name, width in FEATURES})
    return sampler.eval().requires_grad_(requires_grad=False)


def make_query(rows=8, dtype=torch.float64, names=("text", "image"), **conditions) -> Query:
    generator = torch.Generator().manual_seed(0)
    users, positives = torch.randn(2, rows, 6, generator=generator, dtype=dtype)
    tables = {
        name: 3 + 2 * torch.randn(rows, width, generator=generator, dtype=dtype)
        for name, width in FEATURES
    }
    known = {name: tables[name] for name in names}
    return Query(0.3 * users, 2 * positives, item_features=known, **conditions)


def noise_of(rows, seed=1) -> Noise:
    return Noise([torch.Generator().manual_seed(seed)], [rows])


def conditions_of(sampler, query):
    """User and scaled features, as the denoiser is given them."""
    users = query.users / sampler.user_rms
    tables = [
        sampler._scaled(place, query.item_features[name]) if name in query.item_features else None
        for place, name in sampler._places
    ]
    return users, tables


def test_takes_features_and_generates():
    sampler = make_sampler()
    assert isinstance(sampler, Generates)
    assert isinstance(sampler, TakesFeatures)
    assert sampler.features == {"text": 5, "image": 3}
    named = ("item_features.text", "item_features.image")
    assert sampler.inputs == ("users", "positives", *named, "progress")


def test_guidance_weights():
    assert guidance_weights([1, 0], [0.0, 0.0]) == {(): 1.0}
    assert guidance_weights([1, 0], [1.0, 1.0]) == {(0, 1): 1.0}
    assert guidance_weights([0], [2.0, 7.0]) == {(): -1.0, (0,): 2.0}
    # Text added last, on top of image: 1 - s_v, s_v - s_t, s_t.
    assert guidance_weights([1, 0], [3.0, 1.5]) == {(): -0.5, (1,): -1.5, (0, 1): 3.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [(0,), (1,), (0, 1)])
def test_no_guidance_is_the_plain_prediction_and_scale_0_knows_the_user_alone(kind, level):
    """s = 1: eps(u, level's modalities); s = 0: eps(u, 0, 0), whatever the features are."""
    sampler, query = make_sampler(kind), make_query(4)
    users, tables = conditions_of(sampler, query)
    x = torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for scale, seen in ((1.0, level), (0.0, ())):
        weights = guidance_weights(level[::-1], [scale, scale])
        guidance = sampler.denoiser.guide(users, tables, weights)
        noise = float(sampler.noise[4])
        got = noise * x + sampler.denoiser.step(x, 4, guidance, 0.0, 1.0)
        plain = [table if place in seen else None for place, table in enumerate(tables)]
        expected = reference.predicted(sampler, x.squeeze(1), 4, users, plain)
        assert torch.allclose(got.squeeze(1), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [1, 2, 10])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("ddim", [False, True])
def test_every_level_is_that_of_the_guided_loop(kind, num_steps, rows, guidance, ddim):
    """DDPM with its noise; and DDIM with as many steps as there are is the whole chain."""
    steps = num_steps if ddim else None
    sampler = make_sampler(kind, num_steps, guidance=guidance, ddim_steps=steps)
    query = make_query(rows)
    got = sampler.generate(query, 6, noise_of(rows))
    assert (got.weights == 1).all()
    assert not got.transition.any()
    users, (text, image) = conditions_of(sampler, query)
    stream = noise_of(rows)
    for level, places in enumerate(([4, 5], [2, 3], [0, 1])):
        seen = [(text, None), (None, image), (text, image)][level]
        draws = [stream.normal(2, 6, dtype=torch.float64) for _ in range(1 if ddim else num_steps)]
        for which, place in enumerate(places):
            z, *others = (drawn[:, which] for drawn in draws)
            noise = dict(zip(range(num_steps, 1, -1), others, strict=not ddim))

            def eps_of(x, t, seen=seen):
                return reference.guided(sampler, x, t, users, *seen, guidance)

            if ddim:
                x_0 = reference.ddim(sampler, z, eps_of)
            else:
                x_0 = reference.ddpm(sampler, z, noise, eps_of)
            expected = sampler.item_rms * x_0
            assert torch.allclose(got.negatives[:, place], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("total", [1, 2, 50])
def test_one_formula_for_ddpm_and_ddim(total):
    """DDPM's steps: x' = (x - (1 - alpha)/sqrt(1 - abar) eps) / sqrt(alpha), eps = noise x + f."""
    schedule = make_schedule("linear", total)
    for t, of_state, of_f, deviation in chain_steps(schedule, None):
        alpha, now = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        of_eps = -(1 - alpha) / math.sqrt(1 - now) / math.sqrt(alpha)
        assert of_f == pytest.approx(of_eps, rel=1e-9)
        expected = 1 / math.sqrt(alpha) + of_eps * math.sqrt(1 - now)
        assert of_state == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert deviation == pytest.approx(float(schedule.ancestral_variance[t]) ** 0.5)
    for many in {1, total}:
        stops = [t for t, *_ in chain_steps(schedule, many)]
        assert stops[0] == total
        assert len(stops) == many == len(set(stops))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [("text", "image"), ("image",), ()])
@pytest.mark.parametrize("n", [1, 6])
def test_a_batch_of_8_is_8_singles(kind, names, n):
    sampler, query = make_sampler(kind), make_query(8, names=names)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    together = sampler.generate(query, n, Noise(generators, [1] * 8))
    for row in range(8):
        one = slice(row, row + 1)
        features = {name: table[one] for name, table in query.item_features.items()}
        alone = Query(query.users[one], query.positives[one], item_features=features)
        single = sampler.generate(alone, n, noise_of(1, seed=row))
        assert torch.allclose(single.negatives[0], together.negatives[row], rtol=1e-9)


def test_a_missing_modality_is_its_null():
    """It does not matter what else is known of the item then."""
    sampler = make_sampler()
    whole, without = make_query(4), make_query(4, names=("text",))
    easiest, known = (
        sampler.generate(query, 1, noise_of(4)).negatives
        for query in (
            Query(whole.users, whole.positives, item_features=whole.item_features, progress=0.0),
            Query(whole.users, whole.positives, item_features=without.item_features, progress=0.0),
        )
    )
    assert torch.equal(easiest, known)  # the easiest level sees the text alone
    hard, harder = (sampler.generate(q, 1, noise_of(4)).negatives for q in (without, whole))
    assert not torch.allclose(hard, harder)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0), (0.3, 0), (1 / 3, 1), (1.0, 1)])
def test_nothing_counts_before_the_queue_opens(progress, weight):
    got = make_sampler().generate(make_query(3, progress=progress), 2, noise_of(3))
    assert (got.weights == weight).all()
    assert got.weights.shape == (3, 2)


def trained(kind: str, **config) -> tuple[GDNSM, dict[str, torch.Tensor]]:
    """On items whose embedding is the sum of what text, image and the user tell of it, and noise.

    x_0 = text + image + user + 0.3 N(0, I): the more is known, the nearer the sample.
    """
    torch.manual_seed(0)
    sampler = GDNSM(
        GDNSMConfig(4, (("text", 4), ("image", 4)), 50, denoiser=kind, guidance=1.0, **config)
    )
    generator = torch.Generator().manual_seed(1)

    def data(rows: int) -> dict[str, torch.Tensor]:
        text, image, users, rest = torch.randn(4, rows, 4, generator=generator)
        positives = text + image + 0.5 * users + 0.3 * rest
        return {"users": users, "positives": positives, "text": text, "image": image}

    optimizer = torch.optim.Adam(sampler.parameters(), lr=3e-3)
    for _ in range(1500):
        batch = data(512)
        sampler.observe(batch["users"], batch["positives"])
        features = {name: batch[name] for name in ("text", "image")}
        loss = sampler.loss(batch["users"], batch["positives"], features, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sampler.eval(), data(2000)


@pytest.fixture(scope="module")
def taught() -> tuple[GDNSM, dict[str, torch.Tensor]]:
    torch.set_num_threads(1)
    return trained("mlp")


def query_of(data, **conditions) -> Query:
    features = {name: data[name] for name in ("text", "image")}
    return Query(data["users"], data["positives"], item_features=features, **conditions)


def test_hardness_rises_along_the_queue(taught):
    """cos(o, e_i) of each level, measured: both modalities above either of them."""
    sampler, data = taught
    negatives = sampler.generate(query_of(data), 6, noise_of(2000)).negatives
    cosine = torch.cosine_similarity(negatives, data["positives"].unsqueeze(1), dim=-1).mean(0)
    all_of_it, one = cosine[:2].mean(), cosine[2:].mean()
    assert all_of_it > one + 0.1
    assert one > 0.3
    progressed = [
        torch.cosine_similarity(
            sampler.generate(query_of(data, progress=p), 1, noise_of(2000)).negatives.squeeze(1),
            data["positives"],
        ).mean()
        for p in (0.0, 1.0)
    ]
    assert progressed[1] > progressed[0] + 0.1


def test_fewer_steps_cost_little(taught):
    """The error of DDIM in 8 steps, against DDIM in all 50 from the same noise, is stated here.

    It is below a quarter of a sample's own spread, and shrinks with the steps.
    """
    sampler, data = taught
    errors = {}
    walk = sampler._walk
    for many in (4, 8, 25, 50):
        sampler._walk = chain_steps(sampler.schedule, many)
        errors[many] = sampler.generate(query_of(data), 1, noise_of(2000)).negatives
    sampler._walk = walk
    whole = errors.pop(50)
    spread = whole.std()
    relative = {
        many: float((x - whole).square().mean().sqrt() / spread) for many, x in errors.items()
    }
    assert relative[25] < relative[8] < relative[4]
    assert relative[8] < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_comes_back(kind):
    sampler = make_sampler(kind, dtype=torch.float32, ddim_steps=3)
    back, manifest = unpack(pack(sampler))
    assert manifest.method == "gdnsm"
    assert manifest.denoiser == f"guided {kind}"
    assert back.config == sampler.config
    warm_up(back)
    query = make_query(5, torch.float32)
    one, two = (draw(s, query, 6, torch.Generator().manual_seed(1)) for s in (sampler, back))
    assert torch.equal(one.negatives, two.negatives)


def test_drops_are_categorical():
    """0.05 of the rows lose text, image, both; what is drawn is seen at the denoiser."""
    sampler = make_sampler("linear")
    seen = []
    forward = sampler.denoiser.forward

    def spy(*args):
        seen.append(args[-1])
        return forward(*args)

    sampler.denoiser.forward = spy
    query = make_query(20_000)
    sampler.loss(query.users, query.positives, query.item_features, torch.Generator())
    kept = seen[0]
    for text, image, share in ((0, 1, 0.05), (1, 0, 0.05), (0, 0, 0.05), (1, 1, 0.85)):
        met = ((kept[:, 0] == text) & (kept[:, 1] == image)).double().mean()
        assert met == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"denoiser": "unet"}, "denoiser = 'unet'; known: linear, mlp"),
        ({"features": ()}, "features = "),
        ({"features": (("text", 0),)}, "features = "),
        ({"ddim_steps": 51}, "ddim_steps = 51"),
        ({"ddim_steps": 0}, "ddim_steps = 0"),
        ({"drop": 0.4}, "drop = 0.4"),
        ({"per_level": 0}, "per_level = 0"),
    ],
)
def test_refuses_bad_configs(values, message):
    with pytest.raises(ConfigError, match=message):
        GDNSM(GDNSMConfig(**{"dim": 4, "features": FEATURES, **values}))
