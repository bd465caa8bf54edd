"""Who may pass which door when: nobody unless something says that she may, and always with the reason."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_vision.rules import anti_passback, door_policy, schedule
from svc_vision.rules.anti_passback import OUTSIDE, AntiPassback, Whereabouts, ZonePassback
from svc_vision.rules.door_policy import (
    Answer,
    Camera,
    Circumstances,
    Decision,
    Door,
    Factor,
    FactorKind,
    Grant,
    Method,
    Person,
    Reason,
    Site,
)
from svc_vision.rules.schedule import ALL_DAY, ALWAYS, Calendar, Schedule, Window
from svc_vision.rules.track import Liveness

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
APIA = ZoneInfo("Pacific/Apia")
MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
"""Noon of a Tuesday in Shanghai."""
CALENDAR = Calendar(SHANGHAI)
STAFF = frozenset({"staff"})
ANN = Person("ann", STAFF)
SITE = Site(CALENDAR, (Grant("staff anywhere", STAFF, ALWAYS, zone_ids=frozenset({"shop"})),))
DOOR = Door("front", "shop", Camera.RGB_DEPTH)
OPENING = {Reason.ALLOWED, Reason.WAY_OUT, Reason.PASSBACK_REPORTED}


def shown(*kinds: FactorKind, who: str = "ann", liveness: Liveness = Liveness.LIVE) -> list[Factor]:
    """What somebody shows, her face live."""
    return [Factor(one, who, liveness if one is FactorKind.FACE else Liveness.UNKNOWN) for one in kinds]


FACE = shown(FactorKind.FACE)
CARD = shown(FactorKind.CARD)

# ---- schedules --------------------------------------------------------------------------------------

windows = st.builds(
    lambda begin, length: Window(begin, begin + length),
    st.sampled_from([0, 60, 90, 120, 540, 1320, 1439]),
    st.sampled_from([1, 30, 60, 480, 1440]),
)
schedules = st.builds(
    Schedule,
    st.dictionaries(st.integers(0, 6), st.lists(windows, max_size=2).map(tuple), max_size=7),
    st.lists(windows, max_size=1).map(tuple),
)
NIGHTS = [
    (SHANGHAI, datetime(2026, 3, 10, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 3, 7, 12, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 10, 31, 12, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 4, 4, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 10, 3, tzinfo=UTC)),
    (APIA, datetime(2011, 12, 29, 12, tzinfo=UTC)),
]
"""Beginnings of 48 hours: of an ordinary day, nights on which clocks change, and a day that was left out."""


def is_open(plan: Schedule, calendar: Calendar, now: datetime) -> bool:
    """By listing every minute that the clock on the wall shows during the week, and looking ours up."""
    wall = now.astimezone(calendar.time_zone).replace(tzinfo=None, second=0, microsecond=0)
    shut = set()
    for back in range(3):
        day = wall.date() - timedelta(days=back)
        listed = plan.holidays if day in calendar.holidays else plan.weekdays.get(day.weekday(), ())
        for window in listed:
            begin = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - what a wall clock shows
            shut |= {begin + minute * MINUTE for minute in range(window.begin_minute, window.end_minute)}
    return wall in shut


@given(schedules, st.sampled_from(NIGHTS), st.integers(0, 48 * 60), st.booleans(), st.integers(0, 59))
def test_a_schedule_is_what_the_clock_on_the_wall_shows(
    plan: Schedule, night: tuple[ZoneInfo, datetime], minute: int, holiday: bool, second: int
) -> None:
    """Through the hour that occurs twice, the one that is left out, and Samoa's missing 30 December."""
    zone, begins = night
    now = begins + minute * MINUTE + timedelta(seconds=second)
    days = frozenset({(begins + timedelta(hours=18)).astimezone(zone).date()}) if holiday else frozenset()
    calendar = Calendar(zone, days)
    assert schedule.problems(plan) == []
    assert schedule.is_within(plan, calendar, now) == is_open(plan, calendar, now)


