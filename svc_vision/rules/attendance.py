"""Attendance (考勤): what the punches of one person say of each shift that she was to work.

Read `attendance_punch` and `attendance_shift` first, then `attendance_visit` and `attendance_minutes`.

A result is a pure function of the set of punches, the occurrences of shifts (from their versions and the
calendar), leave and corrections: whatever becomes known later, it is computed anew, and the raw punches stay
as they were. Where a record leaves room for doubt it is decided for the worker, and flagged.

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

from svc_vision.rules.attendance_minutes import (
    AttendanceStatus,
    Leave,
    Minutes,
    bounds,
    outcome,
    spans_of,
    worked_on_leave,
)
from svc_vision.rules.attendance_punch import (
    Correction,
    CorrectionKind,
    OccurrenceKey,
    Punch,
    PunchDirection,
    PunchKey,
    once,
)
from svc_vision.rules.attendance_shift import Occurrence
from svc_vision.rules.attendance_visit import Mark, visit
from svc_vision.rules.span import Span, minute_after, minute_of


class AttendanceFlag(enum.StrEnum):
    """Why a person should look at a result that was decided for the worker.

    CLOCK_DOUBT: had the doors' clocks been off the other way, the status would be another; or a punch is
    in the clock window only if they were off. SHARED_PUNCH: a punch without a direction counts for another
    shift too. WORKED_ON_LEAVE: she was there longer than a clock window of her leave.
    """

    CLOCK_DOUBT = "CLOCK_DOUBT"
    SHARED_PUNCH = "SHARED_PUNCH"
    WORKED_ON_LEAVE = "WORKED_ON_LEAVE"


@dataclass(frozen=True, slots=True)
class Result:
    """What one occurrence came to.

    `came_time`, `went_time`: when, as recorded, whatever the clocks' uncertainty; None: not known.
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
    stated = once(corrections, lambda one: one.correction_id)
    effective = sorted((one for one in stated if one.in_force), key=lambda one: one.correction_id)
    cuts = spans_of(leaves)
    assigned = _assign(ordered, once(punches, lambda one: one.key), effective)
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
    seen = visit(marks, bounds(one, leave), one.shift.margin_minutes, debounce)
    came = seen.came and minute_of(seen.came.decided)
    went = seen.went and minute_after(seen.went.decided)
    decided = outcome(one, leave, seen.seen, came, went)
    doubted = outcome(
        one,
        leave,
        seen.seen,
        seen.came and minute_of(seen.came.doubted),
        seen.went and minute_after(seen.went.doubted),
    )
    flags = {
        AttendanceFlag.CLOCK_DOUBT: doubted.status is not decided.status
        or any((one.key, each.key) in assigned.doubtful for each in punches),
        AttendanceFlag.SHARED_PUNCH: any(each.key in assigned.shared for each in punches),
        AttendanceFlag.WORKED_ON_LEAVE: worked_on_leave(one, leave, came, went),
    }
    return Result(
        occurrence=one.key,
        shift_version=one.shift.version,
        status=decided.status,
        minutes=decided.minutes,
        holiday=one.holiday,
        came_time=seen.came and seen.came.recorded,
        went_time=seen.went and seen.went.recorded,
        flags=frozenset(flag for flag, holds in flags.items() if holds),
        punches=tuple(each.key for each in punches),
        correction_ids=tuple(each.correction_id for each in corrections),
    )


def _corrected(corrections: Iterable[Correction]) -> Iterable[Mark]:
    ways = {CorrectionKind.CAME: PunchDirection.IN, CorrectionKind.WENT: PunchDirection.OUT}
    for one in corrections:
        if one.kind in ways and one.corrected_time is not None:
            yield Mark(one.corrected_time, one.corrected_time, one.corrected_time, ways[one.kind])
