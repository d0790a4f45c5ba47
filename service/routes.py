"""What answers where. The document of these routes is made in `service.openapi`."""

import asyncio
import logging
from typing import Any

import orjson
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

from core.errors import MalformedError
from service import docs_page
from service.auth import admin_of
from service.limits import POLICY, read_body
from service.metrics import HUNG_UP
from service.negatives import Service, answer

router = APIRouter()
log = logging.getLogger("turnpoint.service")


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
    service_of(request).engine.check_alive()
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


@router.post("/models/{name}/live")
async def pin(request: Request, name: str) -> dict[str, Any]:
    """Make a version live: pin it, or roll back to it. Needs an admin key."""
    service = service_of(request)
    caller = admin_of(request, service.gate)
    version = _version_of(await read_body(request, service.settings.server.body_timeout_seconds))
    before = await service.models.pin(name, version)
    log.info("%s pinned model %s to version %s", caller.name, name, version)
    return {"name": name, "live": version, "before": before}


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The document of the API as a page."""
    page = docs_page.rendered(request.app.openapi())
    return HTMLResponse(page, headers={POLICY.decode(): docs_page.POLICY})


def _version_of(body: bytearray) -> str:
    """The version of `{"version": ...}`.

    Raises:
        MalformedError: the body is anything else.
    """
    try:
        asked = orjson.loads(body)
    except ValueError:
        asked = None
    version = asked.get("version") if isinstance(asked, dict) else None
    if not isinstance(version, str) or len(asked) != 1:
        raise MalformedError('the body must be JSON {"version": "<one of GET /models/NAME>"}')
    return version
