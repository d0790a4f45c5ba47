"""What the cache of laws costs and saves: hits and misses beside the sampler, taken in turn.

    python -m bench.cache [--redis redis://127.0.0.1:6379/0] [--rows 2048] [--dim 64] [--rounds 40]

The model and the embeddings of `bench.serving`: t* is near 0.73 T for every row. One torch
thread, as in the service. Every round takes all ways of getting the same law once, each way on rows
of its own and after all writing has settled; ratios are medians of those within a round. Then what
`auto`, the service's default, makes of users that come back every time and of users that never do.
The Redis is written to, under keys that end with their time to live.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from bench.serving.checkpoint import pairs, publish
from core.checkpoint import unpack
from core.registry import Registry
from core.samplers import Query
from service.cache import Laws, LocalStore, RedisStore
from service.cache.laws import LawSource, Mode
from service.metrics import Metrics
from service.settings import load_settings
from service.shelf import LoadedModel

TRIAL = 1000  # batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", help="address of a Redis; default: in process only")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for denoiser in ("film", "moment"):
        model = make_model(denoiser, args.dim)
        with torch.inference_mode():
            measure(model, args.rows, args.rounds, args.redis)
            decide(model, args.rows, args.redis)


def make_model(denoiser: str, dim: int) -> LoadedModel:
    """The model of `bench.serving`, as the service would load it."""
    with tempfile.TemporaryDirectory() as folder:
        name = publish(Path(folder), denoiser, dim)
        registry = Registry(folder)
        version = registry.live(name) or ""
        return LoadedModel(name, version, *unpack(registry.read(name, version)))


def queries(model: LoadedModel, size: int, count: int) -> list[Query]:
    """Batches that have no user in common."""
    users, positives = torch.from_numpy(pairs(count * size, model.sampler.dim))
    split = zip(users.split(size), positives.split(size), strict=True)
    return [Query(u, p, model.sampler.transition) for u, p in split]


def caches(mode: Mode, address: str | None) -> dict[str, Laws]:
    """In process, and in Redis where there is one."""
    found = {"in process": Laws(LocalStore(2**30), mode, Metrics())}
    if address:
        settings, metrics = (
            load_settings({"redis": {"url": address, "timeout_ms": 1000}}),
            Metrics(),
        )
        store = RedisStore(settings.redis, 600, metrics)
        store.start()
        while not store.up:
            time.sleep(0.01)
        found["redis"] = Laws(store, mode, metrics)
    return found


def settle(laws: Laws) -> None:
    """Wait until what was missing has been written behind."""
    if isinstance(laws.store, RedisStore):
        while rows(laws, "writes", "stored", "failed", "dropped") < rows(laws, "requests", "miss"):
            time.sleep(0.001)


def rows(laws: Laws, what: str, *results: str) -> float:
    """Those that `turnpoint_cache_<what>_total` has counted."""
    value = laws.metrics.registry.get_sample_value
    return sum(value(f"turnpoint_cache_{what}_total", {"result": one}) or 0 for one in results)


def measure(model: LoadedModel, size: int, rounds: int, address: str | None) -> None:
    known, generator = queries(model, size, 1)[0], torch.Generator()
    ways: dict[str, LawSource] = {"sampler alone": model.sampler.law}
    there = caches("on", address)
    for name, laws in there.items():
        ways[f"{name}: all hit"] = ways[f"{name}: all miss"] = laws.of(model, seeded=False)
        ways[f"{name}: all hit"](known, generator)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn, fresh in enumerate(queries(model, size, rounds + 1)[1:]):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for laws in there.values():
                settle(laws)
            began = time.perf_counter()
            ways[name](fresh if name.endswith("miss") else known, generator)
            seconds[name].append(time.perf_counter() - began)
    for laws in there.values():
        hits, missed = rows(laws, "requests", "hit"), rows(laws, "requests", "miss")
        assert (hits, missed) == (rounds * size, (rounds + 1) * size)
        laws.store.close()
    alone = seconds["sampler alone"]
    print(
        f"\n{model.name}, {size} x {model.sampler.dim}\n\n| way | x sampler | ms |\n|---|---|---|"
    )
    for name, took in seconds.items():
        ratio = median(one / other for one, other in zip(took, alone, strict=True))
        print(f"| {name} | {ratio:.2f} | {1000 * median(took):.2f} |")


def decide(model: LoadedModel, size: int, address: str | None) -> None:
    """What `auto` makes of it."""
    generator, batches = torch.Generator(), queries(model, size, 8)
    for users, shift in (("who come back", 0.0), ("who never do", 1e-3)):
        for name, laws in caches("auto", address).items():
            law = laws.of(model, seeded=False)
            for turn in range(TRIAL):
                some = batches[turn % len(batches)]
                law(Query(some.users + shift * turn, some.positives, some.transition), generator)
            share = 1 - rows(laws, "requests", "bypassed") / (TRIAL * size)
            print(f"{name}, users {users}: auto looked up {share:.0%} of {TRIAL} batches")
            laws.store.close()


if __name__ == "__main__":
    main()
