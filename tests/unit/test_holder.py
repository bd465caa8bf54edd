"""Whose an identity was: recycled numbers, merges and their undoing, as of and as known at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chassis.errors import Refused
from svc_members.rules import bitemporal, holder
from svc_members.rules.holder import Holder, Rows

NOON: Final = datetime(2026, 3, 10, 4, tzinfo=UTC)
DAY: Final = timedelta(days=1)
TICK: Final = timedelta(milliseconds=1)


def at(days: float) -> datetime:
    """Some days after noon."""
    return NOON + days * DAY


def whose(rows: Rows, as_of: datetime, known_at: datetime | None = None) -> str:
    """Who held it; `-`: nobody."""
    found = bitemporal.found(rows, as_of, known_at)
    return found.member_id if found else "-"


def check_apart(rows: Rows) -> None:
    """Of the rows believed at any moment no two hold at one time, and each holds for some."""
    for moment in {row.recorded_time for row in rows}:
        known = [row for row in rows if bitemporal.believed(row, moment)]
        known.sort(key=lambda row: row.valid_from_time or at(-100_000))
        for earlier, later in pairwise(known):
            assert earlier.valid_to_time is not None
            assert later.valid_from_time is not None
            assert earlier.valid_to_time <= later.valid_from_time
        for row in known:
            begin = row.valid_from_time or at(-100_000)
            assert row.valid_to_time is None or begin < row.valid_to_time


def test_a_number_that_was_handed_out_again_is_the_first_ones_before_and_the_second_ones_after() -> None:
    """Given up on day 10, told on day 12, enrolled with by another on day 20."""
    rows = holder.begun((), "first", at(0))
    rows = holder.ended(rows, "first", at(10), at(12), at(12))
    rows = holder.begun(rows, "second", at(20))
    check_apart(rows)
    assert [whose(rows, at(day)) for day in (-400, 5, 10 - 0.001, 10, 15, 20, 99)] == [
        *("first", "first", "first"),
        *("second", "second", "second", "second"),
    ]
    # On day 11 nobody knew that it was given up; on day 15 nobody knew whose it had become.
    assert [whose(rows, at(11), at(known)) for known in (-1, 11, 15, 25)] == ["-", "first", "-", "second"]


def test_giving_it_up_again_changes_nothing() -> None:
    """Also at another time; whoever never held it is told so."""
    rows = holder.ended(holder.begun((), "first", at(0)), "first", at(10), at(12), at(12))
    assert holder.ended(rows, "first", at(11), at(13), at(13)) == rows
    for before, member in [(rows, "second"), ((), "first"), (holder.begun(rows, "second", at(20)), "first")]:
        with pytest.raises(Refused) as refused:
            holder.ended(before, member, at(30), at(30), at(30))
        assert refused.value.reason == "NOT_HIS_IDENTITY"


def test_who_gave_it_up_last_may_say_so_again() -> None:
    """Though the undoing of a merge was recorded of an earlier holder since."""
    rows = holder.passed_on(holder.begun((), "younger", at(0)), "older", at(5), at(5))
    rows = holder.ended(rows, "older", at(8), at(8), at(8))
    rows = holder.ended(holder.begun(rows, "third", at(9)), "third", at(12), at(12), at(12))
    rows = holder.returned(rows, "older", "younger", {"younger"}, at(14))
    assert holder.ended(rows, "third", at(12), at(15), at(15)) == rows


@pytest.mark.parametrize(("day", "reason"), [(20, "UNLINKED_BEFORE_LINKED"), (19, "UNLINKED_BEFORE_LINKED")])
def test_nobody_gives_up_what_he_did_not_hold_yet(day: float, reason: str) -> None:
    """The second holder has held it since day 20, when the first gave it up."""
    rows = holder.ended(holder.begun((), "first", at(0)), "first", at(20), at(20), at(20))
    rows = holder.begun(rows, "second", at(21))
    with pytest.raises(Refused) as refused:
        holder.ended(rows, "second", at(day), at(30), at(30))
    assert refused.value.reason == reason


def test_what_a_merge_gave_him_this_moment_can_be_given_up_now() -> None:
    """The merge may be a few seconds ahead of our clock."""
    rows = holder.passed_on(holder.begun((), "younger", at(0)), "older", at(5) + 3 * TICK, at(5))
    rows = holder.ended(rows, "older", None, at(5), at(5))
    check_apart(rows)
    assert whose(rows, at(5) + 3 * TICK) == "older"
    assert whose(rows, at(5) + 4 * TICK) == "-"


def test_a_merge_passes_it_on_and_undoing_it_gives_it_back_as_if_nothing_had_been() -> None:
    """What was answered for a known moment in between stays."""
    rows = holder.begun((), "younger", at(0))
    rows = holder.passed_on(rows, "older", at(5), at(5))
    assert [whose(rows, at(day)) for day in (-9, 4, 5, 9)] == ["younger", "younger", "older", "older"]
    rows = holder.returned(rows, "older", "younger", {"younger"}, at(7))
    check_apart(rows)
    assert [whose(rows, at(day)) for day in (-9, 4, 5, 9)] == ["younger"] * 4
    assert [whose(rows, at(6), at(known)) for known in (4, 6, 7, 8)] == [
        *("younger", "older"),
        *("younger", "younger"),
    ]
    assert bitemporal.standing(rows) == rows[-1]
    assert (rows[-1].valid_from_time, rows[-1].origin_id) == (None, ""), "his own, since ever"


def test_through_a_chain_it_is_given_back_step_by_step() -> None:
    """The youngest's, the middle one's, the oldest's; each merge undone by itself."""
    rows = holder.begun((), "young", at(0))
    rows = holder.passed_on(rows, "middle", at(5), at(5))
    rows = holder.passed_on(rows, "old", at(10), at(10))
    assert [whose(rows, at(day)) for day in (4, 9, 11)] == ["young", "middle", "old"]
    rows = holder.returned(rows, "old", "middle", {"middle", "young"}, at(12))
    assert [whose(rows, at(day)) for day in (4, 9, 11)] == ["young", "middle", "middle"]
    rows = holder.returned(rows, "middle", "young", {"young"}, at(13))
    check_apart(rows)
    assert [whose(rows, at(day)) for day in (4, 9, 11)] == ["young"] * 3


