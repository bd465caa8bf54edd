"""Some days of somebody's attendance, made up: shifts, punches, leave, corrections; clock changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from svc_vision.rules.attendance import Attendance, evaluate
from svc_vision.rules.attendance_minutes import Leave
from svc_vision.rules.attendance_punch import (
    Correction,
    CorrectionKind,
    Punch,
    PunchDirection,
    PunchKey,
    PunchMethod,
)
from svc_vision.rules.attendance_shift import (
    Assignment,
    Break,
    Occurrence,
    ShiftVersion,
    WorkCalendar,
    occurrences,
    problems,
)

EVERY_DAY: Final = frozenset(range(7))
BEGIN: Final = date(2020, 1, 1)

# Where clocks change within the three days that begin on the date, and where they never do.
PLACES: Final = (
    ("Asia/Shanghai", date(2026, 11, 29)),
    ("Asia/Kathmandu", date(2026, 11, 29)),
    ("America/New_York", date(2026, 3, 7)),
    ("America/New_York", date(2026, 10, 31)),
    ("Australia/Lord_Howe", date(2026, 4, 4)),
    ("Australia/Lord_Howe", date(2026, 10, 3)),
)
FIXED: Final = ("Asia/Shanghai", "Asia/Kathmandu", "Etc/GMT+5", "Etc/GMT-14")


def shift(shift_id: str, begin: int, end: int, *breaks: tuple[int, int], **more: int) -> ShiftVersion:
    """A shift of every day; hours and breaks in minutes from midnight."""
    rests = tuple(Break(*one) for one in breaks)
    return ShiftVersion(shift_id, 1, BEGIN, begin, end, rests, EVERY_DAY, **more)


ROTAS: Final[tuple[tuple[ShiftVersion, ...], ...]] = (
    (shift("day", 540, 1080, (720, 780), grace_minutes=5),),
    (shift("day", 540, 1080, (720, 780), flexible_minutes=60, early_grace_minutes=3),),
    (shift("morning", 540, 720), shift("evening", 780, 1080, margin_minutes=30)),
    (shift("first", 540, 780, seriously_late_minutes=10), shift("second", 780, 1080, grace_minutes=2)),
    (shift("night", 1320, 1800, (1530, 1590)),),
    (shift("round", 480, 1920, (720, 750), (1080, 1110), margin_minutes=120),),
    (shift("small hours", 90, 150),),
    (shift("after two", 150, 480, flexible_minutes=20),),
)


@dataclass(frozen=True)
class Week:
    """All that a person's attendance follows from. `extra`: punches that might come to be known later."""

    zone: str
    first: date
    versions: tuple[ShiftVersion, ...]
    holidays: frozenset[date] = frozenset()
    punches: tuple[Punch, ...] = ()
    leaves: tuple[Leave, ...] = ()
    corrections: tuple[Correction, ...] = ()
    extra: tuple[Punch, ...] = ()
    occurrences: tuple[Occurrence, ...] = field(init=False)

    def __post_init__(self) -> None:
        calendar = WorkCalendar(ZoneInfo(self.zone), self.holidays)
        assigned = [
            Assignment(shift_id, calendar, BEGIN) for shift_id in {one.shift_id for one in self.versions}
        ]
        found = occurrences(self.versions, assigned, self.first, self.first + timedelta(days=2))
        object.__setattr__(self, "occurrences", tuple(found))

    def attendance(self, *more: Punch) -> Attendance:
        """What it comes to, with some punches more."""
        return evaluate(self.occurrences, [*self.punches, *more], self.leaves, self.corrections)

    def of(self, punches: Sequence[Punch]) -> Week:
        """The same, had these been the punches."""
        return replace_week(self, punches=tuple(punches))


def replace_week(week: Week, **changes: object) -> Week:
    """The week with something else about it."""
    return replace(week, **changes)  # type: ignore[arg-type]


def moments_of(week: Week) -> list[datetime]:
    """Around what people punch: begins, ends, breaks and the ends of windows."""
    found = []
    for one in week.occurrences:
        half = (one.end_time - one.begin_time) / 2
        found += [*[one.begin_time, one.end_time] * 3, *one.window, one.begin_time + half]
    return sorted(found)


