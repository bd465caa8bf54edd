"""What was recorded of members, told as changes: one for every moment at which something was recorded of one.

Replayed in order, the changes of a member give his rows: a row is told as it was recorded, and that it is
believed no more is told by the change that superseded it. Which changes a watch tells when, and what is
behind it for good, is decided in `svc_members.binding.binding_watch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from svc_members.rules.binding import Row


@dataclass(frozen=True, slots=True)
class Change:
    """What was recorded of a member at one moment: rows, and the ids of those that they replaced."""

    recorded_time: datetime
    added: tuple[Row, ...]
    superseded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A place among members in the order in which something was last recorded of them: by time, then by id.

    `member_id` empty: behind all of that time.
    """

    time: datetime
    member_id: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a watch has come.

    Every change up to `since` was told; and of members at or before `place`, every change there was.
    """

    since: datetime
    place: Place

    def not_after(self, time: datetime) -> Progress:
        """The same, drawn back to a time where it is later."""
        return Progress(min(self.since, time), self.place if self.place.time <= time else Place(time))


def changes(rows: Iterable[Row], after: datetime, until: datetime) -> list[Change]:
    """What was recorded of a member later than `after` and not later than `until`, in order.

    `rows`: at least all that were recorded or superseded in that time. What a change tells depends on
    nothing that was recorded later, so that it is the same whenever it is told.
    """
    added: dict[datetime, list[Row]] = {}
    superseded: dict[datetime, list[str]] = {}
    for row in rows:
        if row.recorded_time is not None and after < row.recorded_time <= until:
            added.setdefault(row.recorded_time, []).append(replace(row, superseded_time=None))
        if row.superseded_time is not None and after < row.superseded_time <= until:
            superseded.setdefault(row.superseded_time, []).append(row.binding_id)
    return [
        Change(
            time,
            tuple(sorted(added.get(time, ()), key=lambda row: (row.valid_from_time, row.binding_id))),
            tuple(sorted(superseded.get(time, ()))),
        )
        for time in sorted(added.keys() | superseded.keys())
    ]
