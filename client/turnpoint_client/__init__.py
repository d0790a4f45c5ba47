"""Client of the Turnpoint negative-sampling service.

    with Client("http://localhost:8000", model="demo") as client:
        answer = client.negatives(users, positives, n=8)     # numpy in, numpy out; so is torch
        answer.negatives, answer.transition, answer.version  # [B, 8, d], [B], who answered

`AsyncClient` is the same, awaited. `Prefetcher` and `ItemPrefetcher` ask ahead of a training loop.
What can go wrong: `turnpoint_client.errors`.
"""

from ._ahead import Batch, PrefetchStats
from ._client import AsyncClient, Client
from ._options import Options
from ._prefetch import ItemPrefetcher, Prefetcher
from ._retry import Retries, Stats
from ._version import __version__
from .errors import (
    ConnectError,
    DeadlineExceededError,
    DimensionMismatchError,
    DisconnectedError,
    EmptyBatchError,
    InvalidInputError,
    MalformedError,
    NonFiniteError,
    NotReadyError,
    OutOfRangeError,
    OverloadedError,
    ProblemError,
    ProtocolError,
    StaleVersionError,
    TimedOutError,
    TooLargeError,
    TransportError,
    TurnpointClientError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
    UnknownVersionError,
    UnsupportedMediaTypeError,
)
from .results import Distribution, Items, Model, ModelVersion, Negatives

__all__ = [
    "AsyncClient",
    "Batch",
    "Client",
    "ConnectError",
    "DeadlineExceededError",
    "DimensionMismatchError",
    "DisconnectedError",
    "Distribution",
    "EmptyBatchError",
    "InvalidInputError",
    "ItemPrefetcher",
    "Items",
    "MalformedError",
    "Model",
    "ModelVersion",
    "Negatives",
    "NonFiniteError",
    "NotReadyError",
    "Options",
    "OutOfRangeError",
    "OverloadedError",
    "PrefetchStats",
    "Prefetcher",
    "ProblemError",
    "ProtocolError",
    "Retries",
    "StaleVersionError",
    "Stats",
    "TimedOutError",
    "TooLargeError",
    "TransportError",
    "TurnpointClientError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownModelError",
    "UnknownVersionError",
    "UnsupportedMediaTypeError",
    "__version__",
]