def test_an_hour_that_occurs_twice_is_within_both_times() -> None:
    """New York, 1 November 2026: 01:30 at 05:30 UTC and again an hour later; the window ends at 02:00."""
    early = Schedule({6: (Window(60, 120),)})
    times = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (4, 5, 6, 7)]
    assert [schedule.is_within(early, Calendar(NEW_YORK), one) for one in times] == [
        False,
        True,
        True,
        False,
    ]


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday 22:00 to 06:00: open at 02:00 on Saturday, unless the Friday was a holiday."""
    nights = Schedule({4: (Window(1320, 1800),)})
    saturday_two = datetime(2026, 3, 13, 18, tzinfo=UTC)
    assert schedule.is_within(nights, CALENDAR, saturday_two)
    for day, open_then in ((date(2026, 3, 13), False), (date(2026, 3, 14), True)):
        holiday = Calendar(SHANGHAI, frozenset({day}))
        assert schedule.is_within(nights, holiday, saturday_two) is open_then


def test_windows_begin_within_the_day_and_last_a_day_at_most() -> None:
    plan = Schedule(
        {7: (ALL_DAY,), 0: (Window(-1, 5), Window(10, 10))}, (Window(1440, 1441), Window(0, 1441))
    )
    assert [one.field for one in schedule.problems(plan)] == [
        "weekdays[7]",
        "weekdays[0][0].begin_minute",
        "weekdays[0][1].end_minute",
        "holidays[0].begin_minute",
        "holidays[1].end_minute",
    ]
    assert schedule.problems(ALWAYS) == []


# ---- anti-passback ----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["shop", "vault", OUTSIDE]), st.integers(0, 5)), min_size=1), st.data()
)
def test_passages_may_become_known_in_any_order_and_twice(
    passages: list[tuple[str, int]], data: st.DataObject
) -> None:
    """A door that was offline tells of them hours later."""
    arriving = data.draw(st.permutations(passages)) + data.draw(st.lists(st.sampled_from(passages)))
    known = []
    for order in (passages, arriving):
        whereabouts = None
        for zone, minute in order:
            whereabouts = anti_passback.passed(
                whereabouts, to_zone_id=zone, passed_time=NOON + minute * MINUTE
            )
        known.append(whereabouts)
    assert known[0] == known[1]
    assert known[0] is not None
    assert known[0].passed_time == NOON + max(minute for _, minute in passages) * MINUTE


@pytest.mark.parametrize(
    ("mode", "reasons"),
    [
        (AntiPassback.OFF, [Reason.ALLOWED, Reason.ALLOWED]),
        (AntiPassback.SOFT, [Reason.PASSBACK_REPORTED, Reason.PASSBACK_REPORTED]),
        (AntiPassback.HARD, [Reason.PASSBACK, Reason.PASSBACK_REPORTED]),
    ],
)
def test_entering_twice_online_and_offline(mode: AntiPassback, reasons: list[Reason]) -> None:
    """Hard becomes soft where no other door can be asked."""
    site = replace(SITE, passback={"shop": ZonePassback(mode)})
    inside = Whereabouts("shop", NOON - MINUTE)
    for offline, reason in zip((False, True), reasons, strict=True):
        around = Circumstances(NOON, inside, offline)
        assert door_policy.decide(DOOR, site, ANN, FACE, around).reason is reason
    for elsewhere in (None, Whereabouts(OUTSIDE, NOON), Whereabouts("vault", NOON)):
        decision = door_policy.decide(DOOR, site, ANN, FACE, Circumstances(NOON, elsewhere))
        assert decision.reason is Reason.ALLOWED


@pytest.mark.parametrize(
    ("seconds_ago", "reason"),
    [
        (0, Reason.PASSBACK),
        (599, Reason.PASSBACK),
        (600, Reason.ALLOWED),
        (-599, Reason.PASSBACK),
        (-600, Reason.ALLOWED),
        (-86_400, Reason.ALLOWED),
    ],
)
def test_timed_passback_refuses_for_its_minutes_though_she_left(seconds_ago: int, reason: Reason) -> None:
    """And for no longer by a clock that is ahead."""
    site = replace(SITE, passback={"shop": ZonePassback(AntiPassback.TIMED, 10)})
    entered = NOON - timedelta(seconds=seconds_ago)
    left = anti_passback.passed(
        anti_passback.passed(None, to_zone_id="shop", passed_time=entered),
        to_zone_id=OUTSIDE,
        passed_time=entered,
    )
    assert door_policy.decide(DOOR, site, ANN, FACE, Circumstances(NOON, left)).reason is reason
    assert (
        door_policy.decide(DOOR, site, ANN, FACE, Circumstances(NOON, left, offline=True)).answer
        is Answer.OPEN
    )


def test_minutes_are_for_timed_passback_alone() -> None:
    for rule, wrong in (
        (ZonePassback(AntiPassback.HARD, 5), True),
        (ZonePassback(AntiPassback.TIMED), True),
        (ZonePassback(AntiPassback.TIMED, 1441), True),
        (ZonePassback(AntiPassback.TIMED, 1440), False),
        (ZonePassback(AntiPassback.SOFT), False),
    ):
        assert bool(door_policy.passback_problems(rule)) is wrong


# ---- methods ----------------------------------------------------------------------------------------


def test_a_door_with_an_rgb_camera_asks_for_a_second_factor() -> None:
    """The example of the rule. Face alone is somebody's choice, and on record."""
    plain = replace(DOOR, camera=Camera.RGB)
    around = Circumstances(NOON)
    alone = door_policy.decide(plain, SITE, ANN, FACE, around)
    assert (alone.answer, alone.reason) == (Answer.DENY, Reason.SECOND_FACTOR_NEEDED)
    for second in (FactorKind.CARD, FactorKind.PIN):
        both = door_policy.decide(plain, SITE, ANN, [*FACE, *shown(second)], around)
        assert (both.answer, both.reason, both.recognised) == (Answer.OPEN, Reason.ALLOWED, True)
    chosen = replace(plain, face_alone=True)
    assert door_policy.decide(chosen, SITE, ANN, FACE, around).method is Method.FACE


