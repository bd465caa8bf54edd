"""Attendance (考勤): what the punches of one person say of each shift that she was to work.

Read `attendance_punch` and `attendance_shift` first. A result is a pure function of the set of punches, the
occurrences of shifts (from their versions and the calendar), leave and corrections: whatever becomes known
later, it is computed anew, and the raw punches stay as they were. Where a record leaves room for doubt it is
decided for the worker, and flagged.

First in, last out: the earliest coming within the clock window, and the latest going. The minute in which she
came and the one in which she went count as worked. A clock that may have been off by two minutes makes her
come two minutes earlier and go two minutes later.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from svc_vision.rules.attendance_punch import (
    Correction,
    CorrectionKind,
    OccurrenceKey,
    Punch,
    PunchDirection,
    PunchKey,
    once,
)
from svc_vision.rules.attendance_shift import Occurrence, ShiftVersion
from svc_vision.rules.attendance_visit import Mark, visit
from svc_vision.rules.span import Span, length, minute_after, minute_of, without


class AttendanceStatus(enum.StrEnum):
    """What an occurrence came to. Where several hold, the first of this list.

    ABSENT: no punch counts for it, or she was there for none of her minutes. MISSING_PUNCH: only her coming
    or only her going is known. Late and early on one day is LATE or SERIOUSLY_LATE, with minutes of both.
    """

    ABSENT = "ABSENT"
    MISSING_PUNCH = "MISSING_PUNCH"
    SERIOUSLY_LATE = "SERIOUSLY_LATE"
    LATE = "LATE"
    EARLY = "EARLY"
    NORMAL = "NORMAL"


class AttendanceFlag(enum.StrEnum):
    """Why a person should look at a result that was decided for the worker.

    CLOCK_DOUBT: had the doors' clocks been off the other way, the status would be another, or a punch would
    not have counted. SHARED_PUNCH: a punch without a direction counts for another shift too.
    WORKED_ON_LEAVE: she was there longer than a clock window of her leave.
    """

    CLOCK_DOUBT = "CLOCK_DOUBT"
    SHARED_PUNCH = "SHARED_PUNCH"
    WORKED_ON_LEAVE = "WORKED_ON_LEAVE"


@dataclass(frozen=True, slots=True)
class Leave:
    """Approved leave, from `begin_time` until before `end_time`: hours, half a day or many days."""

    leave_id: str
    begin_time: datetime
    end_time: datetime


class Minutes(NamedTuple):
    """Where the minutes of an occurrence went. All but the first and the last sum to `scheduled`.

    `scheduled`: its hours without breaks; 0 on a holiday. `worked`: between her coming and her going, and what
    was forgiven. `late`, `early`: of her hours before she came and after she went. `absent`: all, when she was
    ABSENT. `unproven`: hers, where a punch is missing. `leave`: on leave, whether she was there or not.
    `holiday`: worked on a holiday, within the hours of the shift.
    """

    scheduled: int = 0
    worked: int = 0
    late: int = 0
    early: int = 0
    absent: int = 0
    leave: int = 0
    unproven: int = 0
    holiday: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What one occurrence came to.

    `came_time`, `went_time`: when, as recorded by the punch or correction that decided; None: not known.
    `punches`: those that counted. `correction_ids`: those in force.
    """

    occurrence: OccurrenceKey
    shift_version: int
    status: AttendanceStatus
    minutes: Minutes
    holiday: bool
    came_time: datetime | None
    went_time: datetime | None
    flags: frozenset[AttendanceFlag]
    punches: tuple[PunchKey, ...]
    correction_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attendance:
    """A result for each occurrence, in their order, and the punches in no clock window of any.

    A punch outside is not lost: a correction may say that she came or went then.
    """

    results: tuple[Result, ...]
    outside: tuple[PunchKey, ...]


class _Outcome(NamedTuple):
    status: AttendanceStatus
    minutes: Minutes


