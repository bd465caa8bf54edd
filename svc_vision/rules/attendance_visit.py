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


class Moment(NamedTuple):
    """When she came or went: as recorded, as decided for her, and as it may have been to her disadvantage."""

    recorded: datetime
    decided: datetime
    doubted: datetime


class Visit(NamedTuple):
    """Her coming and her going; None: not known. `seen`: there is any mark."""

    seen: bool
    came: Moment | None
    went: Moment | None


def visit(marks: Iterable[Mark], hours: Span, margin_minutes: int, debounce: timedelta) -> Visit:
    """The earliest coming and the latest going. `hours`: the first and the last minute she is to be there.

    A mark without a direction is either; except near the begin and the end of her hours (`margin_minutes`),
    and within `debounce` of one that has a direction, which it shares. Marks within `debounce` of each other
    are one act: where they are all there is, a coming or a going, whichever end of her hours is nearer.
    Who goes in during her hours after the last going was there again, and when she went is not known; who
    goes out before the first coming was there before.

    Examples, hours 09:00 to 18:00, debounce 60 s: 08:50, 09:00, 17:58, 18:01 is 08:50 to 18:01. 17:58:00 and
    17:58:40 is a going at 17:58:40, and no coming. 08:50 and 09:00 is a coming at 08:50, and no going; 08:50
    and 09:20 is both. IN 08:50, OUT 12:00, IN 13:00 is a coming at 08:50, and no going.
    """
    told = _with_directions(list(marks), debounce)
    comings = [mark for mark in told if _may_be(mark, PunchDirection.IN, hours, margin_minutes)]
    goings = [mark for mark in told if _may_be(mark, PunchDirection.OUT, hours, margin_minutes)]
    came = min((mark.time for mark in comings), default=None)
    went = max((mark.time for mark in goings), default=None)
    came, went = (
        None if came is not None and _was_there_before(told, came, hours, debounce) else came,
        None if went is not None and _was_there_again(told, went, hours, debounce) else went,
    )
    if came is not None and went is not None and went - came <= debounce:
        if _is_coming(came, went, hours, debounce):
            went = None
        else:
            came = None
    return Visit(
        bool(told),
        None
        if came is None
        else Moment(came, min(mark.earliest for mark in comings), min(mark.latest for mark in comings)),
        None
        if went is None
        else Moment(went, max(mark.latest for mark in goings), max(mark.earliest for mark in goings)),
    )


def _was_there_before(told: Iterable[Mark], came: datetime, hours: Span, debounce: timedelta) -> bool:
    return any(
        mark.direction is PunchDirection.OUT
        and came - mark.time > debounce
        and minute_of(mark.time) > hours.begin
        for mark in told
    )


def _was_there_again(told: Iterable[Mark], went: datetime, hours: Span, debounce: timedelta) -> bool:
    return any(
        mark.direction is PunchDirection.IN
        and mark.time - went > debounce
        and minute_of(mark.time) < hours.end
        for mark in told
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


def _is_coming(came: datetime, went: datetime, hours: Span, debounce: timedelta) -> bool:
    """Whether of two marks that cannot both hold the coming holds.

    One act is what it is nearer to. Where the going lies before the coming, nobody comes when her hours are
    over.
    """
    if came - went > debounce:
        return minute_of(came) < hours.end
    return 2 * minute_of(came) <= hours.begin + hours.end
