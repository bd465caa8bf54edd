"""Attendance: laws over made-up days, days worked out by hand, and planted faults that the laws find."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_vision.attendance.month_csv import MONTH_COLUMNS, PersonMonth, month_csv
from svc_vision.rules import (
    attendance,
    attendance_minutes,
    attendance_punch,
    attendance_shift,
    attendance_visit,
)
from svc_vision.rules.attendance import AttendanceFlag, Result, evaluate
from svc_vision.rules.attendance_minutes import AttendanceStatus, Leave, Minutes
from svc_vision.rules.attendance_month import MonthTotals, month_totals
from svc_vision.rules.attendance_punch import (
    Correction,
    CorrectionKind,
    Punch,
    PunchDirection,
    PunchKey,
    PunchMethod,
    check_approvable,
)
from svc_vision.rules.attendance_shift import (
    Assignment,
    Break,
    Occurrence,
    ShiftVersion,
    WorkCalendar,
    in_force,
    occurrences,
)
from svc_vision.rules.attendance_visit import Visit
from svc_vision.rules.local_time import moment
from svc_vision.rules.span import Span, length, minute_of, without
from tests.unit import attendance_laws
from tests.unit.attendance_weeks import FIXED, Week, shift, weeks

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
NEW_YORK: Final = ZoneInfo("America/New_York")
FRIDAY: Final = date(2026, 11, 13)
DAY: Final = shift("day", 540, 1080, (720, 780), grace_minutes=5)
IN, OUT = PunchDirection.IN, PunchDirection.OUT


# ---- laws -------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(weeks())
def test_attendance_obeys_every_law(week: Week) -> None:
    for law in attendance_laws.LAWS:
        law(week)


@settings(max_examples=60, deadline=None)
@given(weeks(places=[(zone, date(2026, 11, 29)) for zone in FIXED]))
def test_where_clocks_never_change_all_zones_are_alike(week: Week) -> None:
    attendance_laws.zones_without_clock_changes_are_alike(week)


@settings(max_examples=80, deadline=None)
@given(weeks(simple=True))
def test_minute_by_minute_it_is_the_same(week: Week) -> None:
    attendance_laws.minute_by_minute_it_is_the_same(week)


@settings(max_examples=60, deadline=None)
@given(st.data(), weeks())
def test_any_arrival_gives_the_same_attendance(data: st.DataObject, week: Week) -> None:
    """Whatever comes late, first, or twice."""

    def shuffled(given_once: tuple[Any, ...]) -> list[Any]:
        again = data.draw(st.lists(st.sampled_from(given_once), max_size=3)) if given_once else []
        return data.draw(st.permutations([*given_once, *again]))

    attendance_laws.any_arrival_gives_the_same_attendance(
        week,
        shuffled(week.occurrences),
        shuffled(week.punches),
        shuffled(week.leaves),
        shuffled(week.corrections),
    )


@given(
    st.sampled_from([SHANGHAI, NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia")]),
    st.dates(date(2011, 1, 1), date(2026, 12, 31)),
    st.integers(0, 2880),
    st.integers(0, 600),
)
def test_a_later_time_of_the_wall_is_never_an_earlier_moment(
    zone: ZoneInfo, day: date, minute: int, more: int
) -> None:
    """Also in Apia, whose wall clocks left out 30 December 2011; and a time that is shown is that time."""
    found = moment(day, minute, zone)
    assert found <= moment(day, minute + more, zone)
    wall = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minute)
    shown = found.astimezone(zone).replace(tzinfo=None)
    assert shown >= wall.replace(tzinfo=None)
    before = (found - timedelta(minutes=1)).astimezone(zone).replace(tzinfo=None)
    assert before < wall.replace(tzinfo=None)


def test_a_time_left_out_is_the_change_and_one_shown_twice_the_first() -> None:
    """In New York on 8 March and 1 November 2026; the first midnight of a day without one is in Beirut."""
    assert moment(date(2026, 3, 8), 150, NEW_YORK) == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert moment(date(2026, 11, 1), 90, NEW_YORK) == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert moment(date(2026, 3, 29), 0, ZoneInfo("Asia/Beirut")) == datetime(2026, 3, 28, 22, tzinfo=UTC)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4), st.integers(0, 30))
def test_spans_are_sets_of_minutes(cuts: list[tuple[int, int]], begin: int) -> None:
    left: tuple[Span, ...] = (Span(3, 25),)
    minutes = set(range(3, 25))
    for cut in cuts:
        left = without(left, Span(*cut))
        minutes -= set(range(*cut))
    assert {minute for span in left for minute in range(*span)} == minutes
    assert length(left, begin) + length(left, end=begin) == length(left) == len(minutes)
    assert all(before.end < after.begin for before, after in pairwise(left))


# ---- days worked out by hand -------------------------------------------------------------------------


def at(text: str, *, zone: ZoneInfo = SHANGHAI, fold: int = 0, day: date = FRIDAY) -> datetime:
    """A time of the day, or of the day after where it is written with a `+`."""
    shown = time.fromisoformat(text.strip("+")).replace(tzinfo=zone, fold=fold)
    return datetime.combine(day + timedelta(days=text.startswith("+")), shown).astimezone(UTC)


def punched(*times: str | tuple[str, PunchDirection], **more: Any) -> list[Punch]:
    """Punches at these times."""
    found = []
    for number, one in enumerate(times):
        text, way = (one, PunchDirection.UNKNOWN) if isinstance(one, str) else one
        key = PunchKey("door", "journal", number)
        found.append(Punch(key, at(text, day=more.get("day", FRIDAY)), way, uncertainty_ms=more.get("ms", 0)))
    return found


def judged(
    version: ShiftVersion,
    punches: Iterable[Punch],
    *,
    zone: ZoneInfo = SHANGHAI,
    day: date = FRIDAY,
    holiday: bool = False,
    leaves: Iterable[Leave] = (),
    corrections: Iterable[Correction] = (),
) -> Result:
    """What one shift of one day comes to."""
    one = Occurrence(version, day, zone, holiday)
    [result] = evaluate([one], punches, leaves, corrections).results
    return result


def told(result: Result) -> tuple[str, int, int, int]:
    """Status, and minutes worked, late and early."""
    return result.status.value, result.minutes.worked, result.minutes.late, result.minutes.early


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["08:55", "12:03", "17:58", "18:01"], ("NORMAL", 480, 0, 0)),
        (["09:05:59", "18:00"], ("NORMAL", 480, 0, 0)),
        (["09:07", "18:00"], ("LATE", 473, 7, 0)),
        (["09:31", "18:00"], ("SERIOUSLY_LATE", 449, 31, 0)),
        (["08:55", "17:58"], ("EARLY", 478, 0, 2)),
        (["09:10", "17:00"], ("LATE", 410, 10, 60)),
        (["12:30", "18:00"], ("SERIOUSLY_LATE", 300, 180, 0)),
        (["09:40"], ("MISSING_PUNCH", 0, 40, 0)),
        (["17:58", "17:58:40"], ("MISSING_PUNCH", 0, 0, 1)),
        (["08:45", "08:59:50"], ("MISSING_PUNCH", 0, 0, 0)),
        (["12:10", "12:40"], ("ABSENT", 0, 0, 0)),
        (["08:29:59", "19:00:01"], ("ABSENT", 0, 0, 0)),
        (["08:30", "19:00"], ("NORMAL", 480, 0, 0)),
        ([], ("ABSENT", 0, 0, 0)),
    ],
)
def test_a_day_from_nine_to_six(times: list[str], expected: tuple[str, int, int, int]) -> None:
    """An hour's break, 5 minutes of grace, seriously late beyond 30: minutes worked, late, early."""
    assert told(judged(DAY, punched(*times))) == expected


