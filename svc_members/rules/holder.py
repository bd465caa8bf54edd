"""Whose an identity was, at any moment, as known at any moment; and who answers for a merged member's id.

Phone numbers are given up and handed out again, and two members turn out to be one person and sometimes two
persons after all: so the one who holds an identity is told by rows with two time axes, as bindings are
(`rules.bitemporal`). The first holder has held it since ever: an account that was linked today was his
when he ordered with it yesterday.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Refused
from svc_members.rules import bitemporal

_TICK: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Holder:
    """One row. `origin_id`: the merged member in whose name he came to hold it; empty: in his own."""

    member_id: str
    valid_from_time: datetime | None
    valid_to_time: datetime | None
    recorded_time: datetime
    superseded_time: datetime | None
    origin_id: str = ""


Rows = tuple[Holder, ...]


def begun(rows: Sequence[Holder], member_id: str, stamp: datetime, origin_id: str = "") -> Rows:
    """The rows once a member holds what nobody held: since ever, or since it was last given up.

    `stamp`: when it is recorded, by the database's clock. Raises: ValueError where somebody holds it.
    """
    if bitemporal.standing(rows) is not None:
        raise ValueError("somebody holds it")
    last = _last_given_up(rows)
    since = last.valid_to_time if last else None
    return (*rows, Holder(member_id, since, None, _rising(rows, stamp), None, origin_id))


def ended(
    rows: Sequence[Holder], member_id: str, time: datetime | None, now: datetime, stamp: datetime
) -> Rows:
    """The rows once a member has given it up: at a time that is past, or now (None).

    Where he gave it up before, nothing changes. Raises: Refused NOT_HIS_IDENTITY,
    UNLINKED_BEFORE_LINKED.
    """
    current = bitemporal.standing(rows)
    if current is None or current.member_id != member_id:
        last = _last_given_up(rows)
        if current is None and last is not None and last.member_id == member_id:
            return tuple(rows)
        raise Refused("NOT_HIS_IDENTITY", "the member does not hold this identity")
    since = current.valid_from_time
    if time is None:
        # What a merge gave him this moment he has held for a moment at least.
        time = now if since is None else max(now, since + _TICK)
    if since is not None and time <= since:
        raise Refused("UNLINKED_BEFORE_LINKED", "he has held the identity since that time or a later one")
    recorded = _rising(rows, stamp)
    given_up = replace(current, valid_to_time=time, recorded_time=recorded)
    return (*_superseded(rows, [current], recorded), given_up)


def passed_on(rows: Sequence[Holder], member_id: str, time: datetime, stamp: datetime) -> Rows:
    """The rows once its holder was merged into a member: his until then, the other's from then on."""
    current = bitemporal.standing(rows)
    if current is None:
        raise ValueError("nobody holds it")
    recorded, begin = _rising(rows, stamp), current.valid_from_time
    since = Holder(member_id, time, None, recorded, None, current.origin_id or current.member_id)
    if begin is not None and time <= begin:
        # Who came to hold it then, or later, never did.
        return (*_superseded(rows, [current], recorded), replace(since, valid_from_time=begin))
    until = replace(current, valid_to_time=time, recorded_time=recorded)
    return (*_superseded(rows, [current], recorded), until, since)


def returned(
    rows: Sequence[Holder],
    survivor_id: str,
    member_id: str,
    origin_ids: AbstractSet[str],
    stamp: datetime,
) -> Rows:
    """The rows once a merge is undone: what the survivor held in one of some names was the member's.

    As if the member had held it all the time, also where it was given up since. Nothing changes where the
    survivor held it in his own name alone.
    """
    his = [
        row
        for row in rows
        if row.superseded_time is None and row.member_id == survivor_id and row.origin_id in origin_ids
    ]
    if not his:
        return tuple(rows)
    recorded = _rising(rows, stamp)
    gone, again = list(his), []
    for row in his:
        origin_id = "" if row.origin_id == member_id else row.origin_id
        mine = replace(row, member_id=member_id, origin_id=origin_id)
        before = _until(rows, mine)
        if before is not None:
            gone.append(before)
            mine = replace(mine, valid_from_time=before.valid_from_time)
        again.append(replace(mine, recorded_time=recorded))
    return (*_superseded(rows, gone, recorded), *again)


def answering(rows: Sequence[Holder], member_id: str, time: datetime, stamp: datetime) -> Rows:
    """The rows of a merged member's id, for which another answers from a time on."""
    if bitemporal.standing(rows) is not None:
        raise ValueError("another answers for it")
    return (*rows, Holder(member_id, time, None, _rising(rows, stamp), None))


def answering_no_more(rows: Sequence[Holder], stamp: datetime) -> Rows:
    """The rows of a member's id once its merge is undone."""
    current = bitemporal.standing(rows)
    if current is None:
        raise ValueError("nobody answers for it")
    return _superseded(rows, [current], _rising(rows, stamp))


def _last_given_up(rows: Sequence[Holder]) -> Holder | None:
    """The row that ended last, of those that are believed."""
    given_up = [(row.valid_to_time, row) for row in rows if row.superseded_time is None and row.valid_to_time]
    return max(given_up, key=lambda one: one[0])[1] if given_up else None


def _until(rows: Sequence[Holder], mine: Holder) -> Holder | None:
    """The row of a holder that a merge cut off where another of his begins."""
    for row in rows:
        if (
            row.superseded_time is None
            and (row.member_id, row.origin_id) == (mine.member_id, mine.origin_id)
            and row.valid_to_time is not None
            and row.valid_to_time == mine.valid_from_time
        ):
            return row
    return None


def _superseded(rows: Sequence[Holder], which: Sequence[Holder], recorded_time: datetime) -> Rows:
    return tuple(replace(row, superseded_time=recorded_time) if row in which else row for row in rows)


def _rising(rows: Sequence[Holder], stamp: datetime) -> datetime:
    """The stamp, or just after the latest that the rows know: the database's clock may have gone back."""
    known = [time for row in rows for time in (row.recorded_time, row.superseded_time) if time is not None]
    return max([stamp, *(time + _TICK for time in known)])
