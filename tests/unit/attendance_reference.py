"""Attendance once more, minute by minute: slow, by looking at the wall clock, for punches without direction.

Written from the specification and not from the rules, to compare the two. For clocks that are right, punches
in even minutes, so that two are one act or more than a minute apart, and no corrections.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from svc_vision.rules.attendance_minutes import AttendanceStatus, Minutes
from svc_vision.rules.attendance_punch import OccurrenceKey
from svc_vision.rules.attendance_shift import Occurrence, ShiftVersion
from tests.unit.attendance_weeks import Week

MINUTE = timedelta(minutes=1)
Story = tuple[AttendanceStatus, Minutes]


@cache
def first_shown(day: date, minute: int, zone: str) -> datetime:
    """The first minute at which the wall clock shows that much or more: looked up by watching it."""
    wanted = datetime(day.year, day.month, day.day) + minute * MINUTE  # noqa: DTZ001 (what a wall shows)
    now = wanted.replace(tzinfo=UTC) - timedelta(hours=15)
    while now.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < wanted:
        now += MINUTE
    return now


def story_of(week: Week) -> dict[OccurrenceKey, Story]:
    """What became of every minute of every shift."""
    return {one.key: _told(week, one) for one in week.occurrences}


def _told(week: Week, one: Occurrence) -> Story:
    shift = one.shift
    begin = first_shown(one.work_date, shift.begin_minute, week.zone)
    end = first_shown(one.work_date, shift.end_minute, week.zone)
    before, after = shift.window_before_minutes * MINUTE, shift.window_after_minutes * MINUTE
    marks = [each.punch_time for each in week.punches if begin - before <= each.punch_time <= end + after]
    came, went = _first_in_last_out(week, one, begin, end, marks)
    moved = timedelta(0)
    if came is not None and not _leave_at_either_end(week, begin, end, shift):
        moved = min(max(_minute(came) - begin, timedelta(0)), shift.flexible_minutes * MINUTE)
    fate: Counter[str] = Counter()
    now = begin + moved
    while now < end + moved:
        fate[_fate(week, one, now, came, went)] += 1
        now += MINUTE
    return _judged(one, fate, marks=bool(marks), known=came is not None and went is not None)


def _leave_at_either_end(week: Week, begin: datetime, end: datetime, shift: ShiftVersion) -> bool:
    flexible = shift.flexible_minutes * MINUTE
    return any(
        (one.begin_time < begin + flexible and one.end_time > begin)
        or (one.begin_time < end + flexible and one.end_time >= end)
        for one in week.leaves
        if one.begin_time < one.end_time
    )


def _fate(week: Week, one: Occurrence, now: datetime, came: datetime | None, went: datetime | None) -> str:
    """What becomes of a minute."""
    for each in one.shift.breaks:
        begins = first_shown(one.work_date, each.begin_minute, week.zone)
        if begins <= now < first_shown(one.work_date, each.end_minute, week.zone):
            return "break"
    if not one.holiday and any(each.begin_time <= now < each.end_time for each in week.leaves):
        return "leave"
    if came is not None and now < _minute(came):
        return "late"
    if went is not None and now >= went:
        return "early"
    return "there" if came is not None and went is not None else "unproven"


def _first_in_last_out(
    week: Week, one: Occurrence, begin: datetime, end: datetime, marks: list[datetime]
) -> tuple[datetime | None, datetime | None]:
    """The first mark is her coming and the last her going, unless there is but one, or none that can be."""
    hers = []
    now = begin
    while now < end:
        if _fate(week, one, now, None, None) == "unproven":
            hers.append(now)
        now += MINUTE
    if not hers:
        now = begin
        while now < end:
            if _fate(Week(week.zone, week.first, week.versions), one, now, None, None) == "unproven":
                hers.append(now)
            now += MINUTE
    starts, stops = (hers[0], hers[-1] + MINUTE) if hers else (begin, end)
    margin = min(one.shift.margin_minutes * MINUTE, (stops - starts) // MINUTE // 2 * MINUTE)
    comings = [mark for mark in marks if _minute(mark) < stops - margin or _minute(mark) <= starts + margin]
    goings = [mark for mark in marks if _minute(mark) > starts + margin]
    came, went = min(comings, default=None), max(goings, default=None)
    if came is not None and went is not None and went - came <= MINUTE:
        return (came, None) if _minute(came) - starts <= stops - _minute(came) else (None, went)
    return came, went


def _minute(time: datetime) -> datetime:
    """The minute in which she came counts as hers; so does the one in which she went."""
    return time.replace(second=0, microsecond=0)


def _judged(one: Occurrence, fate: Counter[str], *, marks: bool, known: bool) -> Story:
    if one.holiday:
        missing = marks and not known
        status = AttendanceStatus.MISSING_PUNCH if missing else AttendanceStatus.NORMAL
        return status, Minutes(holiday=fate["there"] if known else 0)
    del fate["break"]
    scheduled, leave = sum(fate.values()), fate["leave"]
    due = scheduled - leave
    if not due:
        return AttendanceStatus.NORMAL, Minutes(scheduled=scheduled, leave=leave)
    stayed = "there" if known else "unproven"
    for name, grace in (("late", one.shift.grace_minutes), ("early", one.shift.early_grace_minutes)):
        if fate[name] <= grace:
            fate[stayed] += fate.pop(name, 0)
    if not marks or (known and not fate["there"]):
        return AttendanceStatus.ABSENT, Minutes(scheduled=scheduled, leave=leave, absent=due)
    minutes = Minutes(
        scheduled, fate["there"], fate["late"], fate["early"], 0, leave, 0 if known else fate["unproven"]
    )
    if not known:
        return AttendanceStatus.MISSING_PUNCH, minutes
    if minutes.late:
        serious = minutes.late > one.shift.seriously_late_minutes
        return AttendanceStatus.SERIOUSLY_LATE if serious else AttendanceStatus.LATE, minutes
    return AttendanceStatus.EARLY if minutes.early else AttendanceStatus.NORMAL, minutes