def test_a_going_a_moment_after_a_going_is_the_later_one() -> None:
    """17:58 does not suppress 18:01, though debounce is five minutes here: she went at 18:01."""
    result = judged(replace(DAY, debounce_seconds=300), punched("09:00", "17:58", "18:01"))
    assert told(result) == ("NORMAL", 480, 0, 0)
    assert result.went_time == at("18:01")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([("08:50", IN), ("12:00", OUT), ("13:00", IN), ("18:00", OUT)], ("NORMAL", 480, 0, 0)),
        ([("08:50", IN), ("12:00", OUT), ("13:00", IN)], ("MISSING_PUNCH", 0, 0, 0)),
        ([("12:00", OUT), ("13:00", IN), ("18:00", OUT)], ("MISSING_PUNCH", 0, 0, 0)),
        ([("12:00", OUT), ("13:00", IN)], ("MISSING_PUNCH", 0, 0, 0)),
        ([("08:50", IN), ("08:58", OUT)], ("ABSENT", 0, 0, 0)),
        ([("09:00", IN), ("17:50", OUT), ("18:20", IN)], ("EARLY", 470, 0, 10)),
        ([("08:58", OUT), ("09:10", IN), ("18:00", OUT)], ("LATE", 470, 10, 0)),
        ([("09:00", IN), "09:00:30", ("13:00", IN)], ("MISSING_PUNCH", 0, 0, 0)),
        ([("18:10", IN), "18:05"], ("MISSING_PUNCH", 0, 0, 0)),
    ],
)
def test_doors_that_tell_are_believed(
    times: list[str | tuple[str, PunchDirection]], expected: tuple[str, int, int, int]
) -> None:
    """Who went in again has not gone; who goes out was there before; and nothing is made up."""
    assert told(judged(DAY, punched(*times))) == expected