def test_asking_for_face_at_an_rgb_door_without_the_choice_is_a_mistake() -> None:
    """Configured, it would be ignored: better said at once. And every door takes something but faces."""
    both = frozenset({Method.FACE, Method.CARD})
    assert [one.field for one in door_policy.door_problems(Door("a", "shop", Camera.RGB, both))] == [
        "face_alone"
    ]
    assert door_policy.door_problems(Door("a", "shop", Camera.RGB, both, face_alone=True)) == []
    faces = Door("a", "shop", Camera.RGB_IR, frozenset({Method.FACE, Method.FACE_AND_PIN}))
    assert [one.field for one in door_policy.door_problems(faces)] == ["methods"]
    for camera in Camera:
        assert door_policy.door_problems(Door("a", "shop", camera)) == []


def test_offline_neither_pin_nor_code_is_taken() -> None:
    """One who shows a PIN hears that the service is needed; one with a face and a card comes in."""
    plain = replace(DOOR, camera=Camera.RGB)
    for factors, reason in (
        (shown(FactorKind.PIN), Reason.NEEDS_SERVICE),
        (shown(FactorKind.QR), Reason.NEEDS_SERVICE),
        (shown(FactorKind.FACE, FactorKind.PIN), Reason.NEEDS_SERVICE),
        (FACE, Reason.SECOND_FACTOR_NEEDED),
        (shown(FactorKind.FACE, FactorKind.CARD), Reason.ALLOWED),
        (CARD, Reason.ALLOWED),
    ):
        assert (
            door_policy.decide(plain, SITE, ANN, factors, Circumstances(NOON, offline=True)).reason is reason
        )
    pin_only = replace(DOOR, methods=frozenset({Method.FACE_AND_PIN, Method.PIN}))
    decision = door_policy.decide(pin_only, SITE, ANN, FACE, Circumstances(NOON, offline=True))
    assert decision.reason is Reason.NEEDS_SERVICE


