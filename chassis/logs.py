"""Structured logs: JSON lines for machines, readable lines on a terminal.

Personal data and secrets are never handed to a logger; `REDACTED_KEYS` catches what slips through by name.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import structlog

REDACTED_KEYS = frozenset(
    {"authorization", "token", "phone", "identity", "value", "password", "secret", "key"}
)

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Event = MutableMapping[str, Any]


def configure(service: str, log_format: str, level: str) -> None:
    """Sets up structlog for this process.

    `log_format` is auto, json or console; auto is JSON when standard output is no terminal.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())

    def named_and_redacted(_logger: object, _level: str, event: Event) -> Event:
        event["service"] = service
        if not REDACTED_KEYS.isdisjoint(event):
            for key in REDACTED_KEYS & event.keys():
                event[key] = "[redacted]"
        return event

    def as_line(logger: object, level: str, event: Event) -> bytes:
        # All in one: a line per call is dear, and a chain of structlog's own processors doubles its price.
        event["level"] = level
        event["timestamp"] = datetime.now(UTC)
        event = named_and_redacted(logger, level, event)
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, level, event)
        return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z)

    for_people: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        named_and_redacted,
        # Plain, because others show local variables, and with them whatever they hold of a customer.
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    ]
    structlog.configure(
        processors=[as_line] if as_json else for_people,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory() if as_json else structlog.PrintLoggerFactory(),
    )


def logger(part: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names the part of the service that speaks. Bound on first use, after `configure`."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(part=part))