def test_flexible_hours_follow_who_comes() -> None:
    """Up to an hour later: come at 09:40 she stays till 18:40; at 10:10 she is late by 10, and till 19:00."""
    flexible = replace(DAY, flexible_minutes=60, grace_minutes=0)
    assert told(judged(flexible, punched("09:40", "18:40"))) == ("NORMAL", 480, 0, 0)
    assert told(judged(flexible, punched("09:40", "18:30"))) == ("EARLY", 470, 0, 10)
    assert told(judged(flexible, punched("10:10", "19:00"))) == ("LATE", 470, 10, 0)
    assert told(judged(flexible, punched("08:40", "18:00"))) == ("NORMAL", 480, 0, 0)


def leave(begin: str, end: str) -> Leave:
    return Leave("leave", at(begin), at(end))


def test_half_a_day_of_leave_leaves_the_other_half() -> None:
    """The morning off: due at 13:00, after the break. 13:20 is LATE by 20 of 300; 180 minutes are leave."""
    morning = leave("09:00", "12:00")
    result = judged(DAY, punched("13:20", "18:00"), leaves=[morning])
    assert told(result) == ("LATE", 280, 20, 0)
    assert (result.minutes.scheduled, result.minutes.leave) == (480, 180)
    assert told(judged(DAY, punched("09:00", "12:00"), leaves=[leave("12:00", "18:00")])) == (
        "NORMAL",
        180,
        0,
        0,
    )
    flexible = replace(DAY, flexible_minutes=60)
    assert told(judged(flexible, punched("13:20", "18:00"), leaves=[morning])) == ("LATE", 280, 20, 0)
    absent = judged(DAY, [], leaves=[morning])
    assert (absent.status, absent.minutes.absent) == (AttendanceStatus.ABSENT, 300)


def test_who_works_on_leave_is_told_so_that_it_can_be_given_back() -> None:
    """Not who comes half an hour before her half day ends, as she might before any shift."""
    whole, morning = leave("09:00", "18:00"), leave("09:00", "12:00")
    result = judged(DAY, punched("09:00", "18:00"), leaves=[whole])
    assert told(result) == ("NORMAL", 0, 0, 0)
    assert result.flags == {AttendanceFlag.WORKED_ON_LEAVE}
    assert judged(DAY, punched("09:00", "18:00"), leaves=[morning]).flags == {AttendanceFlag.WORKED_ON_LEAVE}
    assert judged(DAY, punched("12:40", "18:00"), leaves=[morning]).flags == frozenset()
    assert judged(DAY, [], leaves=[whole]).flags == frozenset()


