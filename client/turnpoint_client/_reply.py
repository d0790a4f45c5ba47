"""A whole answer, whichever client read it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx


@dataclass(frozen=True, eq=False)
class Reply:
    """Status, headers and body; writable memory, so that arrays laid over it can be written to."""

    status: int
    headers: httpx.Headers
    body: memoryview

    @classmethod
    def of(cls, response: httpx.Response, chunks: Sequence[bytes]) -> Self:
        """A response of which these are all bytes; a single chunk of writable memory is kept."""
        if len(chunks) != 1 or (body := memoryview(chunks[0])).readonly:
            body = memoryview(bytearray().join(chunks))
        return cls(response.status_code, response.headers, body)

    @property
    def media_type(self) -> str:
        """`Content-Type` without its parameters, in lower case."""
        kind: str = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower()

    def document(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError, RecursionError: it is none.
        """
        return json.loads(bytes(self.body))