@pytest.mark.parametrize(
    ("factors", "person", "reason"),
    [
        ([], ANN, Reason.NOTHING_SHOWN),
        ([*FACE, *shown(FactorKind.CARD, who="bea")], ANN, Reason.FACTORS_DISAGREE),
        (FACE, None, Reason.PERSON_UNKNOWN),
        (shown(FactorKind.FACE, who="bea"), ANN, Reason.PERSON_UNKNOWN),
        (shown(FactorKind.FACE, liveness=Liveness.UNKNOWN), ANN, Reason.LIVENESS_UNKNOWN),
        (shown(FactorKind.FACE, liveness=Liveness.SPOOF), ANN, Reason.NOT_LIVE),
    ],
)
def test_what_was_shown_must_be_hers(factors: list[Factor], person: Person | None, reason: Reason) -> None:
    """Her borrowed card and somebody else's face; a face that nobody saw to be live."""
    decision = door_policy.decide(DOOR, SITE, person, factors, Circumstances(NOON))
    assert (decision.answer, decision.reason, decision.recognised) == (Answer.DENY, reason, False)


# ---- times, lockdown, remote open -------------------------------------------------------------------


def test_a_visitor_comes_from_his_beginning_until_before_his_end() -> None:
    visitor = replace(ANN, begin_time=NOON, end_time=NOON + MINUTE)
    out = Door("exit", OUTSIDE, Camera.RGB_DEPTH)
    for now, reason in (
        (NOON - timedelta(milliseconds=1), Reason.NOT_BEGUN),
        (NOON, Reason.ALLOWED),
        (NOON + MINUTE, Reason.ENDED),
    ):
        decision = door_policy.decide(DOOR, SITE, visitor, CARD, Circumstances(now))
        assert (decision.reason, decision.recognised) == (reason, True)
        assert door_policy.decide(out, SITE, visitor, CARD, Circumstances(now)).reason is Reason.WAY_OUT


def test_a_denial_by_schedule_or_passback_is_still_a_punch() -> None:
    """She came to work: that the door stayed shut is another matter."""
    hours = Grant("mornings", STAFF, Schedule({1: (Window(540, 720),)}), frozenset({"front"}))
    early = door_policy.decide(DOOR, replace(SITE, grants=(hours,)), ANN, FACE, Circumstances(NOON))
    assert (early.answer, early.reason, early.recognised) == (Answer.DENY, Reason.OUTSIDE_SCHEDULE, True)
    before = Circumstances(NOON - MINUTE)
    assert door_policy.decide(DOOR, replace(SITE, grants=(hours,)), ANN, FACE, before).grant_id == "mornings"


def test_a_lockdown_closes_the_ways_in_and_no_way_out() -> None:
    out = Door("exit", OUTSIDE, Camera.RGB_DEPTH)
    vault = Door("vault", "vault", Camera.RGB_DEPTH)
    whole, part = replace(SITE, lockdown=True), replace(SITE, locked_zone_ids=frozenset({"vault"}))
    reasons = [
        door_policy.decide(door, site, ANN, FACE, Circumstances(NOON)).reason
        for site in (whole, part)
        for door in (DOOR, vault, out)
    ]
    assert reasons == [
        Reason.LOCKDOWN,
        Reason.LOCKDOWN,
        Reason.WAY_OUT,
        Reason.ALLOWED,
        Reason.LOCKDOWN,
        Reason.WAY_OUT,
    ]


@pytest.mark.parametrize(
    ("site", "reason", "connected", "refusal"),
    [
        (SITE, " ", True, "REMOTE_OPEN_REASON_MISSING"),
        (replace(SITE, lockdown=True), "courier", True, "DOOR_LOCKED_DOWN"),
        (SITE, "courier", False, "DOOR_OFFLINE"),
    ],
)
def test_a_door_is_opened_from_afar_for_a_reason_and_now(
    site: Site, reason: str, connected: bool, refusal: str
) -> None:
    with pytest.raises(Refused) as refused:
        door_policy.check_remote_open(DOOR, site, reason=reason, connected=connected)
    assert refused.value.reason == refusal
    door_policy.check_remote_open(DOOR, SITE, reason="courier", connected=True)