def test_what_was_linked_in_the_others_name_and_what_was_given_up_goes_with_him() -> None:
    """He had his old number until day 8, though the two were one since day 5; the new one is his, too."""
    old = holder.passed_on(holder.begun((), "younger", at(0)), "older", at(5), at(5))
    old = holder.ended(old, "older", at(8), at(8), at(8))
    new = holder.begun((), "older", at(8), "younger")
    own = holder.begun((), "older", at(8))
    old, new, back = (
        holder.returned(rows, "older", "younger", {"younger"}, at(9)) for rows in (old, new, own)
    )
    assert [whose(old, at(day)) for day in (4, 7, 8)] == ["younger", "younger", "-"]
    assert [whose(new, at(day)) for day in (4, 9)] == ["younger", "younger"]
    assert back == own, "what the survivor linked himself stays his"


def test_what_another_holds_by_now_stays_his_when_a_merge_is_undone() -> None:
    """Recycled while the two were one."""
    rows = holder.passed_on(holder.begun((), "younger", at(0)), "older", at(5), at(5))
    rows = holder.begun(holder.ended(rows, "older", at(8), at(8), at(8)), "third", at(9))
    rows = holder.returned(rows, "older", "younger", {"younger"}, at(10))
    check_apart(rows)
    assert [whose(rows, at(day)) for day in (4, 7, 8, 12)] == ["younger", "younger", "third", "third"]


def test_what_the_database_cannot_hold_is_an_alarm() -> None:
    """These are mistakes of ours, not of a caller."""
    held = holder.begun((), "first", at(0))
    with pytest.raises(ValueError, match="somebody holds it"):
        holder.begun(held, "second", at(1))
    with pytest.raises(ValueError, match="nobody holds it"):
        holder.passed_on((), "older", at(1), at(1))
    with pytest.raises(ValueError, match="another answers for it"):
        holder.answering(holder.answering((), "older", at(1), at(1)), "oldest", at(2), at(2))
    with pytest.raises(ValueError, match="nobody answers for it"):
        holder.answering_no_more((), at(1))


def test_who_answered_for_an_id_is_known_as_of_and_as_known_at_any_moment() -> None:
    """Merged on day 5, undone on day 7, merged again on day 9."""
    rows = holder.answering((), "older", at(5), at(5))
    rows = holder.answering_no_more(rows, at(7))
    rows = holder.answering(rows, "older", at(9), at(9))
    assert [whose(rows, at(day)) for day in (4, 6, 8, 9)] == ["-", "-", "-", "older"]
    assert [whose(rows, at(6), at(known)) for known in (4, 5, 6, 7, 10)] == ["-", "older", "older", "-", "-"]


@given(st.lists(st.sampled_from([timedelta(0), -DAY, TICK]), min_size=2, max_size=6))
def test_times_of_recording_rise_whatever_the_databases_clock_does(steps: list[timedelta]) -> None:
    """Two changes within a millisecond, or a primary whose clock is a day behind."""
    rows: Rows = ()
    stamp = at(0)
    for number, step in enumerate(steps):
        stamp += step
        if bitemporal.standing(rows) is None:
            rows = holder.begun(rows, f"member-{number}", stamp)
        else:
            current = bitemporal.standing(rows)
            assert current is not None
            rows = holder.ended(rows, current.member_id, None, at(number), stamp)
    times = [row.recorded_time for row in rows]
    assert times == sorted(set(times))
    assert all(row.superseded_time is None or row.superseded_time > row.recorded_time for row in rows)


