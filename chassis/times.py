"""Times between messages and documents: Timestamp messages, and datetimes of whole milliseconds in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """The time, cut to whole milliseconds. The timestamp must be in range (chassis.rpc.limits)."""
    return EPOCH + timedelta(seconds=timestamp.seconds, milliseconds=timestamp.nanos // 1_000_000)


def to_timestamp(time: datetime) -> Timestamp:
    """The time as a message."""
    since = time - EPOCH
    return Timestamp(
        seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds // 1000 * 1_000_000
    )


def to_optional_timestamp(time: datetime | None) -> Timestamp | None:
    """The time as a message, or None: absent."""
    return None if time is None else to_timestamp(time)
