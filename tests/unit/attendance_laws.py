"""What must hold of everybody's attendance, each law as a function that takes some days and asserts.

Apart from the tests that run them, so that they can also be shown to catch planted faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from svc_vision.rules.attendance import Attendance, AttendanceFlag, Result, evaluate
from svc_vision.rules.attendance_minutes import AttendanceStatus, Leave, Minutes
from svc_vision.rules.attendance_month import month_totals
from svc_vision.rules.attendance_punch import Correction, CorrectionKind, OccurrenceKey, Punch, PunchDirection
from svc_vision.rules.attendance_shift import Occurrence
from tests.unit.attendance_reference import first_shown, story_of
from tests.unit.attendance_weeks import FIXED, Week, replace_week

LATER = datetime(2027, 1, 1, tzinfo=UTC)


def by_key(attendance: Attendance) -> dict[OccurrenceKey, Result]:
    """The results by what they are of."""
    return {one.occurrence: one for one in attendance.results}


def any_arrival_gives_the_same_attendance(
    week: Week,
    occurrences: Sequence[Occurrence],
    punches: Sequence[Punch],
    leaves: Sequence[Leave],
    corrections: Sequence[Correction],
) -> None:
    """Order and repeats of what becomes known change nothing."""
    assert evaluate(occurrences, punches, leaves, corrections) == week.attendance()


def backwards_and_twice_is_the_same(week: Week) -> None:
    """The plainest other order."""
    any_arrival_gives_the_same_attendance(
        week,
        [*week.occurrences[::-1], *week.occurrences],
        [*week.punches[::-1], *week.punches],
        [*week.leaves[::-1], *week.leaves],
        [*week.corrections[::-1], *week.corrections],
    )


def every_shift_has_one_result_and_every_punch_a_place(week: Week) -> None:
    """Nothing is dropped: a punch counts, is in no window, or was disregarded by a correction."""
    attendance = week.attendance()
    assert [one.occurrence for one in attendance.results] == [one.key for one in week.occurrences]
    counted = Counter(key for one in attendance.results for key in set(one.punches))
    disregarded = {one.punch_key for one in week.corrections if one.in_force}
    for punch in week.punches:
        assert punch.key in {*counted, *attendance.outside, *disregarded}
        assert not (counted[punch.key] and punch.key in attendance.outside)
        if punch.direction is not PunchDirection.UNKNOWN:
            assert counted[punch.key] <= 1, "one that tells its direction is of one shift"
    for one in attendance.results:
        shared = any(counted[key] > 1 for key in one.punches)
        assert shared == (AttendanceFlag.SHARED_PUNCH in one.flags)


def punches_count_in_their_window_only(week: Week) -> None:
    """As recorded, or where the clock's uncertainty reaches; what is in one for sure is never lost."""
    attendance = by_key(week.attendance())
    disregarded = {one.punch_key for one in week.corrections}
    for punch in week.punches:
        inside = {
            one.key
            for one in week.occurrences
            if one.begin_time - timedelta(minutes=30)
            <= punch.punch_time
            <= one.end_time + timedelta(minutes=60)
        }
        homes = {key for key, one in attendance.items() if punch.key in one.punches}
        if inside:
            assert homes <= inside
            assert homes or punch.key in disregarded
        if not punch.uncertainty_ms:
            assert inside or not homes
        if punch.direction is PunchDirection.UNKNOWN and punch.key not in disregarded:
            assert not inside or homes == inside


def minutes_partition(week: Week) -> None:
    """Every minute of a shift went somewhere, once; and the status says where."""
    for one in week.attendance().results:
        scheduled, worked, late, early, absent, leave, unproven, holiday = one.minutes
        assert min(one.minutes) >= 0
        assert scheduled == worked + late + early + absent + leave + unproven
        assert not holiday or (one.holiday and not scheduled)
        both = one.came_time is not None and one.went_time is not None
        seen = bool(one.punches) or one.came_time is not None or one.went_time is not None
        due = scheduled - leave
        if due:
            assert (one.status is AttendanceStatus.ABSENT) == (absent == due)
            assert seen or absent
            assert not absent or both or not seen, "whoever was seen once is not absent"
            assert (one.status is AttendanceStatus.MISSING_PUNCH) == (seen and not both)
        if one.status in (AttendanceStatus.LATE, AttendanceStatus.SERIOUSLY_LATE):
            assert late
            assert both
        if one.status is AttendanceStatus.EARLY:
            assert early
            assert not late
            assert both
        if one.status is AttendanceStatus.NORMAL:
            assert (late, early, absent, unproven) == (0, 0, 0, 0)


def months_hold_every_result_once(week: Week) -> None:
    """The totals of all months are those of all results."""
    results = week.attendance().results
    months = [
        month_totals(results, month)
        for month in {one.key.work_date.replace(day=1) for one in week.occurrences}
    ]
    assert sum(sum(one.occurrences.values()) for one in months) == len(results)
    for index in range(len(Minutes())):
        assert sum(one.minutes[index] for one in months) == sum(one.minutes[index] for one in results)