def test_a_holiday_is_nobodys_fault_and_work_on_it_is_counted() -> None:
    """09:00 to 12:00: 180 minutes on a holiday. Who stays at home is NORMAL; half a record is told."""
    worked = judged(DAY, punched("09:00", "12:00"), holiday=True)
    assert (worked.status, worked.minutes) == (AttendanceStatus.NORMAL, Minutes(holiday=180))
    assert judged(DAY, [], holiday=True).status is AttendanceStatus.NORMAL
    assert judged(DAY, punched("09:00"), holiday=True).status is AttendanceStatus.MISSING_PUNCH
    holiday_leave = judged(DAY, punched("09:00", "12:00"), holiday=True, leaves=[leave("09:00", "18:00")])
    assert holiday_leave.minutes == Minutes(holiday=180)


def test_a_doubtful_clock_is_decided_for_the_worker_and_flagged() -> None:
    """09:07, by a clock that may be off by two minutes: perhaps 09:05, which is forgiven; perhaps 09:09."""
    doubtful = judged(DAY, punched("09:07", "18:10", ms=120_000))
    assert told(doubtful) == ("NORMAL", 480, 0, 0)
    assert doubtful.flags == {AttendanceFlag.CLOCK_DOUBT}
    assert doubtful.came_time == at("09:07"), "the record stays as it is"
    late = judged(DAY, punched("09:20", "18:10", ms=120_000))
    assert told(late) == ("LATE", 462, 18, 0)
    assert late.flags == frozenset()
    outside = judged(DAY, punched("09:00", "19:01", ms=120_000))
    assert told(outside) == ("NORMAL", 480, 0, 0)
    assert outside.flags == {AttendanceFlag.CLOCK_DOUBT}


MORNING: Final = shift("morning", 540, 720)
EVENING: Final = shift("evening", 780, 1080)


def both(*times: str | tuple[str, PunchDirection]) -> list[tuple[str, int, int, int]]:
    """A day of two shifts, 09:00 to 12:00 and 13:00 to 18:00."""
    two = [Occurrence(one, FRIDAY, SHANGHAI) for one in (EVENING, MORNING)]
    return [told(one) for one in evaluate(two, punched(*times)).results]


def test_a_punch_between_two_shifts() -> None:
    """12:40 is in both windows. Without a direction she was there at the end of one and before the other.

    IN is coming to the evening, and OUT is going from the morning.
    """
    normal = [("NORMAL", 180, 0, 0), ("NORMAL", 300, 0, 0)]
    assert both("08:55", "12:40", "18:05") == normal
    assert both("08:55", "12:02", "12:58", "18:05") == normal
    two = [Occurrence(one, FRIDAY, SHANGHAI) for one in (MORNING, EVENING)]
    shared = evaluate(two, punched("08:55", "12:40", "18:05")).results
    assert [one.flags for one in shared] == [{AttendanceFlag.SHARED_PUNCH}] * 2
    assert both("08:55", ("12:40", IN), "18:05") == [("MISSING_PUNCH", 0, 0, 0), ("NORMAL", 300, 0, 0)]
    assert both("08:55", ("12:40", OUT), "18:05") == [("NORMAL", 180, 0, 0), ("MISSING_PUNCH", 0, 0, 0)]
    assert both("18:05") == [("ABSENT", 0, 0, 0), ("MISSING_PUNCH", 0, 0, 0)]


def test_a_pin_outside_the_window_is_not_lost() -> None:
    """20:15, by PIN: no window reaches it. A correction that names it makes her day whole, until undone."""
    late_going = Punch(PunchKey("side door", "journal", 7), at("20:15"), OUT, PunchMethod.PIN)
    one = Occurrence(DAY, FRIDAY, SHANGHAI)
    punches = [*punched("09:00"), late_going]
    before = evaluate([one], punches)
    assert before.outside == (late_going.key,)
    assert before.results[0].status is AttendanceStatus.MISSING_PUNCH
    said = Correction(
        "c1", one.key, CorrectionKind.WENT, "stock count", "wang", "li", corrected_time=late_going.punch_time
    )
    after = evaluate([one], punches, corrections=[said])
    assert told(after.results[0]) == ("NORMAL", 480, 0, 0)
    assert (after.outside, after.results[0].correction_ids) == (before.outside, ("c1",))
    assert evaluate([one], punches, corrections=[replace(said, undone_time=at("21:00"))]) == before
    assert evaluate([one], punches, corrections=[replace(said, approved_by="")]) == before