class _Assigned(NamedTuple):
    """Which punches count for which occurrence, which count for several, and which are in no window."""

    counted: Mapping[OccurrenceKey, Sequence[Punch]]
    doubtful: frozenset[tuple[OccurrenceKey, PunchKey]]
    shared: frozenset[PunchKey]
    outside: tuple[PunchKey, ...]


def evaluate(
    occurrences: Iterable[Occurrence],
    punches: Iterable[Punch],
    leaves: Iterable[Leave] = (),
    corrections: Iterable[Correction] = (),
) -> Attendance:
    """What the punches of one person say of her occurrences, one result for each.

    Order and repeats of all that is given do not matter. Example: 09:00 to 18:00 with an hour's break, 5
    minutes of grace; punches at 08:55, 12:03, 17:58 and 18:01: NORMAL, 480 minutes worked, gone at 18:01.
    With the first at 09:07: LATE by 7, 473 worked. With the last at 17:58, and nothing forgiven: EARLY by 2.
    Raises: ValueError if two records of one key differ.
    """
    by_key = {one.key: one for one in occurrences}
    ordered = sorted(by_key.values(), key=lambda one: (one.begin_time, one.end_time, one.shift.shift_id))
    effective = sorted((one for one in once(corrections) if one.in_force), key=lambda one: one.correction_id)
    cuts = [Span(minute_of(one.begin_time), minute_after(one.end_time)) for one in leaves]
    assigned = _assign(ordered, once(punches), effective)
    return Attendance(
        tuple(
            _result(one, assigned, cuts, [each for each in effective if each.occurrence == one.key])
            for one in ordered
        ),
        assigned.outside,
    )


def _assign(
    ordered: Sequence[Occurrence], punches: Sequence[Punch], corrections: Sequence[Correction]
) -> _Assigned:
    """Each punch to the occurrences in whose clock window it lies, by itself and whatever else there is.

    Where two windows overlap, a coming counts for the later shift and a going for the earlier; one without a
    direction for both, as she was there. A window that only the clock's uncertainty reaches counts where
    there is no other.
    """
    windows = [(one.key, *one.window) for one in ordered]
    disregarded = {
        (one.occurrence, one.punch_key) for one in corrections if one.kind is CorrectionKind.DISREGARD
    }
    counted: dict[OccurrenceKey, list[Punch]] = {one.key: [] for one in ordered}
    doubtful, shared, outside = set(), set(), []
    for punch in sorted(punches, key=lambda punch: (punch.punch_time, punch.key)):
        certain = [key for key, begin, end in windows if begin <= punch.punch_time <= end]
        possible = [
            key for key, begin, end in windows if begin <= punch.latest_time and punch.earliest_time <= end
        ]
        if not possible:
            outside.append(punch.key)
        homes = _homes([key for key in certain or possible if (key, punch.key) not in disregarded], punch)
        for key in homes:
            counted[key].append(punch)
            if not certain:
                doubtful.add((key, punch.key))
        if len(homes) > 1:
            shared.add(punch.key)
    return _Assigned(counted, frozenset(doubtful), frozenset(shared), tuple(outside))


def _homes(keys: list[OccurrenceKey], punch: Punch) -> list[OccurrenceKey]:
    if punch.direction is PunchDirection.IN:
        return keys[-1:]
    return keys[:1] if punch.direction is PunchDirection.OUT else keys


