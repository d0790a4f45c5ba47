"""Every setting of the service, in one frozen tree: `TURNPOINT_<GROUP>__<NAME>`.

What the command line sets wins over the environment, which wins over the default. A name that does
not exist stops the start, since a misspelt limit that is silently ignored is no limit.
"""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError

PREFIX = "TURNPOINT_"
# Names that other parts read: the data file of `make demo` and of the tests on real data.
FOREIGN_NAMES = frozenset({"TURNPOINT_DATA"})
MIB = 2**20


class Group(BaseModel):
    """A frozen group that knows its names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)


class ServerSettings(Group):
    """The socket and the limits of one request."""

    host: str = Field("127.0.0.1", description="address to bind; 0.0.0.0 is every interface")
    port: int = Field(8000, ge=0, le=65535, description="port to bind; 0 takes a free one")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="largest request body, in bytes")
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


class BatchingSettings(Group):
    """The queue before the model thread; what exceeds it is answered with 429."""

    queue_rows: int = Field(262_144, ge=1, description="most rows accepted and not yet answered")
    queue_bytes: int = Field(
        1024 * MIB, ge=1024, description="most bytes of them, bodies and answers together"
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


class LogSettings(Group):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level written; debug has a line per request"
    )
    format: Literal["human", "json"] = Field(
        "human", description="lines for people or for machines"
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
    given = f" = {masked(str(error['input']))}: " if name else ""
    return f"{name}{given}{error['msg'].removeprefix('Value error, ')}"
