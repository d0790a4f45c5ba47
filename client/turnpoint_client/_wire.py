"""Every call as a request to send and a way to read its answer; no IO, so both clients share it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import httpx

from ._answers import arrays_of, check, document_of, expected_shapes, model_of
from ._arrays import A, library_of
from ._formats import MEDIA_TYPES, Body, encode
from ._options import SCALARS, Options, extras, format_of, pair, seconds, text, wanted_of, whole
from ._reply import Reply
from .errors import InvalidInputError, ProtocolError
from .results import Distribution, Items, Model, Negatives

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """A request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[Reply], T]
    accept: str = "application/json"
    params: tuple[tuple[str, str], ...] = ()
    body: Body | None = None
    media_type: str | None = None
    deadline: float | None = None
    repeatable: bool = True


class Wire:
    """The calls of the contract, and the requests they become.

    Args:
        url: where the service is, with or without a path in front of its routes.
        model: the model of calls that name none.
        api_key: sent as a bearer token.
        headers: sent with every request.
        timeout: of each network step, as httpx counts it.

    Raises:
        InvalidInputError: a url without http(s) or host; a key with blanks or beyond ASCII.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        api_key: str | None,
        headers: Mapping[str, str] | None,
        timeout: httpx.Timeout,
        user_agent: str,
    ) -> None:
        self._url = _service(url)
        self._model = model
        self._timeout = timeout
        self._headers = httpx.Headers(
            {
                "Host": self._url.netloc.decode("ascii"),
                "User-Agent": user_agent,
                "Accept-Encoding": "identity",  # random floats do not compress
            }
        )
        self._headers.update(headers)
        if api_key is not None:
            if not api_key.isascii() or not api_key.isprintable() or " " in api_key or not api_key:
                raise InvalidInputError(
                    "api_key is empty or has blanks or characters beyond ASCII; "
                    "does it end in a line break?"
                )
            self._headers["Authorization"] = f"Bearer {api_key}"

    def __repr__(self) -> str:
        return f"url={str(self._url)!r}, model={self._model!r}"  # never the key

    def direct(self) -> tuple[str, int] | None:
        """Host and port, where plain HTTP leads straight there; None with TLS or a proxy."""
        host, port = self._url.raw_host.decode("ascii"), self._url.port or 80
        proxied = not getproxies().keys().isdisjoint({"http", "all"})
        if self._url.scheme != "http" or (proxied and not proxy_bypass(f"{host}:{port}")):
            return None
        return host, port

    def request(self, call: Call[Any], left: float | None) -> httpx.Request:
        """The call as a request to send once, `left` seconds before its deadline."""
        headers = self._headers.copy()
        headers["Accept"] = call.accept
        timeout = self._timeout.as_dict()
        if left is not None:
            headers["X-Request-Timeout-Ms"] = str(max(1, int(left * 1000)))
            timeout = {step: min(left, limit or left) for step, limit in timeout.items()}
        if call.body is not None and call.media_type is not None:
            headers["Content-Type"] = call.media_type
            headers["Content-Length"] = str(call.body.length)
        path = self._url.raw_path.decode("ascii").rstrip("/") + call.path
        if call.params:
            path += f"?{httpx.QueryParams(call.params)}"
        return httpx.Request(
            call.method,
            self._url.copy_with(raw_path=path.encode("ascii")),  # parsed once, which takes 0.1 ms
            headers=headers,
            stream=call.body or Body(),
            extensions={"timeout": timeout},
        )

    def negatives(
        self,
        users: A,
        positives: A,
        *,
        n: int = 1,
        returns: str | Iterable[str] | None = None,
        **options: Unpack[Options],
    ) -> Call[Negatives[A]]:
        """Synthesises n negatives for each pair of a batch.

        Args:
            users: [B, d] user or sequence embeddings, numpy or torch; sent as float32.
            positives: [B, d] embeddings of the positive items, of the same kind.
            n: negatives per row.
            returns: "negatives" and any of "transition", "distribution", "scores", "items".
                Default: negatives and transition; with `format="octet-stream"` the negatives alone.
            **options: see `Options`.

        Returns:
            Arrays of the kind that came in, torch tensors on the device of `users`.

        Raises:
            InvalidInputError: an argument that cannot work; nothing was sent.
            ProblemError: the service refused; its subclasses say why.
            TransportError: no answer came, after all retries.
            ProtocolError: the answer does not fit the contract.
        """
        raw = options.get("format") == "octet-stream"
        wanted = wanted_of(returns or (("negatives",) if raw else ("negatives", "transition")))
        if "negatives" not in wanted:
            raise InvalidInputError(
                f"returns is {wanted}, without 'negatives'; "
                "for their law alone call distribution(), for their items alone items()"
            )
        scalars = {"n": _count(n), "returns": wanted}
        return self._batch(users, positives, scalars, options, Negatives)

    def items(
        self, users: A, positives: A, *, n: int = 1, **options: Unpack[Options]
    ) -> Call[Items[A]]:
        """Asks which items of the model's catalogue the negatives are, without their vectors.

        For whoever has the item table: the vectors would be 4 d bytes each, an item is 8.

        Args:
            users: [B, d] user or sequence embeddings, numpy or torch; sent as float32.
            positives: [B, d] embeddings of the positive items, of the same kind.
            n: negatives per row.
            **options: see `Options`.

        Returns:
            The items that `negatives` with the same seed would name, of the kind that came in.

        Raises:
            InvalidInputError: an argument that cannot work; nothing was sent.
            OutOfRangeError: the model has no catalogue.
            ProblemError: the service refused; its subclasses say why.
            TransportError: no answer came, after all retries.
            ProtocolError: the answer does not fit the contract.
        """
        scalars = {"n": _count(n), "returns": ["items"]}
        return self._batch(users, positives, scalars, options, Items)

    def distribution(
        self, users: A, positives: A, **options: Unpack[Options]
    ) -> Call[Distribution[A]]:
        """Asks for the law of each row's negatives, to draw from here as often as wanted.

        Args:
            users: [B, d] user or sequence embeddings, numpy or torch; sent as float32.
            positives: [B, d] embeddings of the positive items, of the same kind.
            **options: see `Options`.

        Returns:
            Mean, deviations and transition point of each row, of the kind that came in.

        Raises:
            InvalidInputError: an argument that cannot work; nothing was sent.
            ProblemError: the service refused; its subclasses say why.
            TransportError: no answer came, after all retries.
            ProtocolError: the answer does not fit the contract.
        """
        wanted = ["distribution", "transition"]
        return self._batch(users, positives, {"returns": wanted}, options, Distribution)

    def models(self) -> Call[list[Model]]:
        """Lists the models the service knows."""

        def read(reply: Reply) -> list[Model]:
            listed = document_of(reply).get("models")
            if not isinstance(listed, list):
                raise ProtocolError("the answer to GET /models has no list 'models'")
            return [model_of(entry) for entry in listed]

        return Call(method="GET", path="/models", read=read)

    def model(self, name: str) -> Call[Model]:
        """Describes one model.

        Raises:
            UnknownModelError: no model of that name is served.
        """
        path = f"/models/{quote(text('name', name), safe='')}"
        return Call(method="GET", path=path, read=lambda reply: model_of(document_of(reply)))

    def ready(self) -> Call[bool]:
        """Whether the service has a checkpoint loaded and takes requests; asked once."""

        def read(reply: Reply) -> bool:
            if reply.status == 503:
                return False
            check(reply)
            return True

        return Call(method="GET", path="/readyz", read=read, accept="*/*", repeatable=False)

    def _batch(
        self,
        users: A,
        positives: A,
        scalars: dict[str, Any],
        options: Options,
        kind: Callable[..., T],
    ) -> Call[T]:
        """One POST /negatives."""
        given = {name: value for name, value in options.items() if value is not None}
        if self._model is not None:
            given.setdefault("model", self._model)
        deadline = seconds("deadline", given.pop("deadline", None))
        chosen = str(given.pop("format", "auto"))
        library = library_of(users, positives)
        tensors = pair(users, positives)
        rows, dim = tensors["users"].shape
        tensors |= extras(given, rows=rows)
        for name, value in given.items():
            if name not in SCALARS:
                raise TypeError(f"unexpected keyword argument {name!r}; see Options")
            scalars[name] = SCALARS[name](name, value)
        media_type = MEDIA_TYPES[format_of(chosen, tensors, scalars)]
        encoded = encode(media_type, tensors, scalars)
        expected = expected_shapes(rows, dim, scalars)
        return Call(
            method="POST",
            path="/negatives",
            read=lambda reply: kind(**arrays_of(reply, library, expected)),
            accept=media_type,
            params=encoded.params,
            body=encoded.body,
            media_type=media_type,
            deadline=deadline,
        )


def _count(n: Any) -> int:
    found = whole("n", n)
    if found < 1:
        raise InvalidInputError(f"n is {found}; pass at least 1")
    return found


def _service(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidInputError(f"url {url!r} cannot be read: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query:
        raise InvalidInputError(f"url {url!r} is no address; write it as http://localhost:8000")
    return parsed
