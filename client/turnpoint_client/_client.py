"""The two clients. Each sends, reads and sleeps in its own way; everything else is shared."""

import asyncio
import functools
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, get_args

import httpx

from ._direct import AsyncDirect, Direct
from ._options import Options
from ._reply import Reply
from ._retry import Course, Retries, Stats
from ._version import __version__
from ._wire import Call, Wire
from .errors import TransportError, TurnpointClientError

P = ParamSpec("P")
T = TypeVar("T")
Transport = TypeVar("Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)
Slept = TypeVar("Slept")

DEFAULT_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
DEFAULT_RETRIES = Retries()
TROUBLE = (httpx.HTTPError, TurnpointClientError)


def _told(build: Callable[..., Any]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Gives a method its builder's name, documentation and signature, for help() to show.

    Every option is spelled out there.
    """

    def dress(method: Callable[..., T]) -> Callable[..., T]:
        functools.update_wrapper(method, build)
        method.__qualname__ = build.__name__
        told = inspect.signature(build)
        named = [value for value in told.parameters.values() if value.kind is not value.VAR_KEYWORD]
        if len(named) < len(told.parameters):
            named += [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
                )
                for name, kind in Options.__annotations__.items()
            ]
        (answer,) = get_args(told.return_annotation)
        method.__signature__ = inspect.Signature(named, return_annotation=answer)  # type: ignore[attr-defined]
        return method

    return dress


def _blocking(
    build: Callable[Concatenate[Wire, P], Call[T]],
) -> Callable[Concatenate["Client", P], T]:
    """A method of `Client` that makes the call."""

    @_told(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(self._wire, *args, **kwargs))

    return method


def _awaited(
    build: Callable[Concatenate[Wire, P], Call[T]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    """A method of `AsyncClient` that makes the call."""

    @_told(build)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(self._wire, *args, **kwargs))

    return method


class _Base(Generic[Transport, Slept]):
    """What the two clients share: how they are made, and the course of a call."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        retries: int | Retries = DEFAULT_RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
        sleep: Callable[[float], Slept] | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.stats = Stats()
        self._wire = Wire(
            url,
            model=model,
            api_key=api_key,
            headers=headers,
            timeout=httpx.Timeout(timeout),
            user_agent=f"turnpoint-client/{__version__}",
        )
        self._retries = Retries(limit=retries) if isinstance(retries, int) else retries
        self._sleep = self._default_sleep if sleep is None else sleep
        self._uniform = uniform
        self._open(transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wire!r})"

    def _open(self, transport: Transport | None) -> None:
        """Makes the httpx client, which owns the connections."""
        raise NotImplementedError

    def _default_sleep(self, seconds: float) -> Slept:
        raise NotImplementedError

    def _course(self, call: Call[Any]) -> Course:
        retries = self._retries if call.repeatable else Retries(limit=0)
        return Course(call.deadline, retries, self.stats, uniform=self._uniform)

    def _request(self, call: Call[Any], course: Course) -> httpx.Request:
        request = self._wire.request(call, course.left())
        self.stats.count(requests=1)
        return request


class Client(_Base[httpx.BaseTransport, None]):
    """The service, for code that waits for its answers. Threads may share one; processes may not.

    Args:
        url: where the service is, as http://localhost:8000.
        model: the model of calls that name none; default: the service's.
        api_key: sent as a bearer token.
        timeout: seconds, or an `httpx.Timeout`, for each network step; 30 by default, 5 to connect.
        retries: how many times a call is repeated, or a whole `Retries` policy; 0 turns them off.
        headers: sent with every request.
        transport: in place of the network: certificates, proxies, Unix sockets, tests.
        sleep: waits between tries.
        uniform: draws from [0, 1), for the jitter of those waits.

    Attributes:
        stats: requests, retries and seconds waited so far.

    Raises:
        InvalidInputError: a url or key that cannot work.
    """

    def _open(self, transport: httpx.BaseTransport | None) -> None:
        if transport is None and (address := self._wire.direct()) is not None:
            transport = Direct(address)
        self._http = httpx.Client(transport=transport)

    def _default_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _send(self, call: Call[T], sleep: Callable[[float], None] | None = None) -> T:
        course = self._course(call)
        while True:
            try:
                request = self._request(call, course)
                with closing(self._http.send(request, stream=True)) as response:
                    chunks = list(response.iter_bytes())
                return call.read(Reply.of(response, chunks))
            except TROUBLE as error:
                pause = course.pause(error)
            (sleep or self._sleep)(pause)

    negatives = _blocking(Wire.negatives)
    items = _blocking(Wire.items)
    distribution = _blocking(Wire.distribution)
    models = _blocking(Wire.models)
    model = _blocking(Wire.model)

    def ready(self) -> bool:
        """Whether requests would be answered now; False while nobody listens. Asks only once."""
        try:
            return self._send(self._wire.ready())
        except TransportError:
            return False

    def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Base[httpx.AsyncBaseTransport, Awaitable[None]]):
    """The service, for code on an event loop: `Client`, awaited; all else is the same."""

    def _open(self, transport: httpx.AsyncBaseTransport | None) -> None:
        if transport is None and (address := self._wire.direct()) is not None:
            transport = AsyncDirect(address)
        self._http = httpx.AsyncClient(transport=transport)

    async def _default_sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _send(self, call: Call[T]) -> T:
        course = self._course(call)
        while True:
            try:
                request = self._request(call, course)
                async with aclosing(await self._http.send(request, stream=True)) as response:
                    chunks = [chunk async for chunk in response.aiter_bytes()]
                return call.read(Reply.of(response, chunks))
            except TROUBLE as error:
                pause = course.pause(error)
            await self._sleep(pause)

    negatives = _awaited(Wire.negatives)
    items = _awaited(Wire.items)
    distribution = _awaited(Wire.distribution)
    models = _awaited(Wire.models)
    model = _awaited(Wire.model)

    async def ready(self) -> bool:
        """Whether requests would be answered now; False while nobody listens. Asks only once."""
        try:
            return await self._send(self._wire.ready())
        except TransportError:
            return False

    async def aclose(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
