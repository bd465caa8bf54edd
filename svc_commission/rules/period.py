"""Days and whole months of a brand's business calendar, as figures are summed by."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final, NamedTuple

from svc_commission.rules.month import next_month

DAYS_MAX: Final = 400
MONTHS_MAX: Final = 36


class Period(NamedTuple):
    """One day, or one whole month, which is written as its first day."""

    day: date
    whole_month: bool


def period_of(year: int, month: int, day: int) -> Period | None:
    """The day; or the whole month, where the day is 0. None: the calendar has no such thing."""
    try:
        return Period(date(year, month, day or 1), whole_month=not day)
    except ValueError:
        return None


def range_problem(first: Period, last: Period) -> str:
    """What is wrong with a range of periods, both ends included; empty: nothing."""
    if first.whole_month != last.whole_month:
        return "must be a day if the first is a day, and a month if it is a month"
    if last.day < first.day:
        return "must not be before the first"
    if first.whole_month:
        many = 12 * (last.day.year - first.day.year) + last.day.month - first.day.month >= MONTHS_MAX
    else:
        many = (last.day - first.day).days >= DAYS_MAX
    return f"must be at most {DAYS_MAX} days or {MONTHS_MAX} months from the first on" if many else ""


def periods(first: Period, last: Period) -> list[Period]:
    """All periods from the first to the last, which make a range without a problem."""
    found = [first]
    while found[-1] != last:
        before = found[-1].day
        after = next_month(before) if first.whole_month else before + timedelta(days=1)
        found.append(Period(after, first.whole_month))
    return found
