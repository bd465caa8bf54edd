"""Shifts: their versions, who works them from when, and the occurrences that follow for a range of dates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from chassis.errors import Violation
from svc_vision.rules.attendance_punch import OccurrenceKey
from svc_vision.rules.local_time import MINUTE, moment
from svc_vision.rules.span import Span, minute_of, without

DAY_MINUTES: Final = 24 * 60
WORKDAYS: Final = frozenset(range(5))
WINDOW_BEFORE_MINUTES_DEFAULT: Final = 30
WINDOW_AFTER_MINUTES_DEFAULT: Final = 60
DEBOUNCE_SECONDS_DEFAULT: Final = 60


@dataclass(frozen=True, slots=True)
class Break:
    """Time within a shift that is no work, in minutes since the local midnight of the shift's date."""

    begin_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class ShiftVersion:
    """A shift as it is from a date on, until a later version. All hours are those of the site's wall clock.

    `begin_minute` and `end_minute` count from the local midnight of the shift's date; an end beyond 1,440 is
    on the day after. `weekdays`: Monday 0 to Sunday 6; none: the shift rests.
    `flexible_minutes`: who comes up to so much later is on time, and stays as much longer.
    `grace_minutes`, `early_grace_minutes`: late, or early, by at most so much is forgiven, as if worked.
    `seriously_late_minutes`: late by more than so much is SERIOUSLY_LATE.
    `window_before_minutes`, `window_after_minutes`: so long before the begin and after the end punches count.
    `margin_minutes`: within so much of the begin, and before it, a punch without a direction is no going, and
    within so much of the end, and after it, no coming. `debounce_seconds`: what lies no further apart than
    this is one act, and not a coming and a going.
    """

    shift_id: str
    version: int
    effective_from_date: date
    begin_minute: int
    end_minute: int
    breaks: tuple[Break, ...] = ()
    weekdays: frozenset[int] = WORKDAYS
    flexible_minutes: int = 0
    grace_minutes: int = 0
    early_grace_minutes: int = 0
    seriously_late_minutes: int = 30
    window_before_minutes: int = WINDOW_BEFORE_MINUTES_DEFAULT
    window_after_minutes: int = WINDOW_AFTER_MINUTES_DEFAULT
    margin_minutes: int = 0
    debounce_seconds: int = DEBOUNCE_SECONDS_DEFAULT


@dataclass(frozen=True, slots=True)
class WorkCalendar:
    """By which clock a site goes, and which of its days differ from other weeks.

    `exchanged`: on such a date the shifts of another weekday are worked (调休), Monday 0 to Sunday 6.
    """

    time_zone: ZoneInfo
    holidays: frozenset[date] = frozenset()
    exchanged: Mapping[date, int] = field(default_factory=dict)

    def weekday(self, day: date) -> int:
        """The weekday whose shifts are worked."""
        return self.exchanged.get(day, day.weekday())


@dataclass(frozen=True, slots=True)
class Assignment:
    """Somebody works a shift by a site's calendar, from `from_date` until before `to_date` (None: no end)."""

    shift_id: str
    calendar: WorkCalendar
    from_date: date
    to_date: date | None = None

    def covers(self, day: date) -> bool:
        """Whether it holds on a date."""
        return self.from_date <= day and (self.to_date is None or day < self.to_date)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One working of a shift. On a holiday nobody has to come; who comes works on a holiday."""

    shift: ShiftVersion
    work_date: date
    time_zone: ZoneInfo
    holiday: bool = False

    @property
    def key(self) -> OccurrenceKey:
        """What tells it from all others of a person."""
        return OccurrenceKey(self.shift.shift_id, self.work_date)

    @property
    def begin_time(self) -> datetime:
        """When it begins."""
        return moment(self.work_date, self.shift.begin_minute, self.time_zone)

    @property
    def end_time(self) -> datetime:
        """When it ends."""
        return moment(self.work_date, self.shift.end_minute, self.time_zone)

    @property
    def window(self) -> tuple[datetime, datetime]:
        """From when until when punches count for it, both included. Until it ends the result is not final."""
        before, after = self.shift.window_before_minutes, self.shift.window_after_minutes
        return self.begin_time - before * MINUTE, self.end_time + after * MINUTE

    def hours(self, later_minutes: int = 0) -> tuple[Span, ...]:
        """Its working minutes, moved by so much: breaks are not among them, and stay where they are."""
        whole = Span(minute_of(self.begin_time) + later_minutes, minute_of(self.end_time) + later_minutes)
        left: tuple[Span, ...] = (whole,) if whole.begin < whole.end else ()
        for one in self.shift.breaks:
            begin = moment(self.work_date, one.begin_minute, self.time_zone)
            end = moment(self.work_date, one.end_minute, self.time_zone)
            left = without(left, Span(minute_of(begin), minute_of(end)))
        return left


def in_force(versions: Iterable[ShiftVersion], shift_id: str, day: date) -> ShiftVersion | None:
    """The version of a shift that holds on a date: of those begun the last, and of these the highest."""
    begun = [one for one in versions if one.shift_id == shift_id and one.effective_from_date <= day]
    return max(begun, key=lambda one: (one.effective_from_date, one.version), default=None)


def occurrences(
    versions: Iterable[ShiftVersion], assignments: Iterable[Assignment], first_date: date, last_date: date
) -> list[Occurrence]:
    """What somebody is to work on the dates, both ends included, by the versions in force on each.

    Of two assignments to one shift on one date the one that began later holds.

    Example: Mondays to Fridays 09:00 to 18:00, from 16 November 2026 on until 17:00: on Friday the 13th till
    18:00, on Saturday and Sunday nothing, on Monday the 16th till 17:00.
    """
    versions = list(versions)
    begun = sorted(assignments, key=lambda one: one.from_date)
    found = []
    for number in range((last_date - first_date).days + 1):
        day = first_date + timedelta(days=number)
        for one in {one.shift_id: one for one in begun if one.covers(day)}.values():
            shift = in_force(versions, one.shift_id, day)
            if shift is not None and one.calendar.weekday(day) in shift.weekdays:
                holiday = day in one.calendar.holidays
                found.append(Occurrence(shift, day, one.calendar.time_zone, holiday))
    return sorted(found, key=lambda one: (one.begin_time, one.end_time, one.shift.shift_id))


def problems(shift: ShiftVersion) -> list[Violation]:
    """What is wrong with a version of a shift. Paths begin at it."""
    found = []
    if not 0 <= shift.begin_minute < DAY_MINUTES:
        found.append(Violation("begin_minute", "must be within the day: 0 to 1,439"))
    if not 0 < shift.end_minute - shift.begin_minute <= DAY_MINUTES:
        found.append(Violation("end_minute", "must be up to 1,440 minutes after begin_minute"))
    after = shift.begin_minute + shift.flexible_minutes
    for index, one in enumerate(shift.breaks):
        if not after <= one.begin_minute < one.end_minute <= shift.end_minute:
            found.append(
                Violation(
                    f"breaks[{index}]",
                    "must be after the one before it, and between begin plus flexible minutes and end",
                )
            )
        after = max(after, one.end_minute)
    if shift.grace_minutes > shift.seriously_late_minutes:
        found.append(Violation("grace_minutes", "must be at most seriously_late_minutes"))
    if 2 * shift.margin_minutes > shift.end_minute - shift.begin_minute:
        found.append(Violation("margin_minutes", "must be at most half the shift"))
    if not shift.weekdays <= frozenset(range(7)):
        found.append(Violation("weekdays", "must be days from 0, Monday, to 6, Sunday"))
    return found
