"""Twins: what `Client` does, `AsyncClient` does, request by request and second by second."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import httpx
from turnpoint_client import AsyncClient, Client, TurnpointClientError

from tests.client.fake import Answer, Request

Service = Callable[[Request], Answer]
Step = Callable[[Any], Any]


@dataclass
class Outcome:
    """Everything one client did with a scenario."""

    results: list[Any]
    requests: list[tuple[str, str, list[tuple[str, str]], bytes]]
    slept: list[float]
    stats: str

    @property
    def result(self) -> Any:
        (result,) = self.results
        return result

    @property
    def error(self) -> Any:
        assert isinstance(self.result, TurnpointClientError), self.result
        return self.result

    @property
    def sent(self) -> list[Request]:
        return [
            Request.of(
                method, httpx.URL(url).path, httpx.URL(url).query.decode(), dict(headers), body
            )
            for method, url, headers, body in self.requests
        ]


def mock(service: Service, log: list[Any]) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        headers = request.headers.multi_items()
        log.append((request.method, str(request.url), headers, request.content))
        told = Request.of(
            request.method,
            request.url.path,
            request.url.query.decode(),
            request.headers,
            request.content,
        )
        answer = service(told)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    return httpx.MockTransport(handle)


def scripted(*answers: Answer | Exception | Service) -> Callable[[], Service]:
    """A service that gives these answers one after the other."""

    def start() -> Service:
        left = iter(answers)

        def serve(request: Request) -> Answer:
            answer = next(left)
            if isinstance(answer, Exception):
                raise answer
            return answer(request) if callable(answer) else answer

        return serve

    return start


def both(
    start: Callable[[], Service], *steps: Step, uniform: float = 0.5, **options: Any
) -> Outcome:
    """Runs the steps through each client against a fresh service, and wants the two alike."""
    blocking = _blocking(start(), steps, {"uniform": lambda: uniform} | options)
    awaited = asyncio.run(_awaited(start(), steps, {"uniform": lambda: uniform} | options))
    assert blocking.requests == awaited.requests
    assert blocking.slept == awaited.slept
    assert blocking.stats == awaited.stats
    assert alike(blocking.results, awaited.results), (blocking.results, awaited.results)
    return blocking


def _blocking(service: Service, steps: tuple[Step, ...], options: dict[str, Any]) -> Outcome:
    requests: list[Any] = []
    slept: list[float] = []
    results = []
    transport = mock(service, requests)
    with Client("http://tp", transport=transport, sleep=slept.append, **options) as client:
        for step in steps:
            try:
                results.append(step(client))
            except TurnpointClientError as error:
                results.append(error)
        return Outcome(results, requests, slept, repr(client.stats))


async def _awaited(service: Service, steps: tuple[Step, ...], options: dict[str, Any]) -> Outcome:
    requests: list[Any] = []
    slept: list[float] = []
    results = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    transport = mock(service, requests)
    async with AsyncClient("http://tp", transport=transport, sleep=sleep, **options) as client:
        for step in steps:
            try:
                found = step(client)
                results.append(await found if inspect.isawaitable(found) else found)
            except TurnpointClientError as error:
                results.append(error)
        return Outcome(results, requests, slept, repr(client.stats))


def alike(one: Any, other: Any) -> bool:
    """Equality that looks into arrays, results and errors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, TurnpointClientError):
        return str(one) == str(other) and alike(vars(one), vars(other))
    if is_dataclass(one):
        names = [entry.name for entry in fields(one)]
        return all(alike(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if hasattr(one, "shape"):
        return one.dtype == other.dtype and bool((one == other).all())
    return bool(one == other)
