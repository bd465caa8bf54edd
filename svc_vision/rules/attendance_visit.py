"""From all marks of somebody within a clock window to one coming and one going: first in, last out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from svc_vision.rules.attendance_punch import PunchDirection
from svc_vision.rules.span import Span, minute_of


class Mark(NamedTuple):
    """She was at the door at `time`, as recorded; certainly between `earliest` and `latest`."""

    time: datetime
    earliest: datetime
    latest: datetime
    direction: PunchDirection


class Visit(NamedTuple):
    """Her coming and her going; None: not known. `came.earliest` and `went.latest` are decided by.

    `came_by` and `went_from`: by when she had come, and from when on she may have been gone, if clocks were
    off to her disadvantage.
    """

    came: Mark | None
    went: Mark | None
    came_by: datetime | None
    went_from: datetime | None


def visit(marks: Iterable[Mark], hours: Span, margin_minutes: int, debounce: timedelta) -> Visit:
    """The earliest coming and the latest going. `hours`: the first and the last minute she is to be there.

    A mark without a direction is either; except near the begin and the end of her hours (`margin_minutes`),
    and within `debounce` of one that has a direction, which it shares. Marks within `debounce` of each other
    are one act: where they are all there is, a coming or a going, whichever end of her hours is nearer.

    Examples, hours 09:00 to 18:00, debounce 60 s: 08:50, 09:00, 17:58, 18:01 is 08:50 to 18:01. 17:58:00 and
    17:58:40 is a going at 17:58:40, and no coming. 08:50 and 09:00 is a coming at 08:50, and no going; 08:50
    and 09:20 is both. IN at 08:50 and OUT at 08:58 is both: doors that tell are believed.
    """
    told = _with_directions(list(marks), debounce)
    comings = [mark for mark in told if _may_be(mark, PunchDirection.IN, hours, margin_minutes)]
    goings = [mark for mark in told if _may_be(mark, PunchDirection.OUT, hours, margin_minutes)]
    came = min(comings, key=lambda mark: (mark.earliest, mark.time), default=None)
    went = max(goings, key=lambda mark: (mark.latest, mark.time), default=None)
    if came is not None and went is not None and went.time - came.time <= debounce:
        if _is_coming(came, went, hours):
            went = None
        else:
            came = None
    return Visit(
        came,
        went,
        None if came is None else min(mark.latest for mark in comings),
        None if went is None else max(mark.earliest for mark in goings),
    )


def _with_directions(marks: Sequence[Mark], debounce: timedelta) -> list[Mark]:
    """The marks, those without a direction with that of the nearest within `debounce` that has one."""
    known = [mark for mark in marks if mark.direction is not PunchDirection.UNKNOWN]
    found = []
    for mark in marks:
        apart = {one.direction: timedelta.max for one in known}
        for one in known:
            apart[one.direction] = min(apart[one.direction], abs(one.time - mark.time))
        nearest = [way for way, far in apart.items() if far <= debounce and far == min(apart.values())]
        unknown = mark.direction is PunchDirection.UNKNOWN
        found.append(mark._replace(direction=nearest[0]) if unknown and len(nearest) == 1 else mark)
    return found


def _may_be(mark: Mark, way: PunchDirection, hours: Span, margin_minutes: int) -> bool:
    """Whether a mark may be a coming (IN) or a going (OUT)."""
    if mark.direction is not PunchDirection.UNKNOWN:
        return mark.direction is way
    margin = min(margin_minutes, (hours.end - hours.begin) // 2)
    may_go = minute_of(mark.time) > hours.begin + margin
    if way is PunchDirection.OUT:
        return may_go
    return not may_go or minute_of(mark.time) < hours.end - margin


def _is_coming(came: Mark, went: Mark, hours: Span) -> bool:
    """Whether two marks that cannot both hold are her coming, rather than her going.

    One act is what it is nearer to. Where the going lies before the coming, nobody comes when her hours are
    over.
    """
    if went.time < came.time:
        return minute_of(came.time) < hours.end
    return 2 * minute_of(came.time) <= hours.begin + hours.end
