"""What an occurrence of a shift came to, in minutes, given when somebody came and went.

All in whole minutes of elapsed time, so that they add up, and a night on which the clocks change has as many
as it has.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from svc_vision.rules.attendance_shift import Occurrence, ShiftVersion
from svc_vision.rules.span import Span, length, minute_after, minute_of, without


class AttendanceStatus(enum.StrEnum):
    """What an occurrence came to. Where several hold, the first of this list.

    ABSENT: no punch counts for it, or she was there for none of her minutes. MISSING_PUNCH: when she
    came, or went, is not known. Late and early on one day is LATE or SERIOUSLY_LATE, with minutes of both.
    """

    ABSENT = "ABSENT"
    MISSING_PUNCH = "MISSING_PUNCH"
    SERIOUSLY_LATE = "SERIOUSLY_LATE"
    LATE = "LATE"
    EARLY = "EARLY"
    NORMAL = "NORMAL"


@dataclass(frozen=True, slots=True)
class Leave:
    """Approved leave, from `begin_time` until before `end_time`: hours, half a day or many days."""

    leave_id: str
    begin_time: datetime
    end_time: datetime


class Minutes(NamedTuple):
    """Where the minutes of an occurrence went. All but the first and the last sum to `scheduled`.

    `scheduled`: its hours without breaks; 0 on a holiday. `worked`: between her coming and her going, and
    what was forgiven. `late`, `early`: of her hours before she came and after she went. `absent`: all, when
    she was ABSENT. `unproven`: hers, where a punch is missing. `leave`: on leave, whether she was there or
    not. `holiday`: worked on a holiday, within the hours of the shift.
    """

    scheduled: int = 0
    worked: int = 0
    late: int = 0
    early: int = 0
    absent: int = 0
    leave: int = 0
    unproven: int = 0
    holiday: int = 0


class Outcome(NamedTuple):
    """How an occurrence is judged, and where its minutes went."""

    status: AttendanceStatus
    minutes: Minutes


def spans_of(leaves: Iterable[Leave]) -> list[Span]:
    """The minutes that leave touches."""
    return [Span(minute_of(one.begin_time), minute_after(one.end_time)) for one in leaves]


def bounds(one: Occurrence, leave: Iterable[Span]) -> Span:
    """From her first minute until after her last; where she is on leave all the time, of the shift's."""
    hours = (not one.holiday and _due(one.hours(), leave)) or one.hours()
    if not hours:
        return Span(minute_of(one.begin_time), minute_of(one.end_time))
    return Span(hours[0].begin, hours[-1].end)


def _due(hours: tuple[Span, ...], leave: Iterable[Span]) -> tuple[Span, ...]:
    for cut in leave:
        hours = without(hours, cut)
    return hours


def _hours(one: Occurrence, leave: Iterable[Span], came: int | None) -> tuple[Span, ...]:
    """Her hours, once it is known when she came: flexible ones follow her.

    Not where leave touches their begin or their end: who has the morning off comes at the hour agreed.
    """
    begin, end = minute_of(one.begin_time), minute_of(one.end_time)
    flexible = one.shift.flexible_minutes
    agreed = any(
        (cut.begin < begin + flexible and begin < cut.end) or (cut.begin < end + flexible and end <= cut.end)
        for cut in leave
    )
    later = 0 if came is None or agreed else min(max(came - begin, 0), flexible)
    return one.hours(later)


def outcome(
    one: Occurrence, leave: Sequence[Span], seen: bool, came: int | None, went: int | None
) -> Outcome:
    """Status and minutes, given the minute in which she came and the one before which she went.

    None: not known. `seen`: she was there at all.

    Examples, 22:00 to 06:00 without a break, in New York: come at 22:10 and gone at 06:00 she is LATE by 10;
    of 480 minutes she worked 470. On the night to 8 March 2026 it is 410 of 420, on the night to 1 November
    530 of 540.
    """
    hours = _hours(one, leave, came)
    if one.holiday:
        return _on_holiday(hours, seen, came, went)
    due = _due(hours, leave)
    due_minutes = length(due)
    minutes = Minutes(scheduled=length(hours), leave=length(hours) - due_minutes)
    if not due:
        return Outcome(AttendanceStatus.NORMAL, minutes)
    late = 0 if came is None else _beyond(one.shift.grace_minutes, length(due, end=came))
    early = 0 if went is None else _beyond(one.shift.early_grace_minutes, length(due, begin=went))
    rest = due_minutes - late - early
    if not seen or (came is not None and went is not None and rest <= 0):
        return Outcome(AttendanceStatus.ABSENT, minutes._replace(absent=due_minutes))
    if came is None or went is None:
        minutes = minutes._replace(late=late, early=early, unproven=rest)
        return Outcome(AttendanceStatus.MISSING_PUNCH, minutes)
    return Outcome(_status(one.shift, late, early), minutes._replace(worked=rest, late=late, early=early))


def _on_holiday(hours: tuple[Span, ...], seen: bool, came: int | None, went: int | None) -> Outcome:
    """Nobody is late on a holiday. Who was seen but not both ways is told, as she may have worked."""
    if came is not None and went is not None:
        return Outcome(AttendanceStatus.NORMAL, Minutes(holiday=length(hours, came, went)))
    return Outcome(AttendanceStatus.MISSING_PUNCH if seen else AttendanceStatus.NORMAL, Minutes())


def _beyond(grace_minutes: int, minutes: int) -> int:
    """What is not forgiven: all, once it is more than the grace."""
    return minutes if minutes > grace_minutes else 0


def _status(shift: ShiftVersion, late: int, early: int) -> AttendanceStatus:
    if late > shift.seriously_late_minutes:
        return AttendanceStatus.SERIOUSLY_LATE
    if late:
        return AttendanceStatus.LATE
    return AttendanceStatus.EARLY if early else AttendanceStatus.NORMAL


def worked_on_leave(one: Occurrence, leave: Sequence[Span], came: int | None, went: int | None) -> bool:
    """Whether she was there on leave, further from her hours than a clock window reaches from any hours."""
    if one.holiday or came is None or went is None:
        return False
    hours = one.hours()
    due = _due(hours, leave)
    for span in due:
        hours = without(hours, span)
    if not due:
        return length(hours, came, went) > 0
    before = due[0].begin - one.shift.window_before_minutes
    after = due[-1].end + one.shift.window_after_minutes
    return length(hours, came, min(went, before)) + length(hours, max(came, after), went) > 0
