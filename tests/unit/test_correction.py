"""What a correction says of a member's past, and what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_members.rules import binding, bitemporal
from svc_members.rules.binding import Cause, Decision, Outcome, Policy, Row, Scan, Snatch
from svc_members.rules.correction import Correction, correct
from tests.unit.member_lives import STORES
from tests.unit.member_rows import NOON, Recorder, Written, believed

DAY: Final = timedelta(days=1)
ALWAYS: Final = Policy(snatch=Snatch.ALWAYS)
DAYS: Final = 30


def day(number: float) -> datetime:
    """Some days after noon."""
    return NOON + number * DAY


def member(*scans: tuple[str, float]) -> Written:
    """A member who scanned guides' codes, each on a day; `-`: his binding lapsed."""
    written = Written(Recorder())
    for number, (guide, when) in enumerate(scans):
        if guide == "-":
            written.write(binding.end(written.rows, day(when), Cause.LAPSED, f"m.{number}"))
        else:
            scan = Scan(guide, STORES[guide], "spring", day(when), False)
            written.write(binding.scan(written.rows, scan, ALWAYS, f"m.{number}"))
    return written


def was(guide: str, begin: float, end: float | None = None, *, store: str = "") -> Correction:
    """He was a guide's from a day to another; without her, a store's or nobody's."""
    ends = day(end) if end is not None else None
    return Correction(guide, store or STORES.get(guide, ""), day(begin), ends, "the code was mixed up")


def corrected(written: Written, correction: Correction, next_id: str = "c") -> Decision:
    """The member once a correction is believed."""
    decision = correct(written.rows, correction, Policy(), next_id)
    written.write(decision)
    return decision


def whose(written: Written, when: float, known_at: datetime | None = None) -> str:
    """Whose he was on a day; `-`: nobody's; a pool is told by its store."""
    found = bitemporal.found(written.rows, day(when), known_at)
    return found.guide_id or found.store_id if found else "-"


def test_the_middle_of_a_row_becomes_another_guides() -> None:
    """And what is left on either side stays whose it was."""
    written = member(("ann", 0))
    before = written.recorder.time
    decision = corrected(written, was("bea", 3, 6))
    assert [whose(written, when) for when in (0, 2.9, 3, 5.9, 6, 99)] == [
        *("ann", "ann"),
        *("bea", "bea"),
        *("ann", "ann"),
    ]
    assert [whose(written, when, before) for when in (0, 4, 7)] == ["ann"] * 3, "as it was known before"
    assert decision.outcome is Outcome.CORRECTED
    assert decision.superseded == ("m.0",)
    assert [row.cause for row in believed(written.rows)] == [Cause.CORRECTED, Cause.CORRECTED, Cause.SCAN]


def test_the_standing_row_goes_on_where_the_past_alone_is_corrected() -> None:
    """Its protection is what was promised when it began."""
    written = member(("ann", 0))
    [first] = written.rows
    corrected(written, was("bea", 3, 6))
    standing = binding.standing(written.rows)
    assert standing is not None
    assert (standing.guide_id, standing.valid_from_time) == ("ann", day(6))
    assert standing.protected_until_time == first.protected_until_time


def test_a_correction_without_an_end_says_whose_he_is() -> None:
    """From a day on which he was somebody else's, or nobody's yet."""
    for begin in (-5, 0, 4):
        written = member(("ann", 0))
        corrected(written, was("bea", begin))
        assert [whose(written, when) for when in (begin - 1, begin, 99)] == [
            *("ann" if begin > 0 else "-", "bea"),
            "bea",
        ]


def test_what_is_corrected_has_its_reason_and_protection_from_when_it_began() -> None:
    """As if she had bound him then."""
    written = member(("ann", 0))
    corrected(written, was("bea", 3, 6))
    [bea] = [row for row in believed(written.rows) if row.guide_id == "bea"]
    assert (bea.reason, bea.store_id, bea.cause) == ("the code was mixed up", "west", Cause.CORRECTED)
    assert bea.protected_until_time == day(93)
    others = [row.reason for row in believed(written.rows) if row.guide_id != "bea"]
    assert others == ["", ""]


def test_he_was_nobodys_or_a_pools() -> None:
    """A pool protects him from nobody."""
    written = member(("ann", 0))
    corrected(written, was("", 3, 6), "c1")
    corrected(written, was("", 7, 8, store="west"), "c2")
    assert [whose(written, when) for when in (2, 4, 6, 7.5, 9)] == ["ann", "-", "ann", "west", "ann"]
    [pool] = [row for row in believed(written.rows) if not row.guide_id]
    assert pool.protected_until_time == pool.valid_from_time


def test_a_time_before_anything_was_known_is_filled() -> None:
    """He was Bea's before Ann bound him."""
    written = member(("ann", 10))
    corrected(written, was("bea", 2, 5))
    assert [whose(written, when) for when in (1, 3, 5, 9, 10)] == ["-", "bea", "-", "-", "ann"]
    assert corrected(written, was("bea", 5, 10), "c2").superseded == (), "nothing said otherwise"


