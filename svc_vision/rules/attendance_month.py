"""A person's month: what the results of its shifts come to. Read `attendance` first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from svc_vision.rules.attendance import Result
from svc_vision.rules.attendance_minutes import AttendanceStatus, Minutes


@dataclass(frozen=True, slots=True)
class MonthTotals:
    """What payroll needs to know of a person's month.

    `month`: its first day. `days_worked`: dates with any minute worked, each once however many its shifts.
    `occurrences`: of each status; one that does not occur has 0. `flagged`: occurrences that a person should
    look at; `corrected`: with a correction in force. `minutes`: of all occurrences.
    """

    month: date
    days_worked: int
    occurrences: dict[AttendanceStatus, int]
    flagged: int
    corrected: int
    minutes: Minutes


def month_totals(results: Iterable[Result], month: date) -> MonthTotals:
    """The totals of a month, of the results whose shifts begin in it by the site's clock.

    A night shift from 30 November to 1 December is November's, whole. Example: three shifts of 480 minutes,
    one NORMAL, one LATE by 20, one ABSENT: 2 days, 1,440 scheduled, 940 worked, 20 late, 480 absent.
    """
    own = [one for one in results if one.occurrence.work_date.replace(day=1) == month]
    counted = Counter(one.status for one in own)
    worked = {one.occurrence.work_date for one in own if one.minutes.worked or one.minutes.holiday}
    columns = zip(Minutes(), *(one.minutes for one in own), strict=True)
    return MonthTotals(
        month=month,
        days_worked=len(worked),
        occurrences={status: counted[status] for status in AttendanceStatus},
        flagged=sum(bool(one.flags) for one in own),
        corrected=sum(bool(one.correction_ids) for one in own),
        minutes=Minutes(*(sum(column) for column in columns)),
    )
