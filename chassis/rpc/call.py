"""The call in progress: who makes it and under which trace. Travels in a context variable."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass, field

from daogou.common.v1.access_pb2 import Role

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says of its holder. Ids are empty where the role carries none."""

    subject: str
    role: Role.ValueType
    brand_id: str
    store_id: str
    guide_id: str
    region_id: str
    expire_time_s: float
    """Unix seconds."""


@dataclass(slots=True)
class Call:
    """One call. `claims` is set once the caller is known."""

    trace_id: str
    claims: Claims | None = None
    authorization: str | None = field(default=None, repr=False)
    """The header of that name."""
    messages_sent: int = 0
    """Of a stream, so far."""


current: ContextVar[Call] = ContextVar("daogou_call")


def trace_id_of(traceparent: str | None) -> str:
    """The trace id of a W3C traceparent header, or a new one. 32 hexadecimal digits."""
    if traceparent is not None and (match := _TRACEPARENT.fullmatch(traceparent)):
        return match[1]
    return os.urandom(16).hex()


def traceparent() -> str:
    """The header to pass on to the next service."""
    call = current.get(None)
    trace_id = call.trace_id if call else os.urandom(16).hex()
    return f"00-{trace_id}-{os.urandom(8).hex()}-01"


def caller() -> Claims:
    """Who makes the call in progress. Raises: RuntimeError outside of an authenticated call."""
    call = current.get(None)
    if call is None or call.claims is None:
        raise RuntimeError("no authenticated call is in progress")
    return call.claims