def _result(
    one: Occurrence, assigned: _Assigned, leave: Sequence[Span], corrections: Sequence[Correction]
) -> Result:
    punches = assigned.counted[one.key]
    marks = [
        *(Mark(each.punch_time, each.earliest_time, each.latest_time, each.direction) for each in punches),
        *_corrected(corrections),
    ]
    debounce = timedelta(seconds=one.shift.debounce_seconds)
    seen = visit(marks, _bounds(one, leave), one.shift.margin_minutes, debounce)
    came = None if seen.came is None else minute_of(seen.came.earliest)
    went = None if seen.went is None else minute_after(seen.went.latest)
    outcome = _outcome(one, leave, came, went)
    came_by = None if seen.came_by is None else minute_of(seen.came_by)
    went_from = None if seen.went_from is None else minute_after(seen.went_from)
    flags = {
        AttendanceFlag.CLOCK_DOUBT: _outcome(one, leave, came_by, went_from).status is not outcome.status
        or any((one.key, each.key) in assigned.doubtful for each in punches),
        AttendanceFlag.SHARED_PUNCH: any(each.key in assigned.shared for each in punches),
        AttendanceFlag.WORKED_ON_LEAVE: _worked_on_leave(one, leave, came, went),
    }
    return Result(
        occurrence=one.key,
        shift_version=one.shift.version,
        status=outcome.status,
        minutes=outcome.minutes,
        holiday=one.holiday,
        came_time=None if seen.came is None else seen.came.time,
        went_time=None if seen.went is None else seen.went.time,
        flags=frozenset(flag for flag, holds in flags.items() if holds),
        punches=tuple(each.key for each in punches),
        correction_ids=tuple(each.correction_id for each in corrections),
    )


def _corrected(corrections: Iterable[Correction]) -> Iterable[Mark]:
    ways = {CorrectionKind.CAME: PunchDirection.IN, CorrectionKind.WENT: PunchDirection.OUT}
    for one in corrections:
        if one.kind in ways and one.corrected_time is not None:
            yield Mark(one.corrected_time, one.corrected_time, one.corrected_time, ways[one.kind])


def _bounds(one: Occurrence, leave: Iterable[Span]) -> Span:
    """The first and the last of her minutes; on leave the whole time, those of the shift."""
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


def _outcome(one: Occurrence, leave: Sequence[Span], came: int | None, went: int | None) -> _Outcome:
    """Status and minutes, given the minutes in which she came and before which she went. None: not known."""
    hours = _hours(one, leave, came)
    if one.holiday:
        return _on_holiday(hours, came, went)
    due = _due(hours, leave)
    due_minutes = length(due)
    minutes = Minutes(scheduled=length(hours), leave=length(hours) - due_minutes)
    if not due:
        return _Outcome(AttendanceStatus.NORMAL, minutes)
    late = 0 if came is None else _beyond(one.shift.grace_minutes, length(due, end=came))
    early = 0 if went is None else _beyond(one.shift.early_grace_minutes, length(due, begin=went))
    rest = due_minutes - late - early
    if (came is None and went is None) or (came is not None and went is not None and rest <= 0):
        return _Outcome(AttendanceStatus.ABSENT, minutes._replace(absent=due_minutes))
    if came is None or went is None:
        minutes = minutes._replace(late=late, early=early, unproven=rest)
        return _Outcome(AttendanceStatus.MISSING_PUNCH, minutes)
    return _Outcome(_status(one.shift, late, early), minutes._replace(worked=rest, late=late, early=early))


def _on_holiday(hours: tuple[Span, ...], came: int | None, went: int | None) -> _Outcome:
    """Nobody is late on a holiday. Who came and has no going is told, so that she is paid once it is known."""
    if came is not None and went is not None:
        return _Outcome(AttendanceStatus.NORMAL, Minutes(holiday=length(hours, came, went)))
    alone = came is not None or went is not None
    return _Outcome(AttendanceStatus.MISSING_PUNCH if alone else AttendanceStatus.NORMAL, Minutes())


def _beyond(grace_minutes: int, minutes: int) -> int:
    """What is not forgiven: all, once it is more than the grace."""
    return minutes if minutes > grace_minutes else 0


def _status(shift: ShiftVersion, late: int, early: int) -> AttendanceStatus:
    if late > shift.seriously_late_minutes:
        return AttendanceStatus.SERIOUSLY_LATE
    if late:
        return AttendanceStatus.LATE
    return AttendanceStatus.EARLY if early else AttendanceStatus.NORMAL


def _worked_on_leave(one: Occurrence, leave: Sequence[Span], came: int | None, went: int | None) -> bool:
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
