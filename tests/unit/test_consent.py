"""Whose face may be looked for, what for, and where: against a diary of all that was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis.errors import DaogouError
from svc_vision.rules import consent as rules
from svc_vision.rules.consent import Consent, Enrolled, Place, Purpose, Use

MONDAY = datetime(2026, 3, 9, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ANN = Enrolled("ann")
DOOR_HERE = Consent("c1", Purpose.DOOR, Place.DEVICE, MONDAY)


def test_a_week_of_anns() -> None:
    """The example of the rule: a consent withdrawn on Tuesday, the rest ended on Friday."""
    ann = rules.granted(ANN, DOOR_HERE, MONDAY)
    ann = rules.granted(ann, Consent("c2", Purpose.ATTENDANCE, Place.DEVICE, MONDAY), MONDAY)
    ann = rules.withdrawn(ann, Purpose.ATTENDANCE, None, MONDAY + DAY)
    friday = MONDAY + 4 * DAY
    ann = rules.resigned(ann, friday)
    door, clock = (Purpose.DOOR, Place.DEVICE), (Purpose.ATTENDANCE, Place.DEVICE)
    assert rules.uses(ann, MONDAY) == {door, clock}
    assert rules.uses(ann, MONDAY + 2 * DAY) == {door}
    assert rules.uses(ann, friday) == set()
    assert (rules.keeps_templates(ann, friday - HOUR), rules.keeps_templates(ann, friday)) == (True, False)


def test_a_search_finds_whoever_agreed_to_the_purpose_and_the_place_in_one() -> None:
    """DOOR on the device and ATTENDANCE in the service are not DOOR in the service."""
    both = replace(
        ANN, consents=(DOOR_HERE, Consent("c2", Purpose.ATTENDANCE, Place.SERVICE, MONDAY)), person_id="bea"
    )
    people = [replace(ANN, consents=(DOOR_HERE,)), both, Enrolled("cat")]
    assert rules.searchable(people, Purpose.DOOR, Place.DEVICE, MONDAY) == ["ann", "bea"]
    assert rules.searchable(people, Purpose.DOOR, Place.SERVICE, MONDAY) == []
    assert rules.searchable(people, Purpose.ATTENDANCE, Place.SERVICE, MONDAY) == ["bea"]


def test_in_china_faces_stay_on_the_device() -> None:
    assert (rules.default_place("CN"), rules.default_place("SG")) == (Place.DEVICE, Place.SERVICE)


@pytest.mark.parametrize(
    ("person", "given_", "reason"),
    [
        (rules.erased(ANN), DOOR_HERE, "PERSON_ERASED"),
        (rules.resigned(ANN, MONDAY), DOOR_HERE, "PERSON_RESIGNED"),
        (ANN, replace(DOOR_HERE, grant_time=MONDAY + HOUR), "CONSENT_IN_FUTURE"),
        (replace(ANN, consents=(DOOR_HERE,)), replace(DOOR_HERE, place=Place.SERVICE), "CONSENT_ID_TAKEN"),
    ],
)
def test_consent_is_refused_for_a_reason(person: Enrolled, given_: Consent, reason: str) -> None:
    with pytest.raises(DaogouError) as refused:
        rules.granted(person, given_, MONDAY)
    assert refused.value.reason == reason


def test_a_consent_that_arrives_again_after_its_withdrawal_brings_nothing_back() -> None:
    ann = rules.withdrawn(rules.granted(ANN, DOOR_HERE, MONDAY), Purpose.DOOR, Place.DEVICE, MONDAY + HOUR)
    assert rules.granted(ann, DOOR_HERE, MONDAY + 2 * HOUR) == ann
    assert rules.uses(ann, MONDAY + 2 * HOUR) == set()


def test_a_consent_by_a_clock_that_is_ahead_can_be_withdrawn() -> None:
    """Granted at 09:05 by one clock, withdrawn at 09:00 by another: it never begins."""
    ahead = replace(ANN, consents=(replace(DOOR_HERE, grant_time=MONDAY + HOUR),))
    after = rules.withdrawn(ahead, Purpose.DOOR, None, MONDAY)
    assert all(rules.uses(after, MONDAY + hours * HOUR) == set() for hours in range(4))


def test_a_resignation_that_is_reported_again_after_her_return_is_over() -> None:
    """But a new one counts, and so does one that had been planned for later, should it be reported again."""
    ann = rules.returned(rules.resigned(ANN, MONDAY), MONDAY + DAY)
    assert rules.resigned(ann, MONDAY) == ann
    assert rules.resigned(ann, MONDAY + 2 * DAY).resign_time == MONDAY + 2 * DAY
    stays = rules.returned(rules.resigned(ANN, MONDAY + 9 * DAY), MONDAY)
    assert rules.resigned(stays, MONDAY + 5 * DAY).resign_time == MONDAY + 5 * DAY


def test_of_two_reports_of_one_resignation_the_earlier_counts() -> None:
    for first, second in ((MONDAY, MONDAY + DAY), (MONDAY + DAY, MONDAY)):
        assert rules.resigned(rules.resigned(ANN, first), second).resign_time == MONDAY


def test_nobody_who_was_erased_comes_back() -> None:
    gone = rules.erased(replace(ANN, consents=(DOOR_HERE,)))
    assert gone == Enrolled("ann", erased=True)
    with pytest.raises(DaogouError) as refused:
        rules.returned(gone, MONDAY)
    assert refused.value.reason == "PERSON_ERASED"


# ---- laws -------------------------------------------------------------------------------------------

Said = tuple[str, Purpose, Place | None]
"""What was said: GRANT, WITHDRAW, RESIGN, RETURN or ERASE, and of which use."""
diaries = st.lists(
    st.tuples(
        st.sampled_from(["GRANT", "GRANT", "GRANT", "GRANT", "WITHDRAW", "RESIGN", "RETURN", "ERASE"]),
        st.sampled_from(Purpose),
        st.sampled_from([*Place, None]),
    ),
    max_size=12,
)


def lived(diary: Sequence[Said]) -> list[Enrolled]:
    """What is known of her after each hour."""
    person, found = ANN, []
    for hour, (what, purpose, place) in enumerate(diary):
        now = MONDAY + hour * HOUR
        try:
            if what == "GRANT":
                new = Consent(f"c{hour}", purpose, place or rules.default_place("CN"), now)
                person = rules.granted(person, new, now)
            elif what == "WITHDRAW":
                person = rules.withdrawn(person, purpose, place, now)
            elif what == "RESIGN":
                person = rules.resigned(person, now)
            elif what == "RETURN":
                person = rules.returned(person, now)
            else:
                person = rules.erased(person)
        except DaogouError:
            pass
        found.append(person)
    return found


def uses_by_the_diary(diary: Sequence[Said]) -> set[Use]:
    """What she has agreed to, not taken back, and not left behind, by reading the diary."""
    agreed: set[Use] = set()
    there, erased = True, False
    for what, purpose, place in diary:
        if what == "GRANT" and there and not erased:
            agreed.add((purpose, place or Place.DEVICE))
        elif what == "WITHDRAW":
            agreed -= {(purpose, one) for one in ([place] if place else Place)}
        elif what in {"RESIGN", "ERASE"}:
            agreed, there, erased = set(), there and what == "ERASE", erased or what == "ERASE"
        elif what == "RETURN":
            there = True
    return agreed


def what_may_be_done_is_what_the_diary_says(diary: Sequence[Said]) -> None:
    """After every entry; and every use that is lost is reported as lost, so that doors hear of it."""
    before = ANN
    for hour, person in enumerate(lived(diary)):
        now = MONDAY + hour * HOUR
        expected = uses_by_the_diary(diary[: hour + 1])
        assert rules.uses(person, now) == expected
        assert rules.uses(person, now + 400 * DAY) == expected
        assert rules.lost(before, person, now) == uses_by_the_diary(diary[:hour]) - expected
        assert rules.keeps_templates(person, now) == bool(expected)
        for purpose in Purpose:
            for place in Place:
                assert bool(rules.searchable([person], purpose, place, now)) == ((purpose, place) in expected)
        before = person


def what_was_is_not_rewritten(diary: Sequence[Said]) -> None:
    """What could be done with her face at an hour is answered the same later, until she is erased."""
    people = lived(diary)
    if not people or people[-1].erased:
        return
    for hour, person in enumerate(people):
        now = MONDAY + hour * HOUR + HOUR / 2
        assert rules.uses(people[-1], now) == rules.uses(person, now)


LAWS = [what_may_be_done_is_what_the_diary_says, what_was_is_not_rewritten]


@given(diaries)
def test_every_law_holds_for_every_diary(diary: list[Said]) -> None:
    for law in LAWS:
        law(diary)


uses, withdrawn, resigned, returned = rules.uses, rules.withdrawn, rules.resigned, rules.returned


def _any_place(person: Enrolled, now: datetime) -> frozenset[Use]:
    return frozenset((purpose, place) for purpose, _ in uses(person, now) for place in Place)


def _any_purpose(person: Enrolled, now: datetime) -> frozenset[Use]:
    return frozenset((purpose, place) for _, place in uses(person, now) for purpose in Purpose)


def _leavers_too(person: Enrolled, now: datetime) -> frozenset[Use]:
    return uses(replace(person, resign_time=None), now)


def _here_is_everywhere(person: Enrolled, purpose: Purpose, place: Place | None, now: datetime) -> Enrolled:
    return withdrawn(person, purpose, None, now)


def _first_place_alone(person: Enrolled, purpose: Purpose, place: Place | None, now: datetime) -> Enrolled:
    return withdrawn(person, purpose, place or Place.DEVICE, now)


def _all_purposes(person: Enrolled, purpose: Purpose, place: Place | None, now: datetime) -> Enrolled:
    for one in Purpose:
        person = withdrawn(person, one, place, now)
    return person


def _deleted(person: Enrolled, purpose: Purpose, place: Place | None, now: datetime) -> Enrolled:
    left = [one for one in withdrawn(person, purpose, place, now).consents if one.holds(now)]
    return replace(person, consents=tuple(left))


def _as_she_left(person: Enrolled, now: datetime) -> Enrolled:
    return replace(returned(person, now), consents=person.consents)


def _last_report_counts(person: Enrolled, resign_time: datetime) -> Enrolled:
    return replace(person, resign_time=resign_time)


FAULTS: dict[str, tuple[str, object]] = {
    "any place": ("uses", _any_place),
    "any purpose": ("uses", _any_purpose),
    "leavers are found": ("uses", _leavers_too),
    "withdrawn here is withdrawn everywhere": ("withdrawn", _here_is_everywhere),
    "withdrawn everywhere is withdrawn here": ("withdrawn", _first_place_alone),
    "one purpose is all": ("withdrawn", _all_purposes),
    "what was agreed is deleted": ("withdrawn", _deleted),
    "old consents come back with her": ("returned", _as_she_left),
    "the last report of leaving counts": ("resigned", _last_report_counts),
    "nobody loses anything": ("lost", lambda before, after, now: frozenset()),
}


@pytest.fixture(scope="module")
def fixed_diaries() -> list[list[Said]]:
    """The same on every run."""
    found: list[list[Said]] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=400,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(diaries)
    def collect(diary: list[Said]) -> None:
        found.append(diary)

    collect()
    return found


def broken_law(all_diaries: Sequence[Sequence[Said]]) -> str | None:
    """The first law for which there is a counterexample."""
    for diary in all_diaries:
        for law in LAWS:
            try:
                law(diary)
            except AssertionError:
                return law.__name__
    return None


def test_no_law_is_broken_without_a_fault(fixed_diaries: list[list[Said]]) -> None:
    assert broken_law(fixed_diaries) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, fixed_diaries: list[list[Said]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, wrong = FAULTS[fault]
    monkeypatch.setattr(rules, name, wrong)
    assert broken_law(fixed_diaries) is not None, f"nobody notices: {fault}"
