"""The application: wiring and lifespan."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from service import openapi, problems
from service.auth import Authenticate, Gate
from service.cache import make_laws
from service.engine import Engine
from service.limits import BodyLimit, RequestId
from service.metrics import Metrics, Observe
from service.negatives import Service
from service.problems import Boundary
from service.rate import RateLimit, RedisScripts
from service.registry import Models, opened
from service.routes import router
from service.settings import Settings, load_settings
from service.staging import usable_device
from service.stream import make_stream
from service.traces import Trace, provider_from


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application; its parts are in `app.state.service`.

    Args:
        settings: default: those of the environment.

    Raises:
        ConfigError: see `load_settings`, `usable_device`, `registry.opened` and `Gate`.
    """
    settings = settings or load_settings()
    metrics, device = Metrics(), usable_device(settings.server.device)
    service = Service(
        settings=settings,
        models=Models(opened(settings.registry.address), settings.registry, metrics, device),
        engine=Engine(settings.batching, settings.server, device, metrics.batch_rows.observe),
        metrics=metrics,
        laws=make_laws(settings, metrics),
        gate=Gate(settings.auth, settings.server.host),
        rate=RateLimit(
            settings.auth.rate_rows_per_second,
            settings.auth.rate_burst_rows,
            RedisScripts(settings.redis.url) if settings.redis.url else None,
        ),
        stream=make_stream(settings, metrics),
        codec=ThreadPoolExecutor(1, thread_name_prefix="turnpoint-json"),
    )
    metrics.watch_models(service.models)
    metrics.queue_rows.set_function(lambda: service.engine.room.held.rows)
    metrics.queue_fill_ratio.set_function(lambda: service.engine.room.fill)
    metrics.ready.set_function(service.is_ready)

    tracing = provider_from()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.laws.store.start()
        if service.stream is not None:
            service.stream.start()
        service.engine.start()
        await service.models.start()
        watching = asyncio.create_task(service.gate.watch())
        try:
            yield
        finally:
            watching.cancel()
            await service.engine.close(settings.server.drain_seconds)
            await service.models.close()
            await asyncio.to_thread(service.laws.store.close)
            if service.stream is not None:
                service.stream.flush()
                await asyncio.to_thread(service.stream.close)
            await service.rate.close()
            service.codec.shutdown()
            if tracing is not None:
                tracing.shutdown()

    app = FastAPI(
        title="Turnpoint",
        version=openapi.API_VERSION,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # `routes.docs` loads nothing from elsewhere
        redoc_url=None,
        # The outermost first: an id for everything, then the clock, then what may fail.
        middleware=[
            Middleware(RequestId),
            *([Middleware(Trace, tracer=tracing.get_tracer("turnpoint"))] if tracing else []),
            Middleware(Observe, metrics=metrics, addresses=settings.log.addresses),
            Middleware(Boundary),
            Middleware(Authenticate, gate=service.gate),
            Middleware(BodyLimit, max_bytes=settings.server.max_body_bytes),
        ],
        exception_handlers=dict.fromkeys(problems.HANDLED, problems.handler),
    )
    app.state.service = service
    app.include_router(router)
    app.openapi = lambda: openapi.document(app, service)  # type: ignore[method-assign]
    return app
