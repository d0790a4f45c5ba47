"""`serve`: the application under uvicorn, for the command line."""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from core.errors import ConfigError
from service.app import create_app
from service.settings import LogSettings, ServerSettings, Settings

log = logging.getLogger("turnpoint.service")


def serve(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is answered.

    Args:
        settings: see `service.settings.load_settings`.
        on_ready: called with the address once it answers.

    Raises:
        ConfigError: the address cannot be bound.
    """
    configure_logs(settings.log)
    if os.environ.get("WEB_CONCURRENCY", "1") != "1":
        log.warning("WEB_CONCURRENCY has no effect: one process is one replica, start more of them")
    listening = _bind(settings.server)
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        create_app(settings),
        timeout_keep_alive=settings.server.keep_alive_seconds,
        timeout_graceful_shutdown=settings.server.drain_seconds,
        workers=1,
        log_config=None,
        access_log=settings.log.level == "debug",
        server_header=False,
        lifespan="on",
    )
    with listening:
        _Server(config, address, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says when it is ready, and lets SIGTERM end in exit code 0."""

    def __init__(
        self, config: uvicorn.Config, address: str, on_ready: Callable[[str], None] | None
    ) -> None:
        super().__init__(config)
        self.address = address
        self.on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets=sockets)
        if not self.started:
            return
        log.info("listening on %s", self.address)
        if self.on_ready is not None:
            self.on_ready(self.address)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first signal, stop on the second; uvicorn's own raises the signal again."""
        wanted = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        except ValueError:  # not the main thread: whoever started us stops us
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002
        """Note the signal."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _bind(server: ServerSettings) -> socket.socket:
    """A bound socket.

    Raises:
        ConfigError: the port is taken, or the host is none of ours.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((server.host, server.port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {server.host}:{server.port}: {error.strerror or error}; choose "
            "another with TURNPOINT_SERVER__HOST and TURNPOINT_SERVER__PORT"
        ) from error
    return listening


def configure_logs(settings: LogSettings) -> None:
    """One line per event on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    human = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(human if settings.format == "human" else _JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    if settings.level != "debug":  # uvicorn tells every start and stop; we tell our own
        logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """time, level, logger, message, and the trace where there is one."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
