"""Every setting of the service, in one frozen tree: `TURNPOINT_<GROUP>__<NAME>`.

What the command line sets wins over the environment, which wins over the default. A name that does
not exist stops the start, since a misspelt limit that is silently ignored is no limit.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError

PREFIX = "TURNPOINT_"
# Names that other parts read: the data file of `make demo` and of the tests on real data, and the
# key that `turnpoint bench` sends.
FOREIGN_NAMES = frozenset({"TURNPOINT_DATA", "TURNPOINT_API_KEY"})
MIB = 2**20


class Group(BaseModel):
    """A frozen group that knows its names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)


class ServerSettings(Group):
    """The socket and the limits of one request."""

    host: str = Field("127.0.0.1", description="address to bind; 0.0.0.0 is every interface")
    port: int = Field(8000, ge=0, le=65535, description="port to bind; 0 takes a free one")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="largest request body, in bytes")
    max_url_bytes: int = Field(8192, ge=256, description="longest URL, in bytes")
    max_head_bytes: int = Field(
        65_536, ge=1024, description="largest head of a request, URL and headers, in bytes"
    )
    max_headers: int = Field(100, ge=8, description="most headers in one request")
    head_timeout_seconds: float = Field(
        10.0, gt=0, description="seconds that the head of a request may take to arrive"
    )
    body_timeout_seconds: float = Field(
        60.0, gt=0, description="seconds a body may take to arrive, and an answer to be read"
    )
    max_json_bytes: int = Field(32 * MIB, ge=1024, description="largest JSON body, in bytes")
    max_response_bytes: int = Field(
        256 * MIB, ge=1024, description="largest answer, in bytes; a JSON number counts as 20"
    )
    max_rows: int = Field(65_536, ge=1, description="most rows in one request")
    max_json_rows: int = Field(4096, ge=1, description="most rows in one JSON request")
    max_n: int = Field(256, ge=1, le=256, description="most negatives per row")
    device: str = Field(
        "cpu", description="torch device that computes: cpu, cuda or cuda:N; one process each"
    )
    torch_threads: int = Field(
        1,
        ge=1,
        description="threads of one torch operation on the CPU; one leaves the other core to "
        "the event loop, and small operations gain nothing from more",
    )
    keep_alive_seconds: int = Field(
        75, ge=1, description="seconds an idle connection is kept; above a trainer's pause"
    )
    drain_seconds: int = Field(
        30, ge=1, description="seconds that accepted requests get to finish after SIGTERM"
    )
    hang_seconds: int = Field(
        60,
        ge=1,
        description="seconds that one batch may take before the model thread counts as hung and "
        "the process ends; far above the largest request's time",
    )
    tls_certfile: str | None = Field(
        None, description="PEM file of the certificate chain; with it the service speaks HTTPS"
    )
    tls_keyfile: str | None = Field(
        None, description="PEM file of its private key; default: the certificate's file"
    )
    tls_key_password: SecretStr | None = Field(None, description="password of that key")
    tls_client_ca: str | None = Field(
        None, description="PEM file of the authorities whose certificates callers must show"
    )


class BatchingSettings(Group):
    """The queue before the model thread; what exceeds it is answered with 429."""

    queue_rows: int = Field(262_144, ge=1, description="most rows accepted and not yet answered")
    queue_bytes: int = Field(
        1024 * MIB, ge=1024, description="most bytes of them, bodies and answers together"
    )
    merge_rows: int = Field(
        0,
        ge=0,
        description="most rows of requests without a seed that are computed together; 0 takes "
        "1024 on cpu and 65536 on cuda, 1 merges nothing",
    )
    max_wait_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="milliseconds that a batch which has room waits for more, only while the "
        "device computes another; on cpu it never does",
    )


class RegistrySettings(Group):
    """Where checkpoints come from."""

    address: str = Field(
        ".turnpoint/registry", description="directory or fsspec address, e.g. s3://bucket/registry"
    )
    model: str | None = Field(
        None, description="model of requests that name none; default: the only one"
    )
    poll_seconds: float = Field(
        2.0, gt=0, description="seconds between two looks for a new version"
    )
    versions_kept: int = Field(
        4, ge=0, description="versions kept in memory beside the live ones, for `version=`"
    )