# ---- whatever happens -------------------------------------------------------------------------------


@dataclass
class _Merge:
    survivor: str
    other: str
    origins: set[str] = field(default_factory=set)


class Identity(RuleBasedStateMachine):
    """One identity among three members who are merged and separated, give it up, and take it.

    A model of one line per day says whose it should be; every answer for a known moment is asked again.
    """

    NAMES = "abc"
    DAYS = 60

    def __init__(self) -> None:
        super().__init__()
        self.day = 1
        self.rows: Rows = ()
        self.merges: list[_Merge] = []
        self.answers: dict[tuple[int, datetime], str] = {}
        self.in_whose_name: list[str] = ["-"] * self.DAYS
        """Per day, through whom it was somebody's; the last day stands for ever after."""
        self.merged_days: dict[str, int] = {}

    def answering(self, name: str) -> str:
        """Who answers for a member."""
        for merge in self.merges:
            if merge.other == name:
                return self.answering(merge.survivor)
        return name

    def _changed(self, rows: Rows) -> None:
        self.rows = rows
        self.day += 1

    @precondition(lambda self: bitemporal.standing(self.rows) is None)
    @rule(name=st.sampled_from(NAMES))
    def is_linked(self, name: str) -> None:
        """By one of his ids, to whoever answers for it."""
        member = self.answering(name)
        last = [row.valid_to_time for row in self.rows if row.superseded_time is None and row.valid_to_time]
        since = (max(last) - NOON) // DAY if last else 0
        self.in_whose_name[since:] = [name] * (self.DAYS - since)
        self._changed(holder.begun(self.rows, member, at(self.day), "" if member == name else name))

    @precondition(lambda self: bitemporal.standing(self.rows) is not None)
    @rule(ago=st.integers(0, 3))
    def is_given_up(self, ago: int) -> None:
        """Some days ago, if he held it then."""
        current = bitemporal.standing(self.rows)
        assert current is not None
        time = at(self.day - ago)
        if current.valid_from_time is not None and time <= current.valid_from_time:
            with pytest.raises(Refused, match="UNLINKED_BEFORE_LINKED"):
                holder.ended(self.rows, current.member_id, time, at(self.day), at(self.day))
            return
        if time <= at(0):
            return
        self.in_whose_name[self.day - ago :] = ["-"] * (self.DAYS - self.day + ago)
        self._changed(holder.ended(self.rows, current.member_id, time, at(self.day), at(self.day)))

    @rule(one=st.sampled_from(NAMES), two=st.sampled_from(NAMES))
    def are_merged(self, one: str, two: str) -> None:
        """The younger into the older; the identity passes on where the younger holds it."""
        survivor, other = sorted({self.answering(one), self.answering(two)} | {"~"})[:2]
        if other == "~":
            return
        origins = {name for name in self.NAMES if self.answering(name) == other}
        current = bitemporal.standing(self.rows)
        if current is not None and current.member_id == other:
            self.rows = holder.passed_on(self.rows, survivor, at(self.day), at(self.day))
        self.merges.append(_Merge(survivor, other, origins))
        self.day += 1

    @precondition(lambda self: self.merges)
    @rule(number=st.integers(0, 5))
    def are_separated(self, number: int) -> None:
        """Where the survivor is one by himself; then everything is as if they had never been one."""
        merge = self.merges[number % len(self.merges)]
        if any(other.other == merge.survivor for other in self.merges):
            return
        self.merges.remove(merge)
        returned = holder.returned(self.rows, merge.survivor, merge.other, merge.origins, at(self.day))
        self._changed(returned)
        if not self.merges:
            told = [whose(self.rows, at(day)) for day in range(self.DAYS)]
            assert told == self.in_whose_name

    @rule(as_of=st.integers(0, DAYS - 1), ago=st.integers(1, 9))
    def somebody_asks(self, as_of: int, ago: int) -> None:
        """Whose it was on a day, as known on an earlier one."""
        question = (as_of, at(self.day - ago))
        answer = whose(self.rows, at(as_of), question[1])
        assert self.answers.setdefault(question, answer) == answer

    @invariant()
    def an_answer_once_given_stays(self) -> None:
        """Whatever was linked, merged, separated and given up since."""
        for (as_of, known_at), answer in self.answers.items():
            assert whose(self.rows, at(as_of), known_at) == answer

    @invariant()
    def nobody_shares_it(self) -> None:
        """At no moment, as known at none; and it is with whoever answers for its origin."""
        check_apart(self.rows)
        current = bitemporal.standing(self.rows)
        if current is not None:
            assert self.answering(current.member_id) == current.member_id
            assert self.answering(self.in_whose_name[-1]) == current.member_id
            through: Holder = current
            assert (through.origin_id or through.member_id) == self.in_whose_name[-1]


TestIdentity = Identity.TestCase
TestIdentity.settings = settings(stateful_step_count=25)
