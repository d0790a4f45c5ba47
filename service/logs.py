"""What is written to standard error: one line an event, with the id of its request.

Nothing that a caller sent is written: no body, no query, no user id, no address unless asked for.
Of an unexpected error in a request the log has the type and the lines of code; its message, which
may quote the request, only at level debug.
"""

import json
import logging
import sys
import traceback
from contextvars import ContextVar

from service.settings import LogSettings

request_id: ContextVar[str] = ContextVar("request_id", default="")


def configure_logs(settings: LogSettings) -> None:
    """Send everything to standard error, in the format asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_with_request_id)
    quote = settings.level == "debug"
    handler.setFormatter(_Human(quote=quote) if settings.format == "human" else _Json(quote=quote))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # uvicorn warns of every request that is none, and at lower levels of every connection.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


class _Formatter(logging.Formatter):
    """What both formats share.

    Args:
        quote: whether the messages of unexpected errors in requests may be written.
    """

    def __init__(self, *, quote: bool) -> None:
        super().__init__()
        self.quote = quote

    def trace(self, record: logging.LogRecord) -> str:
        """The lines of code that led to an error, and what kind of error it is."""
        if not record.exc_info or record.exc_info[1] is None:
            return ""
        error = record.exc_info[1]
        if self.quote or not record.__dict__["request_id"]:
            return "".join(traceback.format_exception(error)).rstrip()
        lines = []
        cause: BaseException | None = error
        while cause is not None:
            lines += traceback.format_tb(cause.__traceback__)
            lines.append(f"{type(cause).__name__}; its message is written at level debug\n")
            cause = cause.__cause__ or cause.__context__
        return "".join(lines).rstrip()


class _Human(_Formatter):
    """For people. Control characters are escaped: an event cannot pretend to be two."""

    def format(self, record: logging.LogRecord) -> str:
        """`time LEVEL logger: message [request id]`, and the trace where there is one."""
        named = record.__dict__["request_id"]
        line = f"{self.formatTime(record)} {record.levelname:7} {record.name}: " + "".join(
            char if char.isprintable() else repr(char)[1:-1] for char in record.getMessage()
        )
        trace = self.trace(record)
        return line + (f" [{named}]" if named else "") + (f"\n{trace}" if trace else "")


class _Json(_Formatter):
    """For machines: a JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """time, level, logger, message, the request's id and an event's own fields, and a trace."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": record.__dict__["request_id"],
            **record.__dict__.get("fields", {}),
            "trace": self.trace(record),
        }
        return json.dumps({name: value for name, value in line.items() if value != ""})
