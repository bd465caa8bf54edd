"""Members' rows as the store writes them, without a database: superseded, added, at rising times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from svc_members.rules import bitemporal
from svc_members.rules.binding import Cause, Decision, Row

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MILLISECOND = timedelta(milliseconds=1)


@dataclass
class Recorder:
    """Stamps what is written: no two writes of the members of one recorder have one time."""

    time: datetime = NOON

    def next_time(self) -> datetime:
        """The time of another write."""
        self.time += MILLISECOND
        return self.time


@dataclass
class Written:
    """A member's rows, and what was believed after each write."""

    recorder: Recorder
    rows: tuple[Row, ...] = ()
    known: list[tuple[datetime, tuple[Row, ...]]] = field(default_factory=list)

    def write(self, decision: Decision) -> datetime:
        """Does what the store does in its one write. Fails where it would leave two rows for one moment."""
        time = self.recorder.next_time()
        believed_ids = {row.binding_id for row in believed(self.rows)}
        assert believed_ids.issuperset(decision.superseded), "superseded what is believed no more"
        assert not {row.binding_id for row in decision.added} & {row.binding_id for row in self.rows}
        kept = [
            replace(row, superseded_time=time) if row.binding_id in decision.superseded else row
            for row in self.rows
        ]
        self.rows = (*kept, *(replace(row, recorded_time=time) for row in decision.added))
        check_apart(believed(self.rows))
        standing = bitemporal.standing(self.rows)
        wanted = decision.standing.binding_id if decision.standing else None
        assert (standing.binding_id if standing else None) == wanted, "the decision says who stands"
        self.known.append((time, tuple(believed(self.rows))))
        return time

    def check_known(self) -> None:
        """What was believed after each write is what the rows say was believed then."""
        for time, rows in self.known:
            found = [
                replace(row, superseded_time=None) for row in self.rows if bitemporal.believed(row, time)
            ]
            assert sorted(found, key=_begin) == sorted(rows, key=_begin)


def believed(rows: Sequence[Row]) -> list[Row]:
    """The rows that are believed now, in the order in which they hold."""
    return sorted((row for row in rows if row.superseded_time is None), key=_begin)


def check_apart(rows: Sequence[Row]) -> None:
    """No two of them hold at one time, and each holds for some."""
    for row in rows:
        assert row.valid_to_time is None or row.valid_from_time < row.valid_to_time, row
    for earlier, later in pairwise(sorted(rows, key=_begin)):
        assert earlier.valid_to_time is not None, (earlier, later)
        assert earlier.valid_to_time <= later.valid_from_time, (earlier, later)


def said(rows: Sequence[Row]) -> list[Row]:
    """What the believed rows say, without the ids, times and causes of their recording."""
    return [replace(row, binding_id="", recorded_time=None, cause=Cause.SCAN) for row in believed(rows)]


def _begin(row: Row) -> datetime:
    return row.valid_from_time
