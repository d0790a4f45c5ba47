"""The application: wiring and lifespan."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from core.registry import Registry
from service import openapi, problems
from service.cache import make_laws
from service.compute import usable_device
from service.engine import Engine
from service.limits import BodyLimit, RequestId
from service.metrics import Metrics, Observe
from service.negatives import Service
from service.problems import Boundary
from service.registry import Models
from service.routes import router
from service.settings import Settings, load_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application; its parts are in `app.state.service`.

    Args:
        settings: default: those of the environment.

    Raises:
        ConfigError: see `load_settings` and `usable_device`.
    """
    settings = settings or load_settings()
    metrics, device = Metrics(), usable_device(settings.server.device)
    service = Service(
        settings=settings,
        models=Models(Registry(settings.registry.address), settings.registry, metrics, device),
        engine=Engine(
            max_rows=settings.batching.queue_rows,
            max_bytes=settings.batching.queue_bytes,
            threads=settings.server.torch_threads,
        ),
        metrics=metrics,
        laws=make_laws(settings, metrics),
        codec=ThreadPoolExecutor(1, thread_name_prefix="turnpoint-json"),
    )
    metrics.watch_models(service.models)
    metrics.queue_rows.set_function(lambda: service.engine.rows)
    metrics.queue_fill_ratio.set_function(lambda: service.engine.fill)
    metrics.ready.set_function(service.is_ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.laws.store.start()
        service.engine.start()
        await service.models.start()
        try:
            yield
        finally:
            await service.engine.close(settings.server.drain_seconds)
            await service.models.close()
            await asyncio.to_thread(service.laws.store.close)
            service.codec.shutdown()

    app = FastAPI(
        title="Turnpoint",
        version=openapi.API_VERSION,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        # The outermost first: an id for everything, then the clock, then what may fail.
        middleware=[
            Middleware(RequestId),
            Middleware(Observe, metrics=metrics),
            Middleware(Boundary),
            Middleware(BodyLimit, max_bytes=settings.server.max_body_bytes),
        ],
        exception_handlers=dict.fromkeys(problems.HANDLED, problems.handler),
    )
    app.state.service = service
    app.include_router(router)
    app.openapi = lambda: openapi.document(app, service)  # type: ignore[method-assign]
    return app
