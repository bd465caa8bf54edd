"""Two members made one and two again: each has what came through himself, whatever happened in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_members.rules import binding, merge
from svc_members.rules.binding import Cause, Policy, Row, Scan, Snatch
from svc_members.rules.merge import Merge, Merged
from svc_members.rules.replay import Record, without
from tests.unit.member_lives import ALWAYS, PROTECTED, STORES, Life
from tests.unit.member_rows import MINUTE, NOON, Recorder, Written, believed, said

DAY: Final = timedelta(days=1)
GUIDES: Final = st.sampled_from(sorted(STORES))
AGES: Final = st.integers(0, 12)

Happening = Callable[[Life, str, st.DataObject], None]


def _scans(life: Life, through: str, data: st.DataObject) -> None:
    policy = data.draw(st.sampled_from([ALWAYS, PROTECTED]))
    life.scans(through, data.draw(GUIDES), age=data.draw(AGES), policy=policy)


def _is_corrected(life: Life, through: str, data: st.DataObject) -> None:
    life.is_corrected(through, data.draw(GUIDES), (data.draw(AGES), data.draw(AGES)))


BY_HIMSELF: Final[dict[str, Happening]] = {
    "scans": _scans,
    "scans again": _scans,
    "scans a store's": lambda life, through, data: life.scans_store(
        through, data.draw(st.sampled_from(["east", "west"]))
    ),
    "is claimed": lambda life, through, data: life.claims(through, data.draw(GUIDES)),
    "is corrected": _is_corrected,
}
"""What comes through one of a person's ids, and changes nothing of what came through another."""
TO_BOTH: Final[dict[str, Happening]] = {
    "lapses": lambda life, through, _: life.lapses(through),
    "his guide resigns": lambda life, through, data: life.resigns(through, age=data.draw(AGES)),
    "is handed over": lambda life, through, data: life.is_handed_over(through, data.draw(GUIDES)),
    "was nobody's": lambda life, through, data: life.is_corrected(
        through, "", (data.draw(AGES), data.draw(AGES))
    ),
}
"""What happens to the row that stands, through whomever it came."""


def _lived(data: st.DataObject, life: Life, happenings: dict[str, Happening], *, most: int) -> None:
    """Lets things happen, one a minute, through any of the ids."""
    names = st.sampled_from(sorted(life.members))
    for _ in range(data.draw(st.integers(0, most))):
        life.minute += 1
        happening = data.draw(st.sampled_from(sorted(happenings)))
        happenings[happening](life, data.draw(names), data)
        life.check()


# ---- whatever happens -------------------------------------------------------------------------------


@given(st.data())
def test_each_has_what_came_through_himself_whoever_was_merged_and_separated_in_between(
    data: st.DataObject,
) -> None:
    """Four members, merged into each other and separated in any order: chains, and the same two again.

    At every step each has the rows that came through himself, and through who is merged into him; no two rows
    hold at one time, and what was believed after every earlier write is as it was.
    """
    names = "SPQR"
    happenings = BY_HIMSELF | TO_BOTH
    happenings |= dict.fromkeys(
        ["is merged", "is merged again"],
        lambda life, through, data: life.merge(through, data.draw(st.sampled_from(names))),
    )
    happenings |= dict.fromkeys(
        ["is separated", "is separated again"], lambda life, _, data: life.undo(data.draw(st.integers(0, 5)))
    )
    _lived(data, Life(names), happenings, most=30)


@given(st.data())
def test_merged_and_separated_with_nothing_in_between_both_have_exactly_what_they_had(
    data: st.DataObject,
) -> None:
    """Row by row, to the millisecond."""
    life = Life("SP")
    _lived(data, life, BY_HIMSELF | TO_BOTH, most=12)
    before = {name: said(life.rows(name)) for name in "SP"}
    life.merge("S", "P")
    life.undo(0)
    assert {name: said(life.rows(name)) for name in "SP"} == before


@given(st.data())
def test_what_came_through_others_leaves_no_trace_with_him_once_they_are_separated(
    data: st.DataObject,
) -> None:
    """Two were merged into him and scanned and were corrected; they are separated in either order."""
    life = Life("SPQ")
    _lived(data, life, BY_HIMSELF | TO_BOTH, most=10)
    before = said(life.rows("S"))
    life.merge("S", "P")
    life.merge("S", "Q")
    for _ in range(data.draw(st.integers(0, 6))):
        life.minute += 1
        happening = data.draw(st.sampled_from(sorted(BY_HIMSELF)))
        BY_HIMSELF[happening](life, data.draw(st.sampled_from("PQ")), data)
    for number in data.draw(st.permutations([0, 1])):
        life.undo(number)
        life.check()
    assert said(life.rows("S")) == before


