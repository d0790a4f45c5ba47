"""A span a request and one a stage; nothing at all where nobody asked."""

import gzip
import http.server
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.app import create_app
from service.traces import Trace, provider_from
from tests.service.live import OCTET, octet, pairs, settings_for
from tests.service.test_server import process

STAGES = ["decode", "queue", "sample", "encode"]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(app: FastAPI, spans: InMemorySpanExporter) -> AsyncIterator[httpx.AsyncClient]:
    """The application inside a `Trace` that keeps its spans here."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    transport = httpx.ASGITransport(Trace(app, provider.get_tracer("test")))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client
    provider.shutdown()


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


async def test_a_request_and_its_stages(
    traced: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    answer = await traced.post(
        "/negatives?n=2",
        content=octet(*pairs(5)),
        headers=OCTET | {"traceparent": PARENT, "X-Request-ID": "r-1"},
    )
    found = by_name(spans)
    assert list(found) == [*STAGES, "/negatives"]
    whole = found["/negatives"]
    assert whole.kind is SpanKind.SERVER
    assert whole.attributes == {
        "http.route": "/negatives",
        "http.response.status_code": 200,
        "turnpoint.request_id": "r-1",
        "turnpoint.rows": 5,
    }
    assert whole.parent is not None
    assert f"{whole.parent.trace_id:032x}-{whole.parent.span_id:016x}" in PARENT
    timed = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    slack = 2_000_000  # nanoseconds: the two clocks are read one after the other
    for name in STAGES:
        stage = found[name]
        assert stage.parent is not None
        assert stage.parent.span_id == whole.context.span_id
        assert whole.start_time - slack <= stage.start_time <= stage.end_time
        assert stage.end_time <= whole.end_time + slack
        assert (stage.end_time - stage.start_time) / 1e6 == pytest.approx(
            float(timed[name]), abs=0.01
        )


async def test_refusals_have_a_route_and_no_input(
    traced: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    await traced.get("/secret-path?secret-query")
    await traced.post("/negatives?n=0", content=b"secret", headers=OCTET)
    assert list(by_name(spans)) == ["other", "/negatives"]
    for span in spans.get_finished_spans():
        assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nobody_asked(environment: dict[str, str]) -> None:
    assert provider_from(environment) is None


def test_the_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert provider_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}) is None
    assert "turnpoint[otel]" in caplog.text


def test_without_it_no_sdk_is_loaded_and_no_layer_is_there(registry: Path) -> None:
    app = create_app(settings_for(registry))
    assert Trace not in [layer.cls for layer in app.user_middleware]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP/HTTP collector on loopback, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *told: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def test_a_real_service_sends_to_a_real_collector(
    registry: Path, collector: tuple[str, list[ExportTraceServiceRequest]]
) -> None:
    address, received = collector
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_SERVICE_NAME": "sampler-7"}
    with process(registry, **more) as (child, url):
        assert httpx.post(f"{url}/negatives", content=octet(*pairs(3)), headers=OCTET).is_success
        child.terminate()  # what was not yet sent is sent now
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    resources = [spans for request in received for spans in request.resource_spans]
    names = {
        span.name for spans in resources for scope in spans.scope_spans for span in scope.spans
    }
    assert {*STAGES, "/negatives"} <= names
    named = {a.key: a.value.string_value for s in resources for a in s.resource.attributes}
    assert named["service.name"] == "sampler-7"