def test_a_punch_can_be_disregarded_for_one_shift() -> None:
    """Ann's card in Bea's hand at 08:55: without it Ann came at 09:20."""
    one = Occurrence(DAY, FRIDAY, SHANGHAI)
    punches = punched("08:55", "09:20", "18:00")
    away = Correction(
        "c1", one.key, CorrectionKind.DISREGARD, "her card", "wang", "li", punch_key=punches[0].key
    )
    [result] = evaluate([one], punches, corrections=[away]).results
    assert told(result) == ("LATE", 460, 20, 0)
    assert result.punches == (punches[1].key, punches[2].key)


# ---- clocks that change ------------------------------------------------------------------------------

NIGHT: Final = shift("night", 1320, 1800)


def night(came: str, went: str, day: date, *, fold: int = 0, end_minute: int = 1800) -> Result:
    times = at(came, zone=NEW_YORK, day=day), at(went, zone=NEW_YORK, day=day, fold=fold)
    punches = [Punch(PunchKey("door", "journal", number), one) for number, one in enumerate(times)]
    return judged(replace(NIGHT, end_minute=end_minute), punches, zone=NEW_YORK, day=day)


@pytest.mark.parametrize(
    ("day", "minutes"), [(date(2026, 3, 6), 480), (date(2026, 3, 7), 420), (date(2026, 10, 31), 540)]
)
def test_a_night_has_as_many_minutes_as_pass(day: date, minutes: int) -> None:
    """22:00 to 06:00 in New York: 8 hours; 7 when the clock is put forward in it; 9 when it is put back."""
    assert told(night("22:00", "+06:00", day)) == ("NORMAL", minutes, 0, 0)
    assert told(night("22:10", "+06:00", day)) == ("LATE", minutes - 10, 10, 0)


def test_the_hour_that_occurs_twice_is_two_hours() -> None:
    """Till 01:30 on 1 November: the first 01:30. Gone then she is not early; gone at 00:50, early by 40.

    Gone at the second 01:30 she has stayed an hour longer, which is in the window still.
    """
    autumn = date(2026, 10, 31)
    assert told(night("22:00", "+01:30", autumn, end_minute=1530)) == ("NORMAL", 210, 0, 0)
    assert told(night("22:00", "+00:50", autumn, end_minute=1530)) == ("EARLY", 170, 0, 40)
    second = night("22:00", "+01:30", autumn, end_minute=1530, fold=1)
    assert told(second) == ("NORMAL", 210, 0, 0)
    assert second.went_time == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    assert told(night("22:00", "+01:30", autumn, end_minute=1560)) == ("EARLY", 210, 0, 90)
    assert told(night("22:00", "+01:30", autumn, end_minute=1560, fold=1)) == ("EARLY", 270, 0, 30)


def test_a_time_that_does_not_occur_is_when_the_clock_is_put_forward() -> None:
    """From 02:30 on 8 March: 03:00 by the new clock. Come at 03:00 she is not late, at 03:10 by 10."""
    early = shift("early", 150, 600)
    for came, late in (("03:00", 0), ("03:10", 10)):
        times = (at(text, zone=NEW_YORK, day=date(2026, 3, 8)) for text in (came, "10:00"))
        punches = [Punch(PunchKey("door", "journal", number), one) for number, one in enumerate(times)]
        result = judged(early, punches, zone=NEW_YORK, day=date(2026, 3, 8))
        assert (result.minutes.scheduled, result.minutes.late) == (420, late)


# ---- shifts and months -------------------------------------------------------------------------------


