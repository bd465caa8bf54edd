"""Settings from the environment, checked before anything starts; all mistakes are reported at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, FilePath, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis import crash

S = TypeVar("S", bound="ServerSettings")


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, such as 0.0.0.0:50051")
    return value


Address = Annotated[str, AfterValidator(_host_and_port)]


class ServerSettings(BaseSettings):
    """What every process needs that serves gRPC.

    Names in the environment are DAOGOU_ and the field's name in capitals.
    """

    model_config = SettingsConfigDict(env_prefix="DAOGOU_", extra="ignore", populate_by_name=True)

    listen: Address
    """Where gRPC listens."""
    health_listen: Address
    """Where the plaintext health service listens: probes bring no credentials."""
    metrics_listen: Address
    """Where Prometheus scrapes, over HTTP."""

    jwks_file: FilePath
    """Public keys that callers' tokens are signed with, as a JSON Web Key Set. Read again when it changes."""
    token_audience: str = "daogou"

    drain_s: float = Field(default=5.0, ge=0, le=300)
    """How long to go on serving after NOT_SERVING was announced."""
    grace_s: float = Field(default=20.0, ge=0, le=300)
    """How long calls in progress may take after that."""
    unary_calls_max: int = Field(default=500, ge=1, le=100_000)
    """Unary calls served at once; more are refused at the door."""
    unary_timeout_s: float = Field(default=30.0, gt=0, le=600)
    """Deadline of calls that bring none."""
    streams_max: int = Field(default=200, ge=1, le=100_000)
    """Streams served at once, beside the unary calls; more are refused at the door."""
    message_bytes_max: int = Field(default=8 << 20, ge=1 << 16, le=64 << 20)
    connection_age_s: float = Field(default=1800.0, ge=1)
    """Connections are closed gracefully at this age, so that load spreads over new replicas."""
    reflection: bool = True
    """Serve gRPC reflection. Switched off in production."""

    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    testing: bool = False
    """Permits what must never happen in production: shifted clocks, and crashes on purpose."""
    clock_shift_file: Path | None = None
    crash_at: str = ""
    """The point at which the process is to kill itself, or point:nth time (chassis.crash). Empty: nowhere."""

    # Of the field, not of the whole: what is wrong of the whole is told only once all fields are right.
    @field_validator("clock_shift_file")
    @classmethod
    def _shift_only_in_tests(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None and not info.data.get("testing"):
            raise ValueError("is refused unless DAOGOU_TESTING=1")
        return file

    @field_validator("crash_at")
    @classmethod
    def _crash_only_in_tests(cls, crash_at: str, info: ValidationInfo) -> str:
        if crash_at and not info.data.get("testing"):
            raise ValueError("is refused unless DAOGOU_TESTING=1")
        if crash_at:
            crash.parsed(crash_at)
        return crash_at


class ServiceSettings(ServerSettings):
    """What every service with a database needs beside it."""

    mongodb_uri: str = Field(validation_alias="MONGODB_URI")
    mongo_driver: Literal["motor", "pymongo"] = "motor"
    mongo_database: str = ""
    """Name of the database. Empty: daogou_ and the service's name."""
    migrate_on_start: bool = False
    """Build indexes at start instead of in a job before the rollout. For one machine only."""
    service_key_file: FilePath
    """Private JSON Web Key with which this service signs its own SERVICE tokens."""


def load(settings_class: type[S]) -> S:
    """The settings from the environment; or every mistake on standard error, and exit status 2."""
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper() or "SETTINGS"
            if name not in {"SETTINGS", "MONGODB_URI"}:
                name = f"DAOGOU_{name}"
            # The value itself is not repeated: it may be a secret.
            print(f"{name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
