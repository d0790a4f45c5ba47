"""OpenTelemetry traces, where `turnpoint[otel]` is installed and the environment asks for them.

A span for each request, with one below it for each stage that `Server-Timing` tells of. Stages are
told afterwards, from the times that were measured anyway: the way of a request knows nothing of
traces, and without the extra, or without an address to send them to, nothing here runs.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import HUNG_UP, route_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
log = logging.getLogger("turnpoint.service")


def provider_from(environment: Mapping[str, str] = os.environ) -> "TracerProvider | None":
    """What exports traces over OTLP/HTTP as the `OTEL_*` names say; None where none are wanted."""
    wanted = any(environment.get(name) for name in ENDPOINTS)
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not wanted or disabled or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("an OTEL_* address is set, but no traces are sent: install turnpoint[otel]")
        return None
    name = environment.get("OTEL_SERVICE_NAME", "turnpoint")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Trace:
    """Pure ASGI: a server span for each request, below the caller's if it sent `traceparent`."""

    def __init__(self, app: ASGIApp, tracer: "Tracer") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self.tracer = tracer
        self.api = trace
        self.parents = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on inside a span; its route, status and stages are known at the end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = HUNG_UP

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        parent = self.parents.extract(Headers(scope=scope))
        span = self.tracer.start_span("HTTP", parent, self.api.SpanKind.SERVER)
        try:
            with self.api.use_span(span):
                await self.app(scope, receive, watched)
        finally:
            self._tell(span, scope, status)
            span.end()

    def _tell(self, span: "Span", scope: Scope, status: int) -> None:
        """Name the span by its route, as metrics do; hang the stages below it."""
        state, route = scope["state"], route_of(scope)
        span.update_name(route)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("turnpoint.request_id", state["request_id"])
        span.set_attribute("turnpoint.rows", state.get("rows", 0))
        if status >= 500:
            span.set_status(self.api.StatusCode.ERROR)
        epoch = time.time() - time.monotonic()
        below = self.api.set_span_in_context(span)
        for name, (began, ended) in state.get("stages", {}).items():
            stage = self.tracer.start_span(name, below, start_time=_nanoseconds(epoch + began))
            stage.end(_nanoseconds(epoch + ended))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