@given(st.data())
def test_what_came_through_the_survivor_leaves_no_trace_with_the_other(data: st.DataObject) -> None:
    """The other finds what he left, however long he was somebody else."""
    life = Life("SP")
    _lived(data, life, BY_HIMSELF | TO_BOTH, most=10)
    before = said(life.rows("P"))
    life.merge("S", "P")
    for _ in range(data.draw(st.integers(0, 6))):
        life.minute += 1
        happening = data.draw(st.sampled_from(sorted(BY_HIMSELF)))
        BY_HIMSELF[happening](life, "S", data)
    life.undo(0)
    assert said(life.rows("P")) == before


# ---- who wins ---------------------------------------------------------------------------------------


def bound(guide: str, begin_day: int, policy: Policy = PROTECTED, *, by: str = "m") -> Written:
    """A member bound some days after noon; without a guide, to the pool of a store."""
    written = Written(Recorder(NOON + begin_day * DAY))
    scan = Scan(guide, STORES.get(guide, "east"), "spring", NOON + begin_day * DAY, False)
    written.write(binding.scan((), scan, policy, f"{by}.1"))
    return written


def merged(survivor: Written, other: Written, day: int) -> Merge:
    """The two merged some days after noon, and written."""
    made = merge.merge(survivor.rows, other.rows, "other", NOON + day * DAY, ("s.9", "o.9"))
    survivor.write(made.survivor)
    other.write(made.other)
    return made


def guide_of(written: Written) -> str:
    """Whose he is; `-`: nobody's."""
    standing = binding.standing(written.rows)
    return standing.guide_id if standing else "-"


ALWAYS_ONLY: Final = Policy(snatch=Snatch.ALWAYS)
NOBODY: Final = None


@pytest.mark.parametrize(
    ("survivor", "other", "winner"),
    [
        pytest.param(("ann", 0), ("bea", 1), "ann", id="the earlier, protected both"),
        pytest.param(("ann", 1), ("bea", 0), "bea", id="the earlier, though it is the younger member's"),
        pytest.param(("ann", -200), ("bea", 1), "bea", id="the protected one, though it is later"),
        pytest.param(("ann", -300), ("bea", -200), "ann", id="the earlier where neither is protected"),
        pytest.param(("", 0), ("bea", 1), "bea", id="a guide's, though the pool had him first"),
        pytest.param(("", 0), ("", 1), "", id="of two pools the earlier"),
        pytest.param(NOBODY, ("bea", 1), "bea", id="the only one"),
        pytest.param(("ann", 1), NOBODY, "ann", id="the survivor's only one"),
        pytest.param(NOBODY, NOBODY, "-", id="nobody's and nobody's"),
    ],
)
def test_of_two_bindings_the_earlier_protected_one_wins(
    survivor: tuple[str, int] | None, other: tuple[str, int] | None, winner: str
) -> None:
    """And there is one, where there was any."""
    one = bound(*survivor) if survivor else Written(Recorder())
    two = bound(*other, by="o") if other else Written(Recorder())
    merged(one, two, 10)
    assert guide_of(one) == winner
    assert guide_of(two) == "-", "the other's id is an alias: nobody's by itself"


def test_the_binding_that_wins_goes_on_with_the_survivor_from_the_merge_on() -> None:
    """Before, each was whose he was; the protection that was promised stays."""
    one, two = bound("ann", 3), bound("bea", 1, by="o")
    before = believed(two.rows)[0]
    made = merged(one, two, 10)
    was_ann, is_bea = believed(one.rows)
    [was_bea] = believed(two.rows)
    assert made.time == NOON + 10 * DAY
    assert was_ann.valid_to_time == was_bea.valid_to_time == is_bea.valid_from_time == made.time
    assert {row.cause for row in (was_ann, was_bea, is_bea)} == {Cause.MERGED}
    assert (is_bea.guide_id, is_bea.store_id, is_bea.campaign) == ("bea", "west", "spring")
    assert is_bea.protected_until_time == before.protected_until_time == NOON + 91 * DAY
    assert (is_bea.origin_id, is_bea.begin_time) == ("other", NOON + DAY)


def test_through_a_chain_a_binding_is_as_early_as_it_began() -> None:
    """Bea's of day 0 came to the middle one on day 20; it still beats Ann's of day 10."""
    young, middle, old = bound("bea", 0, by="y"), Written(Recorder()), bound("ann", 10, by="o")
    merged(middle, young, 20)
    merged(old, middle, 30)
    assert guide_of(old) == "bea"


def test_a_merge_begins_after_everything_that_is_believed_of_either() -> None:
    """A scan may be five seconds ahead of us: no row of the merge may hold for less than nothing."""
    one, two = bound("ann", 3), bound("bea", 4, by="o")
    made = merge.merge(one.rows, two.rows, "other", NOON, ("s.9", "o.9"))
    assert made.time == NOON + 4 * DAY + timedelta(milliseconds=1)


# ---- what is given back -----------------------------------------------------------------------------


def test_a_scan_while_he_was_protected_by_the_others_guide_is_lost_to_him() -> None:
    """It bound nobody: there is no fact that could go with him."""
    life = Life("SP")
    life.scans("S", "ann", policy=PROTECTED)
    life.merge("S", "P")
    life.scans("P", "bea", policy=PROTECTED)
    life.undo(0)
    assert guide_of(life.members["S"].written) == "ann"
    assert guide_of(life.members["P"].written) == "-"