class CacheSettings(Group):
    """The cache of laws; docs/cache.md."""

    mode: Literal["auto", "on", "off"] = Field(
        "auto", description="auto looks up where that is measured to pay, on a CPU; on always"
    )
    max_bytes: int = Field(
        64 * MIB,
        ge=0,
        description="most bytes of laws kept in this process; used without Redis",
    )
    ttl_seconds: int = Field(3600, ge=1, description="seconds that Redis keeps a law")


class RedisSettings(Group):
    """The Redis that replicas share."""

    url: str | None = Field(
        None,
        pattern=r"^(redis|rediss|unix)://",
        description="redis://user:password@host:port/0, or rediss:// for TLS; default: no Redis",
    )
    timeout_ms: int = Field(
        20, ge=1, le=1000, description="milliseconds that one look-up may take; then it is a miss"
    )
    probe_seconds: float = Field(
        1.0, gt=0, description="seconds between two looks whether a Redis that failed is back"
    )


class StreamSettings(Group):
    """The copy of what is asked that trainers learn from; docs/stream.md."""

    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the requests whose rows are copied to a Redis stream, 0 to 1; 0 is "
        "off, and anything else needs REDIS__URL",
    )
    max_bytes: int = Field(
        64 * MIB, ge=MIB, description="most bytes that the stream of one model takes in Redis"
    )
    entry_rows: int = Field(
        2048, ge=1, description="most rows of one entry, and of what is copied from one request"
    )
    queue_bytes: int = Field(
        32 * MIB,
        ge=MIB,
        description="most bytes of arrays that wait to be written; more are dropped",
    )


class AuthSettings(Group):
    """Who may ask, and for how much."""

    keys: SecretStr | None = Field(
        None, description="keys of callers: `[name:]key`, comma separated or a JSON list"
    )
    keys_file: str | None = Field(
        None,
        description="file of such keys, one a line, `#` begins a comment; read again on change",
    )
    admin_keys: SecretStr | None = Field(
        None, description="keys that may also pin versions, written alike"
    )
    admin_keys_file: str | None = Field(None, description="file of such keys, written alike")
    allow_anonymous: bool = Field(
        False, description="let anybody ask without a key, on any host; admin routes stay closed"
    )
    metrics_need_key: bool = Field(
        False, description="whether `/metrics` asks for a key; probes and `/docs` never do"
    )
    rate_rows_per_second: float | None = Field(
        None, gt=0, description="rows per second that one key may ask for; default: no limit"
    )
    rate_burst_rows: int = Field(
        65_536, ge=1, description="rows that a key may ask for at once after a pause"
    )