def test_a_version_that_changes_within_the_month_holds_from_its_date() -> None:
    """Till 18:00 until Friday the 13th, till 17:00 from Monday the 16th on; nothing at the weekend."""
    old = replace(DAY, weekdays=attendance_shift.WORKDAYS)
    new = replace(old, version=2, effective_from_date=date(2026, 11, 16), end_minute=1020)
    assigned = [Assignment("day", WorkCalendar(SHANGHAI), date(2026, 11, 1))]
    found = occurrences([new, old], assigned, date(2026, 11, 12), date(2026, 11, 17))
    assert [(one.work_date.day, one.shift.version) for one in found] == [(12, 1), (13, 1), (16, 2), (17, 2)]
    assert in_force([new, old], "day", date(2019, 12, 31)) is None
    assert in_force([new, old], "other", FRIDAY) is None


def test_the_calendar_exchanges_days_and_assignments_end() -> None:
    """Sunday 8 November is worked as a Friday; on Friday the 13th she works by another site's calendar."""
    days = replace(DAY, weekdays=frozenset({4}))
    exchanged = WorkCalendar(SHANGHAI, exchanged={date(2026, 11, 8): 4, date(2026, 11, 6): 6})
    away = WorkCalendar(NEW_YORK, holidays=frozenset({FRIDAY}))
    assigned = [
        Assignment("day", away, FRIDAY),
        Assignment("day", exchanged, date(2026, 11, 1), date(2026, 11, 20)),
    ]
    found = occurrences([days], assigned, date(2026, 11, 1), date(2026, 11, 30))
    assert [(one.work_date.day, one.time_zone, one.holiday) for one in found] == [
        (8, SHANGHAI, False),
        (13, NEW_YORK, True),
        (20, NEW_YORK, False),
        (27, NEW_YORK, False),
    ]


def test_each_mistake_of_a_shift_by_its_field() -> None:
    wrong = replace(
        DAY,
        begin_minute=1440,
        end_minute=1440,
        breaks=(Break(700, 690),),
        grace_minutes=31,
        margin_minutes=1,
        weekdays=frozenset({7}),
    )
    assert [one.field for one in attendance_shift.problems(wrong)] == [
        "begin_minute",
        "end_minute",
        "breaks[0]",
        "grace_minutes",
        "margin_minutes",
        "weekdays",
    ]
    moving = replace(DAY, flexible_minutes=181)
    assert [one.field for one in attendance_shift.problems(moving)] == ["breaks[0]"]
    assert attendance_shift.problems(DAY) == []


def test_nobody_approves_a_correction_of_her_own() -> None:
    """Neither who proposed it nor whose attendance it is; and once only."""
    said = Correction("c1", Occurrence(DAY, FRIDAY, SHANGHAI).key, CorrectionKind.CAME, "dark", "wang")
    check_approvable(said, "ann", "li")
    for correction, approver, reason in (
        (said, "ann", "SAME_PERSON"),
        (said, "wang", "SAME_PERSON"),
        (replace(said, approved_by="li"), "zhao", "CORRECTION_DECIDED"),
        (replace(said, undone_time=at("09:00")), "li", "CORRECTION_DECIDED"),
    ):
        with pytest.raises(Refused) as refused:
            check_approvable(correction, "ann", approver)
        assert refused.value.reason == reason
    blank = replace(said, reason=" ", punch_key=PunchKey("door", "journal", 1))
    assert [one.field for one in attendance_punch.problems(blank)] == [
        "reason",
        "corrected_time",
        "punch_key",
    ]


def test_a_record_that_differs_from_the_one_of_its_key_is_refused() -> None:
    """Raw punches are never overwritten."""
    punches = punched("09:00", "18:00")
    with pytest.raises(ValueError, match="two different records"):
        judged(DAY, [*punches, replace(punches[0], punch_time=at("08:00"))])