_APART_S: Final = (0, 0, 1, -1, 20, -40, 59, 61, -120, 240, 299, 301, -300, -600, 660, 900, -1800, 3000)
_WAYS: Final = (
    (PunchDirection.UNKNOWN,),
    (PunchDirection.IN, PunchDirection.OUT),
    (PunchDirection.UNKNOWN, *PunchDirection),
)
_UNCERTAIN_MS: Final = (0, 0, 0, 0, 20_000, 90_000, 600_000, 7_200_000)


@st.composite
def weeks(draw: st.DrawFn, *, simple: bool = False, places: Sequence[tuple[str, date]] = PLACES) -> Week:
    """Any such days. `simple`: punches without direction in even minutes, by clocks that are right."""
    zone, first = draw(st.sampled_from(places))
    versions = draw(st.sampled_from(ROTAS))
    if draw(st.booleans()):
        one = versions[0]
        changed = replace(
            one, version=2, effective_from_date=first + timedelta(days=1), begin_minute=one.begin_minute + 10
        )
        versions = (*versions, changed)
    assert not [problem for one in versions for problem in problems(one)]
    holidays = frozenset(
        draw(st.sets(st.sampled_from([first + timedelta(days=n) for n in range(3)]), max_size=1))
    )
    week = Week(zone, first, versions, holidays)
    around, ways = moments_of(week), draw(st.sampled_from(_WAYS))

    def near(time: datetime) -> datetime:
        time += timedelta(seconds=draw(st.sampled_from(_APART_S)))
        return time.replace(minute=time.minute // 2 * 2) if simple else time

    def moment() -> datetime:
        return near(draw(st.sampled_from(around)))

    def punch(sequence: int) -> Punch:
        key = PunchKey("door", "journal", sequence)
        if simple:
            return Punch(key, moment())
        way, method = draw(st.sampled_from(ways)), draw(st.sampled_from(PunchMethod))
        return Punch(key, moment(), way, method, draw(st.sampled_from(_UNCERTAIN_MS)))

    def leave(number: int) -> Leave:
        begin, end = sorted((moment().replace(second=0), moment().replace(second=0)))
        return Leave(f"leave {number}", begin, min(end, begin + timedelta(hours=30)))

    count = draw(st.sampled_from([0, 0, 1, 2, 4, 8]))
    usual = [
        time for one in week.occurrences for time in (one.begin_time, one.end_time) if draw(st.booleans())
    ]
    punches = (
        *(punch(number) for number in range(count)),
        *(replace(punch(number), punch_time=near(time)) for number, time in enumerate(usual, start=50)),
    )
    leaves = tuple(leave(number) for number in range(draw(st.sampled_from([0, 0, 1, 2]))))
    extra = tuple(punch(100 + number) for number in range(2))
    week = replace_week(week, punches=punches, leaves=leaves, extra=extra)
    if simple:
        return week
    corrections = tuple(
        draw(corrections_of(week, f"correction {number}"))
        for number in range(draw(st.sampled_from([0, 0, 1, 3])))
    )
    return replace_week(week, corrections=corrections)


@st.composite
def corrections_of(draw: st.DrawFn, week: Week, correction_id: str) -> Correction:
    """A correction of one of the week's shifts, approved or not, undone or not."""
    kind = draw(st.sampled_from(CorrectionKind)) if week.punches else CorrectionKind.CAME
    stands = Correction(
        correction_id,
        draw(st.sampled_from(week.occurrences)).key,
        kind,
        "the terminal was dark",
        "wang",
        draw(st.sampled_from(["", "li", "li", "li"])),
        draw(st.sampled_from([None, None, None, datetime(2027, 1, 1, tzinfo=UTC)])),
    )
    if kind is CorrectionKind.DISREGARD:
        return replace(stands, punch_key=draw(st.sampled_from(week.punches)).key)
    return replace(stands, corrected_time=draw(st.sampled_from(moments_of(week))))