class LogSettings(Group):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="lowest level written; debug has a line per request, and the messages of "
        "unexpected errors, which may quote a request",
    )
    format: Literal["human", "json"] = Field(
        "human", description="lines for people or for machines"
    )
    addresses: bool = Field(
        False, description="whether the line per request has the caller's address"
    )


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        nested_model_default_partial_update=True,
        frozen=True,
        extra="forbid",
    )

    server: ServerSettings = ServerSettings()
    batching: BatchingSettings = BatchingSettings()
    registry: RegistrySettings = RegistrySettings()
    cache: CacheSettings = CacheSettings()
    redis: RedisSettings = RedisSettings()
    stream: StreamSettings = StreamSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _largest_request_fits_the_queue(self) -> "Settings":
        largest = self.server.max_body_bytes + self.server.max_response_bytes
        if self.batching.queue_rows < self.server.max_rows:
            raise ValueError(
                f"BATCHING__QUEUE_ROWS = {self.batching.queue_rows} is below SERVER__MAX_ROWS = "
                f"{self.server.max_rows}: the largest request could never be accepted"
            )
        if self.batching.queue_bytes < largest:
            raise ValueError(
                f"BATCHING__QUEUE_BYTES = {self.batching.queue_bytes} is below "
                f"SERVER__MAX_BODY_BYTES + SERVER__MAX_RESPONSE_BYTES = {largest}: the largest "
                "request could never be accepted"
            )
        return self

    @model_validator(mode="after")
    def _strangers_stay_out(self) -> "Settings":
        auth, host = self.auth, self.server.host
        if not (is_loopback(host) or auth.keys or auth.keys_file or auth.allow_anonymous):
            raise ValueError(
                f"SERVER__HOST = {host} would let anybody in: set TURNPOINT_AUTH__KEYS or "
                "TURNPOINT_AUTH__KEYS_FILE, or TURNPOINT_AUTH__ALLOW_ANONYMOUS=true, or bind to "
                "127.0.0.1"
            )
        if auth.rate_rows_per_second and auth.rate_burst_rows < self.server.max_rows:
            raise ValueError(
                f"AUTH__RATE_BURST_ROWS = {auth.rate_burst_rows} is below SERVER__MAX_ROWS = "
                f"{self.server.max_rows}: the largest request could never be accepted"
            )
        return self

    @model_validator(mode="after")
    def _a_stream_has_a_redis(self) -> "Settings":
        if self.stream.share and not self.redis.url:
            raise ValueError(
                f"STREAM__SHARE = {self.stream.share:g} without a Redis: set TURNPOINT_REDIS__URL, "
                "or leave the share at 0"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "Settings":
        server = self.server
        if server.tls_certfile is None and (server.tls_keyfile or server.tls_client_ca):
            raise ValueError(
                "SERVER__TLS_KEYFILE or SERVER__TLS_CLIENT_CA is set without SERVER__TLS_CERTFILE: "
                "the service would speak plain HTTP; name the certificate's file too"
            )
        return self


def load_settings(overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """The settings of this process.

    Args:
        overrides: group -> name -> value, e.g. from the command line; None values are left out.

    Raises:
        ConfigError: an unknown `TURNPOINT_*` name, or a value that cannot work; names it.
    """
    _refuse_unknown(os.environ)
    chosen = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in (overrides or {}).items()
    }
    try:
        return Settings(**chosen)  # type: ignore[arg-type]  # pydantic turns mappings into groups
    except ValidationError as error:
        raise ConfigError(" · ".join(map(_told, error.errors()))) from error


def fields() -> dict[str, FieldInfo]:
    """Environment name -> field, in order; the documentation is checked against this."""
    return {
        f"{PREFIX}{group}__{name}".upper(): field
        for group, holder in Settings.model_fields.items()
        for name, field in type(holder.default).model_fields.items()
    }


def print_config(settings: Settings) -> str:
    """The resolved settings as `NAME=value` lines, secrets masked."""
    lines = []
    for group, values in settings:
        for name, value in values:
            shown = "" if value is None else masked(str(value))
            lines.append(f"{PREFIX}{group}__{name}".upper() + f"={shown}")
    return "\n".join(lines)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def masked(address: str) -> str:
    """An address without its `user:password@`, and without passwords in its query."""
    # Up to the last @: a password that should have been percent-encoded is a password all the same.
    plain = re.sub(r"://\S*@", "://***@", address)
    return re.sub(r"([?&]\w*password=)[^&\s]*", r"\1***", plain)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = sorted({*fields(), *FOREIGN_NAMES})
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=3, cutoff=0.5) or known
            raise ConfigError(f"unknown setting {name}; the nearest known: {', '.join(near)}")


def _told(error: Any) -> str:
    """One line for one of pydantic's errors."""
    name = f"{PREFIX}{'__'.join(map(str, error['loc']))}".upper() if error["loc"] else ""
    shown = "***" if name in _secrets() else masked(str(error["input"]))
    given = f" = {shown}: " if name else ""
    return f"{name}{given}{error['msg'].removeprefix('Value error, ')}"


def _secrets() -> set[str]:
    return {name for name, field in fields().items() if SecretStr in get_args(field.annotation)}
