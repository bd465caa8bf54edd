"""When a door may be passed: hours of the week by the clock on the site's wall, and holidays.

A window is compared with what that clock shows, so that it needs no rule for nights on which clocks change:
an hour that occurs twice is within a window both times, one that is left out is not missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from chassis.errors import Violation

DAY_MINUTES: Final = 24 * 60
WEEK_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day, in minutes since its local midnight, from `begin_minute` until before `end_minute`.

    An end beyond 1,440 is on the day after: 22:00 to 06:00 is (1320, 1800), and belongs to the day on which
    it begins.
    """

    begin_minute: int
    end_minute: int


ALL_DAY: Final = Window(0, DAY_MINUTES)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows by weekday, Monday 0 to Sunday 6; on a holiday those for holidays instead. None: closed.

    Example: with (1320, 1800) on Fridays and the Friday a holiday without windows, the site is closed at
    02:00 on Saturday too: the night belongs to the Friday.
    """

    weekdays: Mapping[int, tuple[Window, ...]]
    holidays: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Calendar:
    """By which clock a site goes, and which of its days are holidays."""

    time_zone: ZoneInfo
    holidays: frozenset[date] = field(default_factory=frozenset)


ALWAYS: Final = Schedule(dict.fromkeys(range(WEEK_DAYS), (ALL_DAY,)), (ALL_DAY,))


def is_within(schedule: Schedule, calendar: Calendar, now: datetime) -> bool:
    """Whether a moment is in one of the schedule's windows.

    Example: Mondays 09:00 to 18:00 in Shanghai: 01:00 UTC is within, 10:00 UTC is not.
    """
    local = now.astimezone(calendar.time_zone)
    minute = local.hour * 60 + local.minute
    today = local.date()
    return _holds(_windows(schedule, calendar, today), minute) or _holds(
        _windows(schedule, calendar, today - timedelta(days=1)), minute + DAY_MINUTES
    )


def problems(schedule: Schedule) -> list[Violation]:
    """What is wrong with a schedule. Paths begin at the schedule."""
    found = [
        Violation(f"weekdays[{day}]", "must be a day from 0, Monday, to 6, Sunday")
        for day in schedule.weekdays
        if not 0 <= day < WEEK_DAYS
    ]
    for path, windows in [
        *((f"weekdays[{day}]", windows) for day, windows in schedule.weekdays.items()),
        ("holidays", schedule.holidays),
    ]:
        for index, window in enumerate(windows):
            if not 0 <= window.begin_minute < DAY_MINUTES:
                found.append(Violation(f"{path}[{index}].begin_minute", "must be within the day: 0 to 1,439"))
            if not 0 < window.end_minute - window.begin_minute <= DAY_MINUTES:
                found.append(
                    Violation(f"{path}[{index}].end_minute", "must be up to 1,440 minutes after begin_minute")
                )
    return found


def _windows(schedule: Schedule, calendar: Calendar, day: date) -> Sequence[Window]:
    if day in calendar.holidays:
        return schedule.holidays
    return schedule.weekdays.get(day.weekday(), ())


def _holds(windows: Sequence[Window], minute: int) -> bool:
    return any(window.begin_minute <= minute < window.end_minute for window in windows)