def an_earlier_coming_makes_nobody_later(week: Week) -> None:
    """A punch that becomes known, and lies before all others of a shift, is never held against her coming."""
    before = by_key(week.attendance())
    for punch in week.extra:
        if punch.direction is PunchDirection.OUT:
            continue
        for key, after in by_key(week.attendance(punch)).items():
            old = before[key]
            if old.came_time is not None and _outermost(week, old, punch, first=True):
                assert after.minutes.late <= old.minutes.late + old.minutes.absent
                assert after.came_time is None or after.came_time <= old.came_time
                if AttendanceStatus.MISSING_PUNCH not in (old.status, after.status):
                    assert _lost(after) <= _lost(old)


def a_later_going_makes_nobody_earlier(week: Week) -> None:
    """17:58 does not suppress 18:01, nor any going one before it.

    But where the going before it is now seen to have been her coming, flexible hours follow that.
    """
    before = by_key(week.attendance())
    flexible = {one.key for one in week.occurrences if one.shift.flexible_minutes}
    for punch in week.extra:
        if punch.direction is PunchDirection.IN:
            continue
        for key, after in by_key(week.attendance(punch)).items():
            old = before[key]
            follows = key in flexible and old.came_time is None
            if old.went_time is not None and not follows and _outermost(week, old, punch, first=False):
                assert after.minutes.early <= old.minutes.early + old.minutes.absent
                assert after.went_time is None or after.went_time >= old.went_time
                if AttendanceStatus.MISSING_PUNCH not in (old.status, after.status):
                    assert _lost(after) <= _lost(old)


def _outermost(week: Week, old: Result, punch: Punch, *, first: bool) -> bool:
    """Whether a punch lies before, or after, all that counts for an occurrence."""
    times = [one.punch_time for one in week.punches if one.key in old.punches]
    times += [
        one.corrected_time
        for one in week.corrections
        if one.correction_id in old.correction_ids and one.corrected_time is not None
    ]
    return all(punch.punch_time < time if first else punch.punch_time > time for time in times)


def _lost(one: Result) -> int:
    return one.minutes.late + one.minutes.early + one.minutes.absent


def an_uncertain_clock_costs_nobody_a_minute(week: Week) -> None:
    """Had every clock been known to be right, and the same punches counted, she would have worked no more.

    And where the status stands on their being off, it is flagged.
    """
    right = by_key(week.of([replace(one, uncertainty_ms=0) for one in week.punches]).attendance())
    for key, one in by_key(week.attendance()).items():
        if one.punches == right[key].punches:
            assert (one.came_time, one.went_time) == (right[key].came_time, right[key].went_time)
            assert one.minutes.worked >= right[key].minutes.worked
            assert one.minutes.holiday >= right[key].minutes.holiday
        else:
            assert AttendanceFlag.CLOCK_DOUBT in one.flags
        if one.status is not right[key].status and one.punches == right[key].punches:
            assert AttendanceFlag.CLOCK_DOUBT in one.flags


def corrections_stand_beside_and_can_be_undone(week: Week) -> None:
    """Undone or not approved they leave nothing; in force they take no punch away but those they name."""
    plain = replace_week(week, corrections=()).attendance()
    undone = [replace(one, undone_time=LATER) for one in week.corrections]
    proposed = [replace(one, approved_by="") for one in week.corrections]
    assert replace_week(week, corrections=tuple(undone)).attendance() == plain
    assert replace_week(week, corrections=tuple(proposed)).attendance() == plain
    corrected = week.attendance()
    assert corrected.outside == plain.outside
    in_force = [one for one in week.corrections if one.in_force]
    for one in corrected.results:
        assert one.correction_ids == tuple(
            sorted(each.correction_id for each in in_force if each.occurrence == one.occurrence)
        )
        away = set(by_key(plain)[one.occurrence].punches) - set(one.punches)
        assert away <= {each.punch_key for each in in_force if each.occurrence == one.occurrence}


def who_is_said_to_have_come_and_gone_did(week: Week) -> None:
    """Corrections that name begin and end of a shift leave nothing missing, late or early in it.

    Unless a door saw her go out after the one or in before the other, which is then disregarded.
    """
    for one in week.occurrences:
        said = [
            Correction(
                "a", one.key, CorrectionKind.CAME, "dark", "wang", "li", corrected_time=one.begin_time
            ),
            Correction("b", one.key, CorrectionKind.WENT, "dark", "wang", "li", corrected_time=one.end_time),
        ]
        away = [
            Correction(
                repr(each.key), one.key, CorrectionKind.DISREGARD, "dark", "wang", "li", punch_key=each.key
            )
            for each in week.punches
        ]
        if one.shift.flexible_minutes:
            continue
        for corrections in (said, [*said, *away]):
            found = by_key(evaluate(week.occurrences, week.punches, week.leaves, corrections))[one.key]
            assert found.status is AttendanceStatus.NORMAL
            assert found.minutes.worked == found.minutes.scheduled - found.minutes.leave