def ten_days() -> MonthTotals:
    """November: a normal day, one late by 20, an absent one, a holiday worked; and the night to December."""
    days = [date(2026, 11, number) for number in (2, 3, 4, 5)]
    due = [Occurrence(DAY, day, SHANGHAI, holiday=day.day == 5) for day in days]
    due += [Occurrence(NIGHT, date(2026, 11, 30), SHANGHAI), Occurrence(DAY, date(2026, 12, 1), SHANGHAI)]
    times = [
        *(at("09:00", day=days[0]), at("18:00", day=days[0]), at("09:20", day=days[1])),
        *(at("18:00", day=days[1]), at("09:00", day=days[3]), at("12:00", day=days[3])),
        *(at("22:00", day=date(2026, 11, 30)), at("06:00", day=date(2026, 12, 1))),
    ]
    punches = [Punch(PunchKey("door", "journal", number), one) for number, one in enumerate(times)]
    return month_totals(evaluate(due, punches).results, date(2026, 11, 1))


def test_a_month_is_what_its_shifts_come_to() -> None:
    """480 + 460 + 480 of the night worked, 20 late, 480 absent: 1,920 scheduled; and 180 on the holiday."""
    totals = ten_days()
    assert totals.minutes == Minutes(scheduled=1920, worked=1420, late=20, absent=480, holiday=180)
    assert {status.value: count for status, count in totals.occurrences.items() if count} == {
        "NORMAL": 3,
        "LATE": 1,
        "ABSENT": 1,
    }
    assert (totals.days_worked, totals.flagged, totals.corrected) == (4, 0, 0)


async def test_the_month_report_is_a_table_that_adds_up() -> None:
    """A row for each person; a name is text and no formula."""

    async def rows() -> AsyncIterator[PersonMonth]:
        for number in range(1500):
            yield PersonMonth(f"guide-{number}", "=王芳", "南京东路店", ten_days_once)

    ten_days_once = ten_days()
    pieces = [piece async for piece in month_csv(rows())]
    assert len(pieces) > 1
    found = list(csv.DictReader(io.StringIO(b"".join(pieces).decode("utf-8-sig"), newline="")))
    assert len(found) == 1500
    assert tuple(found[0]) == MONTH_COLUMNS
    assert (found[7]["month"], found[7]["person_id"], found[7]["person_name"]) == (
        "2026-11",
        "guide-7",
        "'=王芳",
    )
    parts = ("worked", "late", "early", "absent", "leave", "unproven")
    assert (
        sum(int(found[0][f"{part}_minutes"]) for part in parts) == int(found[0]["scheduled_minutes"]) == 1920
    )
    assert (found[0]["holiday_minutes"], found[0]["late"], found[0]["late_minutes"]) == ("180", "1", "20")


# ---- planted faults ----------------------------------------------------------------------------------

hours = Occurrence.hours
visit = attendance_visit.visit
outcome = attendance_minutes.outcome


def _debounced_when_written(records: Iterable[Any], key_of: Callable[[Any], object]) -> list[Any]:
    """What comes within five minutes after another is not kept."""
    kept: list[Any] = []
    for one in sorted({key_of(one): one for one in records}.values(), key=lambda one: repr(key_of(one))):
        near = isinstance(one, Punch) and any(
            timedelta(0) < one.punch_time - each.punch_time < timedelta(minutes=5) for each in kept
        )
        kept += [] if near else [one]
    return kept


def _every_copy(records: Iterable[Any], key_of: Callable[[Any], object]) -> list[Any]:
    return list(records)


def _as_the_clock_went(day: date, minute: int, zone: ZoneInfo) -> datetime:
    return (datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minute)).astimezone(UTC)


def _the_second_time(day: date, minute: int, zone: ZoneInfo) -> datetime:
    wall = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minute)
    second = wall.replace(fold=1).astimezone(UTC)
    return max(second, moment(day, minute, zone))


def _hours_of_the_wall(self: Occurrence, later_minutes: int = 0) -> tuple[Span, ...]:
    begin = minute_of(self.begin_time) + later_minutes
    found: tuple[Span, ...] = (Span(begin, begin + self.shift.end_minute - self.shift.begin_minute),)
    for one in self.shift.breaks:
        rest = begin - later_minutes - self.shift.begin_minute
        found = without(found, Span(rest + one.begin_minute, rest + one.end_minute))
    return found