# ---- laws -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """Everything that a decision looks at."""

    door: Door
    site: Site
    person: Person | None
    shown: tuple[Factor, ...]
    around: Circumstances

    def decided(self) -> Decision:
        """What is decided."""
        return door_policy.decide(self.door, self.site, self.person, self.shown, self.around)


def _powerset(methods: type[Method]) -> list[frozenset[Method]]:
    return [frozenset(some) for many in range(1, 4) for some in combinations(methods, many)]


ZONES = ["shop", "shop", "vault", OUTSIDE]
NOWHERE, NOBODY = frozenset[str](), frozenset[str]()
GROUPS = [STAFF, STAFF, frozenset({"cleaners"}), STAFF | {"cleaners"}, NOBODY]
SOME_SCHEDULES = [ALWAYS, ALWAYS, Schedule({1: (Window(720, 721),)}), Schedule({})]
TIMES = [None, None, None, NOON - MINUTE, NOON, NOON + MINUTE]
SOME_METHODS = [None, None, *_powerset(Method)[::6]]


def some_grant(die: random.Random) -> Grant:
    """For some groups, doors and zones, or none."""
    door_ids = die.choice([frozenset({"front"}), NOWHERE])
    zone_ids = die.choice([frozenset({"shop"}), frozenset({"vault"}), NOWHERE])
    return Grant(die.choice(["g1", "g2"]), die.choice(GROUPS), die.choice(SOME_SCHEDULES), door_ids, zone_ids)


def some_factors(die: random.Random) -> tuple[Factor, ...]:
    """Mostly hers, and her face live."""
    kinds = [die.choice([*FactorKind]) for _ in range(die.choice([0, 1, 1, 2, 2, 3]))]
    if die.random() < 0.8:
        return tuple(shown(*kinds))
    lives = [Liveness.LIVE, Liveness.LIVE, Liveness.UNKNOWN, Liveness.SPOOF]
    return tuple(Factor(kind, die.choice(["ann", "ann", "bea"]), die.choice(lives)) for kind in kinds)


def some_passback(die: random.Random) -> ZonePassback:
    """Of any mode."""
    mode = die.choice([*AntiPassback])
    return ZonePassback(mode, 5 if mode is AntiPassback.TIMED else 0)


def situation(die: random.Random) -> Situation:
    """A door, a site, a person and what she shows: such that a good part of the doors open."""
    door = Door(
        die.choice(["front", "back"]),
        die.choice(ZONES),
        die.choice([*Camera]),
        die.choice(SOME_METHODS),
        die.random() < 0.5,
    )
    site = Site(
        CALENDAR,
        SITE.grants
        if die.random() < 0.5
        else tuple(some_grant(die) for _ in range(die.choice([0, 1, 2, 3]))),
        {zone: some_passback(die) for zone in ("shop", "vault", OUTSIDE)},
        die.random() < 0.15,
        frozenset({"shop"}) if die.random() < 0.25 else NOWHERE,
    )
    stranger = Person("ann", die.choice(GROUPS), die.choice(TIMES), die.choice(TIMES))
    entered = {zone: NOON - die.choice([4, 5]) * MINUTE for zone in ZONES if die.random() < 0.5}
    seen = die.choice([None, Whereabouts(die.choice(ZONES), NOON, entered)])
    around = Circumstances(NOON, seen, die.random() < 0.4)
    return Situation(door, site, die.choice([ANN, ANN, stranger, stranger, None]), some_factors(die), around)


situations = st.randoms(use_true_random=False).map(situation)