def test_several_rows_at_once_are_replaced() -> None:
    """Of those at the ends a part is left; a gap between them is filled."""
    written = member(("ann", 0), ("bea", 5), ("-", 8), ("cat", 10))
    corrected(written, was("bea", 2, 12))
    assert [whose(written, when) for when in (1, 2, 6, 9, 11, 12, 99)] == [
        *("ann", "bea", "bea", "bea", "bea"),
        *("cat", "cat"),
    ]
    assert len(believed(written.rows)) == 3


def test_what_ends_or_begins_where_the_correction_does_is_left_alone() -> None:
    """Half-open on both sides."""
    written = member(("ann", 0), ("bea", 5), ("cat", 10))
    decision = corrected(written, was("ann", 5, 10))
    assert len(decision.superseded) == 1
    assert len(decision.added) == 1


def test_corrections_can_be_corrected() -> None:
    """And each is known as of when it was made."""
    written, known = member(("ann", 0)), []
    for number, guide in enumerate(("bea", "cat", "ann")):
        corrected(written, was(guide, 3, 6), f"c{number}")
        known.append(written.recorder.time)
    assert [whose(written, 4, moment) for moment in known] == ["bea", "cat", "ann"]
    written.check_known()


def test_of_an_id_that_was_merged_each_who_answered_is_corrected_in_his_time() -> None:
    """From day 3 to 9, of one who was merged on day 6; the binding began on day 3 in both."""
    whole = was("bea", 3, 9)
    himself, survivor = whole.within(None, day(6)), whole.within(day(6), None)
    assert himself is not None
    assert survivor is not None
    assert (himself.begin_time, himself.end_time, himself.since_time) == (day(3), day(6), None)
    assert (survivor.begin_time, survivor.end_time, survivor.since_time) == (day(6), day(9), day(3))
    written = member(("ann", 0))
    corrected(written, replace(survivor, origin_id="other"))
    [bea] = [row for row in believed(written.rows) if row.guide_id == "bea"]
    assert (bea.valid_from_time, bea.begin_time, bea.origin_id) == (day(6), day(3), "other")
    assert bea.protected_until_time == day(93)


@pytest.mark.parametrize(("from_day", "until_day"), [(9, None), (12, None), (None, 3), (None, 0)])
def test_of_a_time_that_is_not_corrected_nothing_is_said(
    from_day: float | None, until_day: float | None
) -> None:
    """Half-open, again."""
    bounds = [day(bound) if bound is not None else None for bound in (from_day, until_day)]
    assert was("bea", 3, 9).within(*bounds) is None


# ---- whatever he was --------------------------------------------------------------------------------


@st.composite
def members(draw: st.DrawFn) -> Written:
    """Members with a past of up to eight scans and lapses, each on its day."""
    days = sorted(draw(st.sets(st.integers(0, DAYS - 1), max_size=8)))
    return member(*((draw(st.sampled_from(["-", *STORES])), when) for when in days))


@st.composite
def corrections(draw: st.DrawFn) -> Correction:
    """Any stretch of the past, to any guide, pool or nobody."""
    begin, end = sorted(draw(st.sets(st.integers(-2, DAYS), min_size=2, max_size=2)))
    guide = draw(st.sampled_from(["", *STORES]))
    store = draw(st.sampled_from(["", "east"])) if not guide else ""
    return was(guide, begin, draw(st.sampled_from([end, None])), store=store)


def told(rows: list[Row]) -> list[tuple[str, str, datetime | None] | None]:
    """Whose he was on each day, and until when he was protected."""
    found = [bitemporal.found(rows, day(when), None) for when in range(-3, DAYS + 2)]
    return [(row.guide_id, row.store_id, row.protected_until_time) if row else None for row in found]


@given(members(), st.lists(corrections(), min_size=1, max_size=4))
def test_a_correction_changes_what_is_believed_of_its_time_and_of_no_other(
    written: Written, said: list[Correction]
) -> None:
    """Row for row of the others; and every answer for what was known before is as it was."""
    for number, correction in enumerate(said):
        before = told(believed(written.rows))
        corrected(written, correction, f"c{number}")
        for when, (old, new) in enumerate(zip(before, told(believed(written.rows)), strict=True), start=-3):
            inside = correction.begin_time <= day(when)
            inside = inside and (correction.end_time is None or day(when) < correction.end_time)
            if not inside:
                assert new == old
            elif correction.store_id:
                assert new is not None
                assert new[:2] == (correction.guide_id, correction.store_id)
            else:
                assert new is None
    written.check_known()


@given(members(), corrections())
def test_the_same_correction_again_adds_nothing_new(written: Written, correction: Correction) -> None:
    """What is believed then is what was believed already."""
    corrected(written, correction, "c1")
    before = told(believed(written.rows))
    corrected(written, correction, "c2")
    assert told(believed(written.rows)) == before
