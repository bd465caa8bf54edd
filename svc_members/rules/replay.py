"""What a member's rows would be, had only what came through some members ever been recorded.

All rows of a member, believed or not, are a record of what happened to him: at every moment of recording some
were superseded and others added. What an added row says that no superseded one said is news of the time
in which it held; where nothing holds any more of what a superseded one said, that is news as well. Who goes
through the record and leaves out the news that came through others has what is left of it.

What merges and their undoing wrote is no news. While a member was merged into another, what happened to him
stands in that one's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from svc_members.rules import bitemporal
from svc_members.rules.binding import Row

Stretch = tuple[datetime, datetime | None]
"""From when until when, exclusive; None: for ever."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that was ever recorded of a member.

    `separated_times`: when it was recorded, of others who had been merged into him, that they were not.
    """

    member_id: str
    rows: Sequence[Row]
    aways: Sequence[Away] = ()
    separated_times: frozenset[datetime] = frozenset()


@dataclass(frozen=True, slots=True)
class Away:
    """A merge of a member into another, undone since. `time`: from when on it held.

    `left_time` and `back_time`: when it was recorded, and its undoing, with him; `begin_time` and `end_time`:
    with the survivor.
    """

    time: datetime
    left_time: datetime
    back_time: datetime
    survivor: Record
    begin_time: datetime
    end_time: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """What of a record is wanted.

    `since`: through whom it came, and from which moment of recording on; None: from the first. `after` and
    `before`: what was recorded between these moments, exclusive. `from_time` and `until_time`: what is said
    of the time between these.
    """

    since: Mapping[str, datetime | None]
    after: datetime | None = None
    before: datetime | None = None
    from_time: datetime | None = None
    until_time: datetime | None = None


def content(row: Row) -> tuple[object, ...]:
    """What a row says, but for when."""
    return (
        row.guide_id,
        row.store_id,
        row.protected_until_time,
        row.campaign,
        row.origin_id,
        row.reason,
        row.since_time,
    )


def believed_before(record: Record, time: datetime) -> list[Row]:
    """The rows that were believed until just before a moment of recording, each with its origin named."""
    return [
        _named(row, record)
        for row in record.rows
        if row.recorded_time is not None
        and row.recorded_time < time
        and (row.superseded_time is None or time <= row.superseded_time)
    ]


def replayed(timeline: Iterable[Row], record: Record, part: Part) -> list[Row]:
    """A timeline with the news of a part of a record. Origins are named, also those of own rows."""
    rows = [_named(row, record) for row in record.rows]
    left = {away.left_time: away for away in record.aways}
    no_news = record.separated_times | {away.back_time for away in record.aways}
    kept = list(timeline)
    for moment in _moments(rows, left, part):
        if moment in left:
            away = left[moment]
            known = [one for one, since in part.since.items() if since is None or since <= moment]
            there = Part(dict.fromkeys(known), away.begin_time, away.end_time, away.time, part.until_time)
            kept = replayed(kept, away.survivor, there)
        elif moment not in no_news:
            # Of a member who is away only the time before is told with himself.
            until = [away.time for away in record.aways if away.left_time < moment < away.back_time]
            kept = _told(kept, rows, moment, replace(part, until_time=min(until, default=part.until_time)))
    return sorted(kept, key=lambda row: row.valid_from_time)


def without(rows: Iterable[Row], stretch: Stretch) -> list[Row]:
    """The rows less what they say of a stretch of time."""
    begin, end = stretch
    left = []
    for row in rows:
        until = row.valid_to_time
        if row.valid_from_time < begin:
            cut = until is None or begin < until
            left.append(replace(row, valid_to_time=begin) if cut else row)
        if end is not None and (until is None or end < until):
            left.append(replace(row, valid_from_time=max(end, row.valid_from_time)))
    return left


def _moments(rows: Iterable[Row], left: Iterable[datetime], part: Part) -> list[datetime]:
    """The moments of recording within a part, also those at which he left and no row was written."""
    moments = {time for row in rows for time in (row.recorded_time, row.superseded_time) if time is not None}
    return sorted(
        moment
        for moment in moments.union(left)
        if (part.after is None or part.after < moment) and (part.before is None or moment < part.before)
    )


def _told(timeline: Sequence[Row], rows: Sequence[Row], moment: datetime, part: Part) -> list[Row]:
    """A timeline with the news of one moment."""
    gone = [row for row in rows if row.superseded_time == moment]
    after = [row for row in rows if bitemporal.believed(row, moment)]
    kept = list(timeline)
    for old in gone:
        if _is_wanted(old, part):
            for gap in _gaps(after, old):
                if ended := _within(gap, part.from_time, part.until_time):
                    kept = without(kept, ended)
    for new in after:
        if new.recorded_time != moment or any(_is_part_of(new, old) for old in gone):
            continue
        time = _within(_time_of(new), part.from_time, part.until_time)
        if time and _is_wanted(new, part):
            kept = [*without(kept, time), replace(new, valid_from_time=time[0], valid_to_time=time[1])]
    return kept


def _is_wanted(row: Row, part: Part) -> bool:
    if row.origin_id not in part.since:
        return False
    since = part.since[row.origin_id]
    return since is None or (row.recorded_time is not None and since <= row.recorded_time)


def _named(row: Row, record: Record) -> Row:
    return row if row.origin_id else replace(row, origin_id=record.member_id)


def _time_of(row: Row) -> Stretch:
    return row.valid_from_time, row.valid_to_time


def _is_part_of(row: Row, old: Row) -> bool:
    ends = old.valid_to_time is None or (
        row.valid_to_time is not None and row.valid_to_time <= old.valid_to_time
    )
    return ends and old.valid_from_time <= row.valid_from_time and content(row) == content(old)


def _gaps(rows: Iterable[Row], during: Row) -> list[Stretch]:
    """The whole stretches in which no row holds, of those that begin in the time of one."""
    gaps: list[Stretch] = []
    begin: datetime | None = during.valid_from_time
    for row in sorted(rows, key=lambda row: row.valid_from_time):
        if begin is None:
            break
        if begin < row.valid_from_time:
            gaps.append((begin, row.valid_from_time))
        begin = None if row.valid_to_time is None else max(begin, row.valid_to_time)
    if begin is not None:
        gaps.append((begin, None))
    return [gap for gap in gaps if during.valid_to_time is None or gap[0] < during.valid_to_time]


def _within(stretch: Stretch, from_time: datetime | None, until_time: datetime | None) -> Stretch | None:
    """What of a stretch lies within bounds; None: nothing."""
    begin, end = stretch
    begin = begin if from_time is None else max(begin, from_time)
    if until_time is not None:
        end = until_time if end is None else min(end, until_time)
    return None if end is not None and end <= begin else (begin, end)
