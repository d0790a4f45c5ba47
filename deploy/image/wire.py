"""Requests to a service on this machine, with the standard library alone."""

import socket
import struct
import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What came back; size in bytes."""

    code: int
    size: int


class Wire:
    """One service, on a port that is free now.

    Args:
        key: sent as a bearer token.
        port: of a service that runs already.
    """

    def __init__(self, key: str, port: int | None = None) -> None:
        self.key = key
        if port is None:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        self.port = port

    def text(self, path: str) -> str:
        """The page."""
        with urllib.request.urlopen(self._url(path), timeout=30) as answer:
            return answer.read().decode()

    def status(self, path: str) -> int:
        """The status; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self._url(path), timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def ask(self, rows: int, dim: int, n: int) -> Answer:
        """Negatives for `rows` pairs, as octet-stream; all numbers are 0.1."""
        request = urllib.request.Request(
            self._url(f"/negatives?n={n}"),
            data=struct.pack("<f", 0.1) * (2 * rows * dim),
            headers={
                "Content-Type": "application/octet-stream",
                "Authorization": f"Bearer {self.key}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Answer(answer.status, len(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, len(error.read()))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"