def nothing_opens_unless_everything_speaks_for_it(given_: Situation) -> None:
    """Each condition by itself, in the words of the rule; and what meets them all opens."""
    door, site, person, around = given_.door, given_.site, given_.person, given_.around
    decision = given_.decided()
    assert (decision.answer is Answer.OPEN) == (decision.reason in OPENING)
    kinds = {one.kind.value for one in given_.shown}
    if around.offline:
        kinds -= {"PIN", "QR"}
    methods = set(Method if door.methods is None else door.methods)
    if door.camera is Camera.RGB and not door.face_alone:
        methods.discard(Method.FACE)
    known = (
        person is not None
        and bool(given_.shown)
        and all(one.person_id == person.person_id for one in given_.shown)
        and all(one.liveness is Liveness.LIVE for one in given_.shown if one.kind is FactorKind.FACE)
        and any(set(method.value.split("_AND_")) <= kinds for method in methods)
    )
    assert decision.recognised is known
    way_out = door.to_zone_id == OUTSIDE
    invited = person is not None and any(
        grant.group_ids & person.group_ids
        and (door.door_id in grant.door_ids or door.to_zone_id in grant.zone_ids)
        and is_open(grant.schedule, site.calendar, around.time)
        for grant in site.grants
    )
    there = person is not None and ((person.begin_time or NOON) <= NOON < (person.end_time or NOON + MINUTE))
    locked = site.lockdown or door.to_zone_id in site.locked_zone_ids
    mode = site.passback.get(door.to_zone_id, ZonePassback()).mode
    seen = around.whereabouts
    twice = seen is not None and (
        (mode is AntiPassback.HARD and seen.zone_id == door.to_zone_id)
        or (
            mode is AntiPassback.TIMED
            and NOON - seen.entered.get(door.to_zone_id, NOON - 9 * MINUTE) < 5 * MINUTE
        )
    )
    may = known and (way_out or (invited and there and not locked and (around.offline or not twice)))
    assert (decision.answer is Answer.OPEN) == may


def less_never_opens_more(given_: Situation) -> None:
    """Whoever is denied is denied with a grant, a group or a card less, or in a lockdown."""
    if given_.decided().answer is Answer.OPEN or given_.person is None:
        return
    fewer_grants = replace(given_, site=replace(given_.site, grants=given_.site.grants[1:]))
    no_groups = replace(given_, person=replace(given_.person, group_ids=frozenset()))
    locked = replace(given_, site=replace(given_.site, lockdown=True))
    for less in (fewer_grants, no_groups, locked):
        assert less.decided().answer is Answer.DENY


def nobody_opens_by_a_face_that_is_not_live(given_: Situation) -> None:
    """Not even with a good card in the other hand."""
    if not any(one.kind is FactorKind.FACE for one in given_.shown):
        return
    for liveness in (Liveness.UNKNOWN, Liveness.SPOOF):
        flat = tuple(replace(one, liveness=liveness) for one in given_.shown)
        assert replace(given_, shown=flat).decided().answer is Answer.DENY


def an_rgb_camera_alone_opens_by_choice_only(given_: Situation) -> None:
    """Whatever methods are configured."""
    if given_.door.camera is Camera.RGB and given_.decided().answer is Answer.OPEN:
        assert given_.door.face_alone or any(one.kind is not FactorKind.FACE for one in given_.shown)


LAWS: list[Callable[[Situation], None]] = [
    nothing_opens_unless_everything_speaks_for_it,
    less_never_opens_more,
    nobody_opens_by_a_face_that_is_not_live,
    an_rgb_camera_alone_opens_by_choice_only,
]


@given(situations)
@settings(max_examples=200)
def test_every_law_holds_in_every_situation(given_: Situation) -> None:
    for law in LAWS:
        law(given_)


# ---- planted faults ---------------------------------------------------------------------------------

decide, judged = door_policy.decide, anti_passback.judged
covers, locked_door, accepted = Grant.covers, Site.locked, Door.accepted


def _any_factor_names_her(
    door: Door, site: Site, person: Person | None, shown_: Sequence[Factor], around: Circumstances
) -> Decision:
    return decide(
        door, site, person, [one for one in shown_ if person and one.person_id == person.person_id], around
    )


def _unknown_passes(
    door: Door, site: Site, person: Person | None, shown_: Sequence[Factor], around: Circumstances
) -> Decision:
    live = [
        replace(one, liveness=Liveness.LIVE) if one.liveness is Liveness.UNKNOWN else one for one in shown_
    ]
    return decide(door, site, person, live, around)


