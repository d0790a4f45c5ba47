"""What answers where. The document of these routes is made in `service.openapi`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from core.errors import NotReadyError
from service.metrics import HUNG_UP
from service.negatives import Service, answer

router = APIRouter()


def service_of(request: Request) -> Service:
    """The application's parts."""
    service: Service = request.app.state.service
    return service


@router.post("/negatives", response_class=Response)
async def negatives(request: Request) -> Response:
    """Generate negatives for a batch of (user, positive) pairs."""
    try:
        return await answer(service_of(request), request)
    except ClientDisconnect:
        return Response(status_code=HUNG_UP)


@router.get("/livez")
async def livez(request: Request) -> dict[str, str]:
    """The event loop turns and the model thread is alive; else restart the process."""
    if not service_of(request).engine.alive:
        raise NotReadyError("the model thread is not running; the service must be restarted")
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, Any]:
    """A checkpoint is loaded and warm, and the service is not draining."""
    service = service_of(request)
    service.check_ready()
    live = {name: model.version for name, model in service.models.live.items()}
    return {"status": "ready", "models": live}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus text."""
    page = generate_latest(service_of(request).metrics.registry)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """Every model that is served, with its versions."""
    served = service_of(request).models
    return {"models": await asyncio.gather(*map(served.describe, sorted(served.live)))}


@router.get("/models/{name}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One model."""
    return await service_of(request).models.describe(name)