def zones_without_clock_changes_are_alike(week: Week) -> None:
    """The same by another wall's clock, with all moments moved by the difference of the two."""
    if week.zone not in FIXED:
        return
    attendance = week.attendance()
    for zone in FIXED:
        apart = _offset(week.zone) - _offset(zone)
        moved = replace_week(
            week,
            zone=zone,
            punches=tuple(replace(one, punch_time=one.punch_time + apart) for one in week.punches),
            leaves=tuple(
                replace(one, begin_time=one.begin_time + apart, end_time=one.end_time + apart)
                for one in week.leaves
            ),
            corrections=tuple(
                replace(one, corrected_time=one.corrected_time and one.corrected_time + apart)
                for one in week.corrections
            ),
        )
        there = moved.attendance()
        assert there.outside == attendance.outside
        assert [
            replace(
                one,
                came_time=one.came_time and one.came_time - apart,
                went_time=one.went_time and one.went_time - apart,
            )
            for one in there.results
        ] == list(attendance.results)


def _offset(zone: str) -> timedelta:
    offset = datetime(2026, 11, 29, tzinfo=ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset


def hours_are_those_of_the_wall_clock(week: Week) -> None:
    """A shift begins and ends when the clock on the wall first shows it, whatever happened to the clock."""
    for one in week.occurrences:
        assert one.begin_time == first_shown(one.work_date, one.shift.begin_minute, week.zone)
        assert one.end_time == first_shown(one.work_date, one.shift.end_minute, week.zone)
        begun = [each for each in week.versions if each.shift_id == one.shift.shift_id]
        begun = [each for each in begun if each.effective_from_date <= one.work_date]
        assert one.shift.version == max(each.version for each in begun)


def double_punches_change_nothing(week: Week) -> None:
    """Whoever holds her face up twice, a few seconds later, is judged as if once."""
    again = [
        replace(
            one,
            key=one.key._replace(sequence=one.key.sequence + 1000),
            punch_time=one.punch_time + timedelta(seconds=5),
        )
        for one in week.punches
    ]
    doubled = by_key(week.attendance(*again))
    for key, one in by_key(week.attendance()).items():
        own = {each.key for each in (*week.punches, *again) if each.key.sequence % 1000 in _sequences(one)}
        if set(doubled[key].punches) == own and _is_plain(week, one):
            assert doubled[key].status is one.status


def _sequences(one: Result) -> set[int]:
    return {key.sequence for key in one.punches}


def _is_plain(week: Week, one: Result) -> bool:
    """Whether five seconds decide nothing: one punch alone, by a clock that is right, in its minute."""
    own = [each for each in week.punches if each.key in one.punches]
    alone = len(own) == 1 and not one.correction_ids
    return alone and not own[0].uncertainty_ms and own[0].punch_time.second < 50


def who_is_inside_has_not_gone(week: Week) -> None:
    """Who went in again during her hours has not gone by the going before it, where doors tell.

    Nor did she first come by the coming after a going. Had all the punches been told, in and out by turns.
    """
    minute = timedelta(seconds=60)
    times = sorted({one.punch_time: one for one in week.punches}.items())
    for ways in ((PunchDirection.IN, PunchDirection.OUT), (PunchDirection.OUT, PunchDirection.IN)):
        by_turns = [
            replace(one, direction=ways[place % 2], uncertainty_ms=0) for place, (_, one) in enumerate(times)
        ]
        telling = replace_week(week, punches=tuple(by_turns), leaves=(), corrections=())
        for one, result in zip(week.occurrences, telling.attendance().results, strict=True):
            own = [each for each in by_turns if each.key in result.punches]
            if not own or any(
                after.punch_time - before.punch_time <= minute for before, after in pairwise(own)
            ):
                continue
            if own[-1].direction is PunchDirection.IN and own[-1].punch_time < one.end_time:
                assert result.went_time is None
            if own[0].direction is PunchDirection.OUT and own[0].punch_time >= one.begin_time + minute:
                assert result.came_time is None


def minute_by_minute_it_is_the_same(week: Week) -> None:
    """The rules and a slow look at every minute tell the same story. For simple weeks."""
    told = {one.occurrence: (one.status, one.minutes) for one in week.attendance().results}
    assert told == story_of(week)


LAWS = (
    backwards_and_twice_is_the_same,
    every_shift_has_one_result_and_every_punch_a_place,
    punches_count_in_their_window_only,
    minutes_partition,
    months_hold_every_result_once,
    an_earlier_coming_makes_nobody_later,
    a_later_going_makes_nobody_earlier,
    an_uncertain_clock_costs_nobody_a_minute,
    corrections_stand_beside_and_can_be_undone,
    who_is_said_to_have_come_and_gone_did,
    zones_without_clock_changes_are_alike,
    hours_are_those_of_the_wall_clock,
    double_punches_change_nothing,
    who_is_inside_has_not_gone,
)
"""Those of all weeks. Of simple ones `minute_by_minute_it_is_the_same` too."""
