"""The tree of what can go wrong. A message says what was wrong, the value and the mend.

    TurnpointError
    ├── ConfigError                  a setting or argument that cannot work
    ├── DataError                    an input file that cannot be read as asked
    │   └── PairsError               an entry of the stream of pairs that cannot be used
    ├── CheckpointError              a checkpoint that must not be used
    │   ├── CheckpointMissingError   nothing stands where it was expected
    │   ├── CheckpointCorruptError   truncated, altered or half written
    │   └── CheckpointRefusedError   intact, but not fit to serve
    ├── RequestError                 the caller can mend it
    │   ├── UnauthorizedError  ForbiddenError
    │   ├── MalformedError  UnsupportedMediaTypeError  RequestTimeoutError
    │   ├── TooLargeError  (HeadTooLargeError  UrlTooLongError)
    │   ├── DimensionMismatchError  NonFiniteError  EmptyBatchError  OutOfRangeError
    │   └── UnknownModelError  UnknownVersionError
    └── UnavailableError             the caller can only wait; carries `retry_after`
        ├── OverloadedError  (RateLimitedError)
        └── NotReadyError  DeadlineExceededError

`code` is stable: it is what the wire, the client and the documentation call the error. What stands
in brackets has its parent's.
"""

from typing import ClassVar


class TurnpointError(Exception):
    """Root of every error raised on purpose.

    Attributes:
        code: what the wire calls it.
        reason: what `rejected_total` calls it; empty where that is the code.
    """

    code: ClassVar[str] = "internal"
    reason: ClassVar[str] = ""


class ConfigError(TurnpointError):
    """A setting or argument that cannot work."""

    code = "bad_config"


class DataError(TurnpointError):
    """An input file that cannot be read as asked; names the file and the line."""

    code = "bad_data"


class PairsError(DataError):
    """Rows that cannot go on the stream of pairs, or an entry that cannot be read."""

    code = "bad_pairs"


class CheckpointError(TurnpointError):
    """A checkpoint that must not be used."""

    code = "bad_checkpoint"


class CheckpointMissingError(CheckpointError):
    """Nothing stands where a checkpoint was expected."""

    code = "checkpoint_missing"


class CheckpointCorruptError(CheckpointError):
    """The bytes are truncated, altered or half written."""

    code = "checkpoint_corrupt"


class CheckpointRefusedError(CheckpointError):
    """The bytes are intact, but the model is not fit to serve."""

    code = "checkpoint_refused"


class RequestError(TurnpointError):
    """The request cannot be answered as it stands; the caller can mend it."""

    code = "bad_request"


class UnauthorizedError(RequestError):
    """No key, or none that is known here."""

    code = "unauthorized"


class ForbiddenError(RequestError):
    """A known caller who may not do this."""

    code = "forbidden"


class MalformedError(RequestError):
    """The body or a parameter cannot be parsed."""

    code = "malformed"


class UnsupportedMediaTypeError(RequestError):
    """A Content-Type that cannot be read, or an Accept that cannot be met."""

    code = "unsupported_media_type"


class TooLargeError(RequestError):
    """More bytes, rows or header than the limits allow."""

    code = "too_large"


class HeadTooLargeError(TooLargeError):
    """More headers, or longer ones, than the limits allow."""


class UrlTooLongError(TooLargeError):
    """A URL beyond the limit."""


class RequestTimeoutError(RequestError):
    """The head or the body did not arrive in time."""

    code = "request_timeout"


class DimensionMismatchError(RequestError):
    """Arrays whose shapes do not fit each other or the checkpoint."""

    code = "dimension_mismatch"


class NonFiniteError(RequestError):
    """A NaN or an infinity in the input; names the field and the first bad row."""

    code = "non_finite"


class EmptyBatchError(RequestError):
    """No rows."""

    code = "empty_batch"


class OutOfRangeError(RequestError):
    """A parameter outside its range, or one that its transition rule does not take."""

    code = "out_of_range"


class UnknownModelError(RequestError):
    """No model of that name is served."""

    code = "unknown_model"


class UnknownVersionError(RequestError):
    """The model has no such version."""

    code = "unknown_version"


class UnavailableError(TurnpointError):
    """The service cannot answer now.

    Args:
        message: what is the matter.
        retry_after: seconds after which asking again makes sense.
    """

    code = "unavailable"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverloadedError(UnavailableError):
    """Too much is asked for: the queue is full, and `retry_after` is its drain time."""

    code = "overloaded"


class RateLimitedError(OverloadedError):
    """The caller asks for more rows than its key allows; `retry_after` is when they fit."""

    reason = "rate_limited"


class NotReadyError(UnavailableError):
    """No checkpoint yet, or the service is draining."""

    code = "not_ready"


class DeadlineExceededError(UnavailableError):
    """The caller's deadline passed before the request was sampled."""

    code = "deadline_exceeded"
