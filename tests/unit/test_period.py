"""Days and months that figures are asked for: which there are, and how many at once."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules.period import DAYS_MAX, MONTHS_MAX, Period, period_of, periods, range_problem

FEBRUARY = Period(date(2028, 2, 1), whole_month=True)


def test_day_0_is_the_whole_month() -> None:
    """All others are themselves, a leap year's last of February among them."""
    assert period_of(2028, 2, 0) == FEBRUARY
    assert period_of(2028, 2, 1) == Period(date(2028, 2, 1), whole_month=False)
    assert period_of(2028, 2, 29) == Period(date(2028, 2, 29), whole_month=False)
    assert period_of(9999, 12, 0) == Period(date(9999, 12, 1), whole_month=True)


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 0, 0),
        (2027, 2, 29),
        (2026, 13, 1),
        (2026, 0, 1),
        (2026, 4, 31),
        (2026, 1, -1),
        (-1, 1, 1),
        (10_000, 1, 0),
        (2**31 - 1, 1, 1),
    ],
)
def test_what_the_calendar_does_not_have_is_no_period(numbers: tuple[int, int, int]) -> None:
    """Also where a month is asked for."""
    assert period_of(*numbers) is None


def test_the_months_of_a_range_are_those_of_the_calendar() -> None:
    """Both ends included, and over the end of a year."""
    first, last = Period(date(2026, 11, 1), whole_month=True), Period(date(2027, 2, 1), whole_month=True)
    assert [one.day for one in periods(first, last)] == [
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
        date(2027, 2, 1),
    ]


@given(st.dates(max_value=date(9990, 1, 1)), st.integers(0, DAYS_MAX - 1))
def test_the_days_of_a_range_are_all_there_are(begin: date, count: int) -> None:
    """None is left out and none comes twice, over leap days and the ends of months."""
    first = Period(begin, whole_month=False)
    last = Period(date.fromordinal(begin.toordinal() + count), whole_month=False)
    assert range_problem(first, last) == ""
    assert [one.day.toordinal() for one in periods(first, last)] == [
        begin.toordinal() + number for number in range(count + 1)
    ]


def test_the_longest_ranges_and_those_that_are_too_long() -> None:
    """400 days, 36 months, and one more of each."""
    day = Period(date(2026, 1, 1), whole_month=False)
    assert range_problem(day, Period(date(2027, 2, 4), whole_month=False)) == ""
    assert len(periods(day, Period(date(2027, 2, 4), whole_month=False))) == DAYS_MAX
    assert "400 days" in range_problem(day, Period(date(2027, 2, 5), whole_month=False))
    month = Period(date(2026, 1, 1), whole_month=True)
    assert range_problem(month, Period(date(2028, 12, 1), whole_month=True)) == ""
    assert len(periods(month, Period(date(2028, 12, 1), whole_month=True))) == MONTHS_MAX
    assert "36 months" in range_problem(month, Period(date(2029, 1, 1), whole_month=True))


def test_both_ends_are_of_one_kind_and_in_order() -> None:
    """A month to a day would be two questions."""
    day = Period(date(2028, 2, 1), whole_month=False)
    assert "a month if it is a month" in range_problem(FEBRUARY, day)
    assert "a day if the first is a day" in range_problem(day, FEBRUARY)
    assert "before" in range_problem(FEBRUARY, Period(date(2028, 1, 1), whole_month=True))
    assert range_problem(day, day) == ""
