"""Rows with two time axes: one answer to every question, and the same answer for ever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_members.rules import bitemporal

NOON: Final = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Fact:
    """The least that a row is."""

    name: str
    valid_from_time: datetime | None = None
    valid_to_time: datetime | None = None
    recorded_time: datetime | None = NOON
    superseded_time: datetime | None = None


def at(hours: float) -> datetime:
    """Some hours after noon."""
    return NOON + hours * HOUR


def name_of(found: Fact | None) -> str:
    """What was found; `-`: nothing."""
    return found.name if found else "-"


def test_a_row_holds_from_its_first_moment_until_just_before_its_last() -> None:
    """Half-open: where one ends and the next begins, it is the next."""
    rows = [Fact("first", at(0), at(2)), Fact("second", at(2))]
    tick = timedelta(milliseconds=1)
    moments = [at(0) - tick, at(0), at(2) - tick, at(2), at(1000)]
    assert [name_of(bitemporal.found(rows, moment, None)) for moment in moments] == [
        "-",
        "first",
        "first",
        "second",
        "second",
    ]


def test_a_row_without_a_beginning_has_held_since_ever() -> None:
    """As an identity has been its first holder's."""
    assert name_of(bitemporal.found([Fact("ever", None, at(2))], at(-1_000_000), None)) == "ever"


def test_a_row_is_believed_from_when_it_is_recorded_until_another_replaces_it() -> None:
    """Half-open as well; asked without a moment, what counts is what is believed now."""
    was = Fact("was", at(0), recorded_time=at(1), superseded_time=at(5))
    now = Fact("now", at(0), recorded_time=at(5))
    tick = timedelta(milliseconds=1)
    known = [at(1) - tick, at(1), at(5) - tick, at(5), None]
    assert [name_of(bitemporal.found([was, now], at(9), moment)) for moment in known] == [
        "-",
        "was",
        "was",
        "now",
        "now",
    ]


def test_what_is_not_written_yet_was_never_believed() -> None:
    """It is decided on, and asked about by nobody."""
    decided = Fact("decided", at(0), recorded_time=None)
    assert not bitemporal.believed(decided, at(100))
    assert bitemporal.believed(decided, None)


def test_what_stands_is_believed_and_has_no_end() -> None:
    """Neither what ended nor what was replaced."""
    ended, replaced = Fact("ended", at(0), at(2)), Fact("replaced", at(2), superseded_time=at(3))
    assert bitemporal.standing([ended, replaced]) is None
    assert name_of(bitemporal.standing([ended, replaced, Fact("stands", at(2))])) == "stands"
    assert bitemporal.standing([]) is None


def test_two_that_stand_are_an_alarm() -> None:
    """Better than an answer at random."""
    with pytest.raises(ValueError, match="2 standing rows"):
        bitemporal.standing([Fact("one", at(0)), Fact("other", at(1))])


HOURS: Final = st.integers(-5, 30)


@st.composite
def histories(draw: st.DrawFn) -> list[list[Fact]]:
    """What was believed after each write: every write cuts the last row short or begins another."""
    rows: list[Fact] = []
    states = []
    for number in range(draw(st.integers(1, 12))):
        recorded = at(number * 3)
        last = bitemporal.standing(rows)
        begin = max(at(draw(HOURS)), last.valid_from_time or at(-9)) if last else at(draw(HOURS))
        ends = [row.valid_to_time for row in rows if row.superseded_time is None and row.valid_to_time]
        begin = max([begin, *ends])
        added = [Fact(f"row-{number}", begin, recorded_time=recorded)]
        if last is not None:
            rows = [replace(row, superseded_time=recorded) if row is last else row for row in rows]
            if last.valid_from_time is not None and last.valid_from_time < begin:
                added.append(replace(last, valid_to_time=begin, recorded_time=recorded))
        rows = [*rows, *added]
        states.append(rows)
    return states


@given(histories(), HOURS, HOURS)
def test_an_answer_for_a_known_moment_never_changes(
    states: list[list[Fact]], as_of: int, known_at: int
) -> None:
    """Whatever was written later: rows are added and superseded, and that is all."""
    answers = {
        name_of(bitemporal.found(rows, at(as_of), at(known_at)))
        for number, rows in enumerate(states)
        if at(known_at) < at(number * 3 + 3)
    }
    assert len(answers) <= 1


@given(histories(), HOURS)
def test_of_the_rows_believed_at_any_moment_one_at_most_holds(states: list[list[Fact]], as_of: int) -> None:
    """So that the order of the rows makes no difference."""
    rows = states[-1]
    for number in range(len(states)):
        known_at = at(number * 3)
        found = bitemporal.found(rows, at(as_of), known_at)
        assert found == bitemporal.found(list(reversed(rows)), at(as_of), known_at)
