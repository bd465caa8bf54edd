"""The time, as services take it once per request and hand it to the rules.

Whole milliseconds, because MongoDB keeps no finer: a time that was stored equals the time that was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

Now = Callable[[], datetime]


def to_milliseconds(time: datetime) -> datetime:
    """The time cut to whole milliseconds."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


class Clock:
    """A wall clock in UTC, and the database's clock as an aggregation expression.

    `shift_file` names a text file with seconds to add to both. It exists for demonstrations and tests in
    which weeks pass in a minute; `chassis.settings` accepts it only where DAOGOU_TESTING=1.
    """

    def __init__(self, shift_file: Path | None = None) -> None:
        self._shift_file = shift_file

    def shift(self) -> timedelta:
        """How far this clock is ahead of the machine's. Zero in production."""
        if self._shift_file is None:
            return timedelta(0)
        return timedelta(seconds=float(self._shift_file.read_text(encoding="ascii")))

    def now(self) -> datetime:
        """The time in whole milliseconds, UTC."""
        return to_milliseconds(datetime.now(UTC) + self.shift())

    def database_now(self) -> object:
        """The primary's time, for use in an update or aggregation pipeline."""
        shift_ms = round(self.shift().total_seconds() * 1000)
        return {"$add": ["$$NOW", shift_ms]} if shift_ms else "$$NOW"
