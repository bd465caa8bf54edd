"""Two members who are one person become one, and two again where that was a mistake.

The older member survives, the other's id becomes an alias of his. Until the merge each has the bindings that
he had; from then on there are the survivor's alone. Each row tells through whom it came (`origin_id`), so
that undoing the merge can give each of the two what he would have, had only what came through himself ever
been recorded (`rules.replay`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from svc_members.rules import binding
from svc_members.rules.binding import Cause, Decision, Outcome, Row
from svc_members.rules.replay import Part, Record, believed_before, content, replayed

UNDO_WITHIN: Final = timedelta(days=30)
_TICK: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Merge:
    """What a merge does to both, from `time` on."""

    time: datetime
    survivor: Decision
    other: Decision


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge that was made. `origin_ids`: the other and whoever had been merged into him.

    The recorded times are those of its rows: with the survivor and with the other. `stays`: since when the
    survivor's rows have held what came through others who are merged into him and stay so, by their ids.
    """

    time: datetime
    origin_ids: AbstractSet[str]
    survivor_recorded_time: datetime
    other_recorded_time: datetime
    stays: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Separation:
    """What undoing a merge does to both."""

    survivor: Decision
    other: Decision


def merge(
    survivor_rows: Sequence[Row],
    other_rows: Sequence[Row],
    other_id: str,
    now: datetime,
    next_ids: tuple[str, str],
) -> Merge:
    """Makes the survivor's rows those of both. `next_ids` begin the ids of new rows, the survivor's first.

    Of two bindings the one that began earlier wins, among those that are protected if any is; a guide's
    wins over a pool's.
    """
    ours, theirs = binding.standing(survivor_rows), binding.standing(other_rows)
    time = _after_everything([*survivor_rows, *other_rows], now)
    ends = Decision(Outcome.MERGED, None)
    if theirs is not None:
        until = binding.ended(theirs, time, Cause.MERGED, f"{next_ids[1]}a")
        ends = Decision(Outcome.MERGED, None, (theirs.binding_id,), (until,))
    if theirs is None or (ours is not None and _rank(ours, time) <= _rank(theirs, time)):
        return Merge(time, Decision(Outcome.MERGED, ours), ends)
    brought = replace(
        theirs,
        binding_id=f"{next_ids[0]}b",
        valid_from_time=time,
        recorded_time=None,
        cause=Cause.MERGED,
        origin_id=theirs.origin_id or other_id,
        since_time=theirs.begin_time,
    )
    if ours is None:
        return Merge(time, Decision(Outcome.MERGED, brought, (), (brought,)), ends)
    taken = binding.taken_over(ours, brought, Outcome.MERGED, Cause.MERGED, next_ids[0])
    return Merge(time, taken, ends)


def _after_everything(rows: Sequence[Row], now: datetime) -> datetime:
    """A moment at which nothing begins or ends: what does so then is the merge's doing."""
    times = [
        time
        for row in rows
        if row.superseded_time is None
        for time in (row.valid_from_time, row.valid_to_time)
        if time is not None
    ]
    return max([now, *(time + _TICK for time in times)])


def _rank(row: Row, time: datetime) -> tuple[bool, bool, datetime, str]:
    """The least of two wins."""
    protected = row.protected_until_time is None or time < row.protected_until_time
    return (not row.guide_id, not protected, row.begin_time, row.binding_id)


def separate(survivor: Record, other: Record, merged: Merged, next_ids: tuple[str, str]) -> Separation:
    """Undoes a merge.

    Each has the rows that he had, and from the merge on those that came through himself: what a row of the
    other's took the place of goes on, what ended by itself stays ended.
    """
    ours = replayed((), survivor, Part({survivor.member_id: None, **merged.stays}))
    theirs = believed_before(other, merged.other_recorded_time)
    # What was recorded with himself since is of the time before the merge.
    everybody = dict.fromkeys(merged.origin_ids)
    before = Part(everybody, after=merged.other_recorded_time, until_time=merged.time)
    theirs = replayed(theirs, other, before)
    begin = merged.survivor_recorded_time
    since = Part(dict.fromkeys(merged.origin_ids, begin), after=begin, from_time=merged.time)
    theirs = replayed(theirs, survivor, since)
    return Separation(_restored(survivor, ours, next_ids[0]), _restored(other, theirs, next_ids[1]))


def _restored(record: Record, wanted: Sequence[Row], next_id: str) -> Decision:
    """Makes the wanted rows those that are believed. What is believed of them already stays as it is."""
    superseded = {row.binding_id: row for row in record.rows if row.superseded_time is None}
    kept: list[Row] = []
    added: list[Row] = []
    for named in wanted:
        row = replace(named, origin_id="") if named.origin_id == record.member_id else named
        same = next((old for old in superseded.values() if _alike(old, row)), None)
        if same is not None:
            kept.append(superseded.pop(same.binding_id))
            continue
        added.append(
            replace(
                row,
                binding_id=f"{next_id}.{len(added)}",
                recorded_time=None,
                superseded_time=None,
                cause=Cause.SEPARATED,
            )
        )
    return Decision(Outcome.SEPARATED, binding.standing([*kept, *added]), tuple(superseded), tuple(added))


def _alike(one: Row, other: Row) -> bool:
    times = (one.valid_from_time, one.valid_to_time) == (other.valid_from_time, other.valid_to_time)
    return times and content(one) == content(other)
