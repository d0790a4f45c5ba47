"""`serve`: the application under uvicorn, for the command line."""

import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from core.errors import ConfigError
from service.app import create_app
from service.connection import GuardedProtocol
from service.engine import Engine
from service.logs import configure_logs
from service.process import reuse_freed_memory, settle_garbage
from service.settings import RegistrySettings, ServerSettings, Settings

FAILED = 70  # exit code once nothing can be computed any more: EX_SOFTWARE of sysexits.h
log = logging.getLogger("turnpoint.service")


def serve(settings: Settings, on_ready: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; what was accepted by then is answered.

    Or until the engine fails: then the process is to end with the code returned, and not to wait
    for its threads, one of which may be stuck for ever.

    Args:
        settings: see `service.settings.load_settings`.
        on_ready: called with the address once it answers.

    Returns:
        The exit code: 0, or `FAILED`.

    Raises:
        ConfigError: the address cannot be bound, there is no registry, a file of keys or
            certificates cannot be used, or see `create_app`.
    """
    configure_logs(settings.log)
    reuse_freed_memory()
    if os.environ.get("WEB_CONCURRENCY", "1") != "1":
        log.warning("WEB_CONCURRENCY has no effect: one process is one replica, start more of them")
    _check_registry(settings.registry)
    app = create_app(settings)
    engine: Engine = app.state.service.engine
    config = server_config(app, settings.server)
    listening = _bind(settings.server)
    host, port = listening.getsockname()[:2]
    scheme = "https" if config.is_ssl else "http"
    address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    with listening:
        _Server(config, engine, address, on_ready).run(sockets=[listening])
    return 0 if engine.failure is None else FAILED


def server_config(app: FastAPI, server: ServerSettings) -> uvicorn.Config:
    """How uvicorn serves the application: HTTP/1.1, bounded, over TLS where there are files for it.

    Raises:
        ConfigError: files of TLS that cannot be used.
    """
    _check_tls(server)
    password = server.tls_key_password
    return uvicorn.Config(
        app,
        http=partial(  # type: ignore[arg-type]  # called, as a class is
            GuardedProtocol, limits=server, metrics=app.state.service.metrics
        ),
        ws="none",
        workers=1,
        timeout_keep_alive=server.keep_alive_seconds,
        timeout_graceful_shutdown=server.drain_seconds,
        log_config=None,
        access_log=False,  # `metrics.Observe` writes ours, without queries
        proxy_headers=False,  # an address that anybody can claim is none
        server_header=False,
        lifespan="on",
        ssl_certfile=server.tls_certfile,
        ssl_keyfile=server.tls_keyfile,
        ssl_keyfile_password=password.get_secret_value() if password else None,
        ssl_ca_certs=server.tls_client_ca,
        ssl_cert_reqs=ssl.CERT_REQUIRED if server.tls_client_ca else ssl.CERT_NONE,
    )


class _Server(uvicorn.Server):
    """Says when it is ready, ends when the engine fails, and lets SIGTERM end in exit code 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        address: str,
        on_ready: Callable[[str], None] | None,
    ) -> None:
        super().__init__(config)
        self.engine = engine
        self.address = address
        self.on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets=sockets)
        if not self.started:
            return
        settle_garbage()
        log.info("listening on %s", self.address)
        if self.on_ready is not None:
            self.on_ready(self.address)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self.engine.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

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
        """Drain at the first signal; end the process at the second, whatever is under way."""
        if self.should_exit:
            os._exit(128 + sig)
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


def _check_registry(registry: RegistrySettings) -> None:
    """An empty folder will be filled; one that is not there is a mistake in writing.

    Raises:
        ConfigError: there is none.
    """
    local = "://" not in registry.address
    if local and not Path(registry.address).expanduser().is_dir():
        raise ConfigError(
            f"there is no registry at {registry.address}: train and publish to it first (`make "
            "demo` does), name another with --registry or TURNPOINT_REGISTRY__ADDRESS, or make "
            "the folder if it will be filled later"
        )


def _check_tls(server: ServerSettings) -> None:
    """Load the files once, with an error that says what is wrong and without asking a terminal.

    Raises:
        ConfigError: a file is missing, is none of its kind, or does not fit the others.
    """
    if server.tls_certfile is None:
        return
    secret = server.tls_key_password.get_secret_value() if server.tls_key_password else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.tls_certfile, server.tls_keyfile, lambda: secret)
        if server.tls_client_ca is not None:
            context.load_verify_locations(server.tls_client_ca)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ConfigError(
            f"TLS cannot start ({error}): check TURNPOINT_SERVER__TLS_CERTFILE = "
            f"{server.tls_certfile}, TURNPOINT_SERVER__TLS_KEYFILE = {server.tls_keyfile or '–'}, "
            f"its password, and TURNPOINT_SERVER__TLS_CLIENT_CA = {server.tls_client_ca or '–'}"
        ) from error
