"""At which store a guide was, at any moment: her postings, one after the other, from her hiring on.

Each holds from its time until the next begins; the last one stands. Moves only append.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Invalid, Refused

POSTINGS_MAX: Final = 200
AHEAD_MOST: Final = timedelta(seconds=5)
"""How far a caller's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A guide's time at one store. It ends where the next begins."""

    store_id: str
    from_time: datetime


def store_at(postings: Sequence[Posting], time: datetime) -> str:
    """The store at a time: of two postings from one moment the later; before the first, the first."""
    begun = bisect_right(postings, time, key=lambda posting: posting.from_time)
    return postings[max(begun - 1, 0)].store_id


def moved(postings: Sequence[Posting], store_id: str, time: datetime, now: datetime) -> tuple[Posting, ...]:
    """The postings after a move to a store at a time. `postings` begins with her hiring.

    A time that a caller's fast clock puts ahead of `now` counts as now, so that the last posting is always
    where she is.

    Raises: Invalid MOVE_IN_FUTURE; Refused ALREADY_THERE, MOVE_BEFORE_LAST, TOO_MANY_MOVES.
    """
    if time > now + AHEAD_MOST:
        raise Invalid("MOVE_IN_FUTURE", f"move_time is ahead of this service's clock, {now:%F %T} UTC")
    last, time = postings[-1], min(time, now)
    if store_id == last.store_id:
        raise Refused("ALREADY_THERE", "the guide belongs to that store already")
    if time < last.from_time:
        raise Refused("MOVE_BEFORE_LAST", f"she has been at her store since {last.from_time:%F %T} UTC")
    if len(postings) >= POSTINGS_MAX:
        raise Refused("TOO_MANY_MOVES", f"the guide has {POSTINGS_MAX} postings, the most there may be")
    return (*postings, Posting(store_id, time))
