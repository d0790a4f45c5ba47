"""Which models are served: watch the registry, swap, pin.

A `LoadedModel` never changes. A swap replaces one entry of a mapping, so a request that has
resolved its model keeps it to the end, however many swaps happen meanwhile. How a version gets from
the registry into memory is `Shelf`'s.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from core.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMissingError,
    CheckpointRefusedError,
    ConfigError,
    NotReadyError,
    UnavailableError,
    UnknownModelError,
    UnknownVersionError,
)
from core.registry import Registry
from service.metrics import Metrics
from service.settings import RegistrySettings, masked
from service.shelf import LoadedModel, Shelf

log = logging.getLogger("turnpoint.service")


class Models:
    """The live models, and by their shelf a few versions beside them.

    Args:
        registry: where checkpoints are published.
        settings: how often to look, and what to keep.
        metrics: told of every swap.
        device: where models are loaded to.
    """

    def __init__(
        self,
        registry: Registry,
        settings: RegistrySettings,
        metrics: Metrics,
        device: torch.device | str = "cpu",
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.live: Mapping[str, LoadedModel] = {}
        self._metrics = metrics
        self._shelf = Shelf(registry, settings.versions_kept, device)
        self._refused: dict[str, tuple[str, str]] = {}  # model -> version, why
        self._unreachable = ""
        self._looking = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def start(self, patience: float = 30.0) -> None:
        """Look once, then keep looking; a registry slower than `patience` does not hold us up."""
        first = asyncio.Event()
        self._watch = asyncio.create_task(self._keep_looking(first))
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await first.wait()

    async def close(self) -> None:
        """Stop looking."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        self._shelf.close()

    async def resolve(self, name: str | None, version: str | None) -> LoadedModel:
        """The one version that answers a request.

        Raises:
            NotReadyError: nothing is live under that name, or at all, yet.
            UnknownModelError: no such model, or none is named and several are served.
            UnknownVersionError: no such version, or one that must not be used.
        """
        live = self._live(name)
        if version is None or version == live.version:
            return live
        try:
            return await self._shelf.get(live.name, version)
        except (CheckpointError, ConfigError) as error:
            raise _not_servable(version, error) from error

    async def pin(self, name: str, version: str) -> str | None:
        """Make a version live here and, through LATEST, everywhere and after restarts.

        It is verified, warmed up and compared with the live one before LATEST is touched.

        Returns:
            The version that was live before.

        Raises:
            UnknownModelError: nothing is published under that name.
            UnknownVersionError: no such version, or one that must not be used; nothing changed.
            UnavailableError: the registry cannot be read or written; nothing changed.
        """
        async with self._looking:
            live = self.live.get(name)
            if live and live.version == version:
                model = live
            else:
                model = await self._fit_to_pin(name, version, live)
            try:
                await self._shelf.in_thread(self.registry.set_live, name, version)
            except OSError as error:
                raise _unwritable(error) from error
            if model is not live:
                self._swap(model)
            return live.version if live else None

    async def _fit_to_pin(self, name: str, version: str, live: LoadedModel | None) -> LoadedModel:
        """A version that may replace the live one."""
        try:
            if live is None:
                await self._shelf.in_thread(self._check_published, name)
            model = await self._shelf.load(name, version)
            if live:
                _check_same_dim(live, model)
        except (CheckpointError, ConfigError) as error:
            raise _not_servable(version, error) from error
        except OSError as error:
            raise _unwritable(error) from error
        return model

    def served(self) -> list[LoadedModel]:
        """What is live now."""
        return list(self.live.values())

    @property
    def reachable(self) -> bool:
        """Whether the registry could be read at the last look."""
        return not self._unreachable

    def failing(self) -> dict[str, bool]:
        """Of every model: whether the registry's live version could not be made live here."""
        return {name: name in self._refused for name in {*self.live, *self._refused}}

    def why_not_ready(self) -> str | None:
        """What is missing before a request that names no model can be answered; None if nothing."""
        wanted = self.settings.model
        if wanted in self.live or (wanted is None and self.live):
            return None
        if self._unreachable:
            return f"the registry cannot be read: {self._unreachable}"
        refused = "; ".join(
            f"{name} {version}: {why}" for name, (version, why) in self._refused.items()
        )
        what = f"model {wanted!r}" if wanted else "no model"
        where = masked(self.registry.address)
        missing = f"{what} is {'not ' if wanted else ''}published in {where}"
        return f"{missing}; refused: {refused}" if refused else missing

    async def describe(self, name: str) -> dict[str, Any]:
        """One model as `GET /models` shows it.

        Raises:
            UnknownModelError: it is not live.
        """
        if name not in self.live:
            raise UnknownModelError(self._unknown(name))
        live = self.live[name]
        manifest = live.manifest
        versions = await self._shelf.versions(name)
        return {
            "name": name,
            "live": live.version,
            "method": manifest.method,
            "dim": manifest.dim,
            "num_steps": manifest.num_steps,
            "denoiser": manifest.denoiser,
            "transition": dict(manifest.transition),
            "inputs": list(live.offer.inputs),
            "features": dict(live.offer.features),
            "strata": live.offer.strata,
            "items": live.offer.items,
            "returns": list(live.offer.returns),
            "age_seconds": live.age_seconds,
            "metrics": dict(manifest.metrics),
            "versions": versions,
        }

    async def poll(self) -> None:
        """Look once for new versions of every model; one look at a time."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        try:
            names = await self._shelf.in_thread(self.registry.models)
            self._unreachable = ""
        except Exception as error:
            if not self._unreachable:
                told = masked(str(error))
                log.warning("the registry cannot be read, what is live stays: %s", told)
            self._unreachable = masked(f"{type(error).__name__}: {error}")
            return
        for name in names:
            await self._follow(name)

    def _live(self, name: str | None) -> LoadedModel:
        wanted = name or self.settings.model
        if wanted is None and len(self.live) > 1:
            raise UnknownModelError(
                f"several models are served ({', '.join(sorted(self.live))}): name one with model="
            )
        if wanted is None and self.live:
            wanted = next(iter(self.live))
        if wanted is not None and wanted in self.live:
            return self.live[wanted]
        if name is None or not self.live:
            raise NotReadyError(
                self.why_not_ready() or "not ready", retry_after=self.settings.poll_seconds
            )
        raise UnknownModelError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        return f"no model {name[:64]!r}; served: {', '.join(sorted(self.live)) or 'none yet'}"

    async def _keep_looking(self, first: asyncio.Event) -> None:
        while True:
            await self.poll()
            first.set()
            await asyncio.sleep(self.settings.poll_seconds)

    async def _follow(self, name: str) -> None:
        """Make the registry's live version ours, or say once why not."""
        version, live = "", self.live.get(name)
        self._metrics.open_swaps(name)
        try:
            published = await self._shelf.in_thread(self.registry.live, name)
            bad, _ = self._refused.get(name, ("", ""))
            if live and published == live.version:
                self._refused.pop(name, None)  # rolled back to what is live
                return
            if published is None or published == bad:
                return
            version = published
            model = await self._shelf.load(name, version)
            if live:
                _check_same_dim(live, model)
        except Exception as error:
            self._refuse(name, version, error)
            return
        self._swap(model)

    def _swap(self, model: LoadedModel) -> None:
        """Make a version live; the one it replaces is kept for a while."""
        before = self.live.get(model.name)
        self._refused.pop(model.name, None)
        self.live = {**self.live, model.name: model}
        if before:
            self._shelf.keep(before)
        self._metrics.swaps.labels(model.name, "ok").inc()
        log.info("model %s: version %s is live", model.name, model.version)

    def _refuse(self, name: str, version: str, error: Exception) -> None:
        """Count and log a version that will not be live; remember it, so that it is said once.

        A version that is missing or unreadable may appear yet: it is tried again.
        """
        match error:
            case CheckpointMissingError():
                result = "missing"
            case CheckpointCorruptError():
                result = "corrupt"
            case OSError():
                result = "unreachable"
            case _:
                result = "refused"
        lasting = result in {"corrupt", "refused"}
        told = self._refused.get(name) == ("" if not lasting else version, str(error))
        self._refused[name] = (version if lasting else "", str(error))
        if not told:
            self._metrics.swaps.labels(name, result).inc()
            log.warning(
                "model %s: version %s is %s, the old stays: %s", name, version, result, error
            )

    def _check_published(self, name: str) -> None:
        """Raises UnknownModelError unless the registry has a version of it."""
        try:
            known = self.registry.versions(name)
        except ConfigError:  # no name at all
            known = []
        if not known:
            raise UnknownModelError(self._unknown(name))


def _check_same_dim(live: LoadedModel, new: LoadedModel) -> None:
    """Callers send embeddings of the live dimension; no swap may change it under them."""
    if live.sampler.dim != new.sampler.dim:
        raise CheckpointRefusedError(
            f"it has dimension {new.sampler.dim}, the live one {live.sampler.dim}: "
            "publish it under another model name"
        )


def _not_servable(version: str, error: Exception) -> UnknownVersionError:
    return UnknownVersionError(f"version {version[:64]!r} cannot be served: {error}")


def _unwritable(error: OSError) -> UnavailableError:
    told = masked(f"{type(error).__name__}: {error}")
    return UnavailableError(f"the registry cannot be reached, nothing has changed ({told})")


def opened(address: str) -> Registry:
    """The registry at an address.

    Raises:
        ConfigError: an address of a kind that cannot be read here.
    """
    try:
        return Registry(address)
    except (ImportError, ValueError, OSError) as error:
        reason = masked(" ".join(str(error).split()))
        raise ConfigError(
            f"the registry {masked(address)} cannot be opened ({reason}): name a folder, or "
            "install the package that fsspec needs for such an address"
        ) from error
