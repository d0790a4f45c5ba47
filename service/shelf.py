"""Versions that are not live: read, verified and warmed up when asked for; a few are kept."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import torch

from core.checkpoint import Manifest, unpack, warm_up
from core.errors import CheckpointError, ConfigError
from core.registry import Registry
from core.samplers import NegativeSampler
from service.offer import Offer

R = TypeVar("R")
Key = tuple[str, str]  # model, version


@dataclass(frozen=True)
class LoadedModel:
    """One version of one model, verified and warm."""

    name: str
    version: str
    sampler: NegativeSampler
    manifest: Manifest
    loaded_at: float = field(default_factory=time.time)

    @cached_property
    def offer(self) -> Offer:
        """What it takes and gives."""
        return Offer.of(self.sampler)

    @property
    def method(self) -> str:
        """adar, ..."""
        return self.manifest.method

    @property
    def age_seconds(self) -> float:
        """Since the checkpoint was made."""
        return time.time() - datetime.fromisoformat(self.manifest.created_at).timestamp()


class Shelf:
    """Loads versions in threads of its own, never on the event loop.

    Args:
        registry: where they are read from.
        capacity: how many are kept; the one used longest ago goes first.
        device: where they are loaded to.
    """

    def __init__(
        self, registry: Registry, capacity: int, device: torch.device | str = "cpu"
    ) -> None:
        self.registry = registry
        self.capacity = capacity
        self.device = device
        self.kept: OrderedDict[Key, LoadedModel] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[LoadedModel]] = {}
        self._manifests: dict[Key, Manifest] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="turnpoint-registry")

    def close(self) -> None:
        """Load nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, call: Callable[..., R], *args: object) -> R:
        """What a call gives that must not hold the event loop up."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def get(self, name: str, version: str) -> LoadedModel:
        """A version that somebody asks for; it is kept, and many who ask at once cause one load.

        Raises:
            CheckpointError: it must not be used, or there is none.
            ConfigError: it is no version's name.
        """
        key = (name, version)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._fetch(key))
            self._loading[key].add_done_callback(lambda task: self._loaded(key, task))
        return await asyncio.shield(self._loading[key])

    async def load(self, name: str, version: str) -> LoadedModel:
        """A version that is about to be live, which is not kept here.

        Raises:
            as `get`.
        """
        kept = self.kept.get((name, version))
        return kept if kept is not None else await self.in_thread(self._load, name, version)

    def keep(self, model: LoadedModel) -> None:
        """Remember a version; forget the one used longest ago."""
        self.kept[(model.name, model.version)] = model
        while len(self.kept) > self.capacity:
            self.kept.popitem(last=False)

    async def versions(self, name: str) -> list[dict[str, str]]:
        """Every whole version of a model in the registry, oldest first."""
        return await self.in_thread(self._versions, name)

    async def _fetch(self, key: Key) -> LoadedModel:
        model = await self.in_thread(self._load, *key)
        self.keep(model)
        return model

    def _loaded(self, key: Key, task: asyncio.Task[LoadedModel]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # seen, even where every caller has hung up

    def _load(self, name: str, version: str) -> LoadedModel:
        """Read, verify, warm up."""
        sampler, manifest = unpack(self.registry.read(name, version), self.device)
        warm_up(sampler)
        return LoadedModel(name, version, sampler, manifest)

    def _versions(self, name: str) -> list[dict[str, str]]:
        """Manifests never change and are read once."""
        for version in self.registry.store.folders(name):
            if (name, version) not in self._manifests:
                with suppress(CheckpointError, ConfigError):
                    self._manifests[(name, version)] = self.registry.manifest(name, version)
        return [
            {"version": version, "created_at": manifest.created_at, "sha256": manifest.sha256}
            for version in self.registry.store.folders(name)
            if (manifest := self._manifests.get((name, version))) is not None
        ]