def test_what_lapsed_while_they_were_one_stays_ended_and_what_it_had_displaced_goes_on() -> None:
    """Bea's binding won and lapsed; Ann's had ended for it alone."""
    life = Life("SP")
    life.minute = 3
    life.scans("P", "bea", policy=PROTECTED)
    life.minute = 4
    life.scans("S", "ann", policy=PROTECTED)
    ann = said(life.rows("S"))
    life.merge("S", "P")
    assert guide_of(life.members["S"].written) == "bea"
    life.lapses("S")
    life.undo(0)
    assert said(life.rows("S")) == ann
    [bea] = believed(life.rows("P"))
    assert (bea.guide_id, bea.valid_from_time) == ("bea", NOON + 3 * MINUTE)
    assert bea.valid_to_time is not None


def test_what_is_given_back_says_that_a_merge_was_undone_and_what_did_not_change_stays_as_it_was() -> None:
    """The survivor's earlier rows are not written anew: answers that named them still do."""
    life = Life("SP")
    for guide in ("ann", "bea", "cat"):
        life.minute += 1
        life.scans("S", guide)
    life.scans("P", "ann", policy=PROTECTED)
    before = believed(life.rows("S"))
    life.merge("S", "P")
    life.undo(0)
    after = believed(life.rows("S"))
    assert after[:2] == before[:2]
    assert [row.cause for row in believed(life.rows("P"))] == [Cause.SEPARATED]


def test_a_pool_that_a_resignation_left_him_in_still_takes_a_handover() -> None:
    """Whether a merge brought the row or gave it back."""
    life = Life("SP")
    life.scans("P", "ann")
    life.minute += 1
    life.resigns("P")
    changes: list[Callable[[], None]] = [lambda: life.merge("S", "P"), lambda: life.undo(0)]
    for change in changes:
        change()
        rows = life.rows(life.answering("P"))
        taken = Scan("bea", "west", "", life.now, False)
        decision = binding.hand_over(rows, "ann", taken, PROTECTED, resigned=True, next_id="taken")
        assert decision.outcome is binding.Outcome.HANDED_OVER


def test_a_binding_that_ended_in_its_first_moment_hides_nothing() -> None:
    """Under ALWAYS two scans of one moment leave the later one alone, and his own comes back whole."""
    life = Life("SP")
    life.scans("S", "ann")
    before = said(life.rows("S"))
    life.merge("S", "P")
    life.minute += 1
    life.scans("P", "bea")
    life.scans("P", "cat")
    life.undo(0)
    assert said(life.rows("S")) == before
    assert guide_of(life.members["P"].written) == "cat"


def test_a_row_less_some_time_is_what_is_left_on_either_side() -> None:
    """Half-open, as rows are."""
    [row] = bound("ann", 0).rows
    begin, end = NOON + DAY, NOON + 2 * DAY
    left, right = without([row], (begin, end))
    assert (left.valid_from_time, left.valid_to_time) == (NOON, begin)
    assert (right.valid_from_time, right.valid_to_time) == (end, None)
    assert without([row], (NOON, None)) == []
    assert without([left], (begin, end)) == [left]
    assert without([right], (begin, end)) == [right]


def test_who_was_separated_before_takes_nothing_with_him_twice() -> None:
    """Merged, separated and merged again: what he had meanwhile stays with the time in which he had it."""
    life = Life("SP")
    life.merge("S", "P")
    life.minute += 1
    life.scans("P", "bea")
    life.undo(0)
    life.minute += 1
    life.scans("P", "cat")
    rows = said(life.rows("P"))
    life.merge("S", "P")
    life.undo(1)
    assert said(life.rows("P")) == rows
    assert said(life.rows("S")) == []


def test_a_merge_of_two_who_were_bound_is_undone_by_what_is_recorded_of_them_alone() -> None:
    """Nothing need be known of the merge but when it was recorded, and who came by it."""
    one, two = bound("ann", 3), bound("bea", 1, by="o")
    before = said(two.rows)
    made = merge.merge(one.rows, two.rows, "other", NOON + 10 * DAY, ("s.9", "o.9"))
    recorded = one.write(made.survivor), two.write(made.other)
    known = Merged(made.time, frozenset({"other"}), *recorded, {})
    parted = merge.separate(Record("survivor", one.rows), Record("other", two.rows), known, ("s.10", "o.10"))
    one.write(parted.survivor)
    two.write(parted.other)
    assert said(two.rows) == before
    assert [row.guide_id for row in believed(one.rows)] == ["ann"]


def test_ids_of_rows_are_never_used_again() -> None:
    """A row is named for ever: commission freezes its id with the order."""
    life = Life("SP")
    life.scans("P", "ann", policy=PROTECTED)
    for number in range(3):
        life.merge("S", "P")
        life.undo(number)
    rows: list[Row] = [*life.rows("S"), *life.rows("P")]
    assert len({row.binding_id for row in rows}) == len(rows)