def _without_breaks(self: Occurrence, later_minutes: int = 0) -> tuple[Span, ...]:
    return hours(replace(self, shift=replace(self.shift, breaks=())), later_minutes)


def _always_in_force(self: Correction) -> bool:
    return self.undone_time is None


def _against_the_worker(*given_marks: Any) -> Visit:
    found = visit(*given_marks)
    came, went = found.came, found.went
    return found._replace(
        came=came and came._replace(decided=came.doubted, doubted=came.decided),
        went=went and went._replace(decided=went.doubted, doubted=went.decided),
    )


def _missing_is_absent(*facts: Any) -> attendance_minutes.Outcome:
    found = outcome(*facts)
    if found.status is not AttendanceStatus.MISSING_PUNCH:
        return found
    return attendance_minutes.Outcome(AttendanceStatus.ABSENT, found.minutes)


def _the_highest(versions: Iterable[ShiftVersion], shift_id: str, day: date) -> ShiftVersion | None:
    return max(
        (one for one in versions if one.shift_id == shift_id), key=lambda one: one.version, default=None
    )


FAULTS: dict[str, tuple[object, str, object]] = {
    "debounced when written": (attendance, "once", _debounced_when_written),
    "a repeated punch counts twice": (attendance, "once", _every_copy),
    "a time left out is as the clock went before": (attendance_shift, "moment", _as_the_clock_went),
    "of a time shown twice the second": (attendance_shift, "moment", _the_second_time),
    "minutes of the wall clock": (Occurrence, "hours", _hours_of_the_wall),
    "breaks are work": (Occurrence, "hours", _without_breaks),
    "not approved, and yet in force": (Correction, "in_force", property(_always_in_force)),
    "clocks off against the worker": (attendance, "visit", _against_the_worker),
    "a missing punch is absence": (attendance, "outcome", _missing_is_absent),
    "the newest version for all dates": (attendance_shift, "in_force", _the_highest),
    "grace is taken off": (attendance_minutes, "_beyond", lambda grace, minutes: max(0, minutes - grace)),
    "leave is forgotten": (attendance_minutes, "_due", lambda hours, leave: hours),
    "hours do not follow": (attendance_minutes, "_hours", lambda one, leave, came: one.hours()),
    "every punch of the earlier shift": (attendance, "_homes", lambda keys, punch: keys[:1]),
    "every punch of both shifts": (attendance, "_homes", lambda keys, punch: keys),
    "goings are cut to the minute": (attendance, "minute_after", minute_of),
    "a single punch is a coming": (attendance_visit, "_is_coming", lambda *marks: True),
    "gone though inside": (attendance_visit, "_was_there_again", lambda *marks: False),
    "first come though gone before": (attendance_visit, "_was_there_before", lambda *marks: False),
    "window a minute short": (attendance_shift, "MINUTE", timedelta(seconds=59)),
}


@pytest.fixture(scope="module")
def fixed_weeks() -> list[tuple[Week, bool]]:
    """The same on every run. The second says whether they are simple."""
    found: list[tuple[Week, bool]] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=120,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(weeks(simple=True), weeks())
    def collect(simple: Week, any_week: Week) -> None:
        found.extend([(simple, True), (any_week, False)])

    collect()
    return found


def broken_law(found: list[tuple[Week, bool]]) -> str | None:
    """The first law for which there is a counterexample."""
    for made, simple in found:
        week = replace(made)  # its shifts are found anew
        for law in (attendance_laws.minute_by_minute_it_is_the_same,) if simple else attendance_laws.LAWS:
            try:
                law(week)
            except AssertionError:
                return law.__name__
    return None


def test_no_law_is_broken_without_a_fault(fixed_weeks: list[tuple[Week, bool]]) -> None:
    assert broken_law(fixed_weeks) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, fixed_weeks: list[tuple[Week, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert broken_law(fixed_weeks) is not None, f"nobody notices: {fault}"
