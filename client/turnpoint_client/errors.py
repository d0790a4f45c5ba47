"""The tree of what can go wrong. A message says what was wrong, the value and the mend.

    TurnpointClientError
    ├── InvalidInputError            refused here, before anything was sent; a ValueError
    ├── TransportError               no answer came
    │   ├── ConnectError             nobody can be reached; a ConnectionError
    │   ├── DisconnectedError        hung up before the answer was whole; a ConnectionError
    │   └── TimedOutError            the time-out or the deadline ran out here; a TimeoutError
    ├── ProtocolError                an answer came that does not fit the contract
    ├── StaleVersionError            an answer came, of a version older than the caller allows
    └── ProblemError                 the service said no: status, code, title, detail
        ├── MalformedError  UnauthorizedError                                   400, 401
        ├── UnknownModelError  UnknownVersionError                              404
        ├── UnsupportedMediaTypeError  TooLargeError                            406/415, 413
        ├── DimensionMismatchError  NonFiniteError                              422
        │   EmptyBatchError  OutOfRangeError
        └── UnavailableError         the caller can only wait; see `retry_after`
            ├── OverloadedError  NotReadyError                                  429, 503
            └── DeadlineExceededError    a TimeoutError, too                    504

A `code` beyond these is a plain `ProblemError`: a newer service does not break an older client.
"""

from functools import partial
from typing import Any


class TurnpointClientError(Exception):
    """Root of every error raised on purpose."""


class InvalidInputError(TurnpointClientError, ValueError):
    """An argument that cannot work; nothing was sent."""


class TransportError(TurnpointClientError):
    """No answer came."""


class ConnectError(TransportError, ConnectionError):
    """Nobody listens there, or nobody can be reached."""


class DisconnectedError(TransportError, ConnectionError):
    """The other side hung up before its answer was whole."""


class TimedOutError(TransportError, TimeoutError):
    """The time-out of the client, or the deadline of the call, ran out on this side."""


class ProtocolError(TurnpointClientError):
    """An answer that does not fit the contract: another kind of server, or a proxy between."""


class StaleVersionError(TurnpointClientError):
    """An answer of a version that is older than the caller allows."""


class ProblemError(TurnpointClientError):
    """The service refused.

    Args:
        status: HTTP status.
        code: stable name of the problem; `http_<status>` where the answer was no problem document.
        title: what kind of problem it is.
        detail: what was wrong with this request.
        request_id: what the service's own log calls the request, if it said.
        retry_after: seconds after which asking again makes sense, if it said.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        request_id: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status} {code}: {detail or title}{named}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (data-loader workers); by default only the message would.
        told = (self.status, self.code, self.title, self.detail, self.request_id)
        return partial(type(self), retry_after=self.retry_after), told


class UnauthorizedError(ProblemError):
    """No key, or a wrong one."""


class MalformedError(ProblemError):
    """The body or a parameter cannot be parsed."""


class UnknownModelError(ProblemError):
    """No model of that name is served."""


class UnknownVersionError(ProblemError):
    """The model has no such version."""


class UnsupportedMediaTypeError(ProblemError):
    """A Content-Type that cannot be read, or an Accept that cannot be met."""


class TooLargeError(ProblemError):
    """More bytes or rows than the limits allow."""


class DimensionMismatchError(ProblemError):
    """Arrays whose shapes do not fit each other or the checkpoint."""


class NonFiniteError(ProblemError):
    """A NaN or an infinity in the input."""


class EmptyBatchError(ProblemError):
    """No rows."""


class OutOfRangeError(ProblemError):
    """A parameter outside its range, or one that its transition rule does not take."""


class UnavailableError(ProblemError):
    """The service cannot answer now."""


class OverloadedError(UnavailableError):
    """The queue is full; `retry_after` is its drain time."""


class NotReadyError(UnavailableError):
    """No checkpoint yet, or the service is draining."""


class DeadlineExceededError(UnavailableError, TimeoutError):
    """The deadline passed before the service came to the request."""


BY_CODE: dict[str, type[ProblemError]] = {
    "unauthorized": UnauthorizedError,
    "malformed": MalformedError,
    "unknown_model": UnknownModelError,
    "unknown_version": UnknownVersionError,
    "unsupported_media_type": UnsupportedMediaTypeError,
    "too_large": TooLargeError,
    "dimension_mismatch": DimensionMismatchError,
    "non_finite": NonFiniteError,
    "empty_batch": EmptyBatchError,
    "out_of_range": OutOfRangeError,
    "overloaded": OverloadedError,
    "not_ready": NotReadyError,
    "deadline_exceeded": DeadlineExceededError,
}

# What a proxy's bare status means. Its 504 is no missed deadline of ours.
BY_STATUS: dict[int, type[ProblemError]] = {
    401: UnauthorizedError,
    413: TooLargeError,
    415: UnsupportedMediaTypeError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