def _end_inclusive(
    door: Door, site: Site, person: Person | None, shown_: Sequence[Factor], around: Circumstances
) -> Decision:
    if person is not None and person.end_time is not None:
        person = replace(person, end_time=person.end_time + timedelta(milliseconds=1))
    return decide(door, site, person, shown_, around)


def _visitors_never_end(
    door: Door, site: Site, person: Person | None, shown_: Sequence[Factor], around: Circumstances
) -> Decision:
    return decide(door, site, person and replace(person, end_time=None), shown_, around)


def _offline_as_online(
    door: Door, site: Site, person: Person | None, shown_: Sequence[Factor], around: Circumstances
) -> Decision:
    return decide(door, site, person, shown_, replace(around, offline=False))


def _grant_for_everybody(self: Grant, person: Person, door: Door) -> bool:
    return covers(dataclasses.replace(self, group_ids=person.group_ids or STAFF), person, door) or (
        not self.group_ids and covers(replace(self, group_ids=STAFF), replace(person, group_ids=STAFF), door)
    )


def _empty_doors_are_all(self: Grant, person: Person, door: Door) -> bool:
    everywhere = not self.door_ids and not self.zone_ids and bool(self.group_ids & person.group_ids)
    return everywhere or covers(self, person, door)


def _way_out_locked(self: Site, door: Door) -> bool:
    return self.lockdown or locked_door(self, door)


def _zones_not_locked(self: Site, door: Door) -> bool:
    return locked_door(replace(self, locked_zone_ids=frozenset()), door)


def _face_as_configured(self: Door) -> frozenset[Method]:
    return self.methods if self.methods is not None else accepted(self)


def _rgb_like_any_other(self: Door) -> frozenset[Method]:
    return accepted(replace(self, camera=Camera.RGB_DEPTH))


def _inside_is_forgotten(rule: ZonePassback, **around: object) -> anti_passback.Passback:
    return judged(rule, **{**around, "whereabouts": None})  # type: ignore[arg-type]


FAULTS: dict[str, tuple[object, str, object]] = {
    "one factor of hers is enough": (door_policy, "decide", _any_factor_names_her),
    "unknown liveness passes": (door_policy, "decide", _unknown_passes),
    "a visit ends a little later": (door_policy, "decide", _end_inclusive),
    "visitors never end": (door_policy, "decide", _visitors_never_end),
    "offline is like online": (door_policy, "decide", _offline_as_online),
    "PINs are taken offline": (door_policy, "NEEDS_SERVICE", frozenset({FactorKind.QR})),
    "a grant is for everybody": (Grant, "covers", _grant_for_everybody),
    "a grant without doors is for all": (Grant, "covers", _empty_doors_are_all),
    "a lockdown closes the way out": (Site, "locked", _way_out_locked),
    "a zone's lockdown is ignored": (Site, "locked", _zones_not_locked),
    "face alone as configured": (Door, "accepted", _face_as_configured),
    "an RGB camera is as good as any": (Door, "accepted", _rgb_like_any_other),
    "passback is never seen": (door_policy, "judged", _inside_is_forgotten),
    "every hour is open": (door_policy, "is_within", lambda *_: True),
}


@pytest.fixture(scope="module")
def fixed_situations() -> list[Situation]:
    """The same on every run."""
    return [situation(random.Random(seed)) for seed in range(2000)]


def broken_law(all_situations: Sequence[Situation]) -> str | None:
    """The first law for which there is a counterexample."""
    for given_ in all_situations:
        for law in LAWS:
            try:
                law(given_)
            except AssertionError:
                return law.__name__
    return None


def test_no_law_is_broken_without_a_fault(fixed_situations: list[Situation]) -> None:
    assert broken_law(fixed_situations) is None
    seen = {one.decided().reason for one in fixed_situations}
    assert seen == set(Reason), "the situations do not reach every reason"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, fixed_situations: list[Situation], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert broken_law(fixed_situations) is not None, f"nobody notices: {fault}"
