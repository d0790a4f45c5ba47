"""A whole answer, whichever client read it."""

from dataclasses import dataclass

import httpx


@dataclass(frozen=True, eq=False)
class Reply:
    """Status, headers and body; a bytearray, so that arrays laid over it can be written to."""

    status: int
    headers: httpx.Headers
    body: bytearray

    @property
    def media_type(self) -> str:
        """`Content-Type` without its parameters, in lower case."""
        kind: str = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower()
