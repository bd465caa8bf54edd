"""Rows as changes: replayed in order they are the rows again, and a change is the same whenever told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from svc_members.rules import binding, correction
from svc_members.rules.binding import Cause, Decision, Policy, Row, Scan, Snatch
from svc_members.rules.changes import Change, Place, Progress, changes
from svc_members.rules.correction import Correction

BEGIN = datetime(2026, 3, 10, 4, tzinfo=UTC)
ALWAYS = Policy(snatch=Snatch.ALWAYS)
MILLISECOND = timedelta(milliseconds=1)


def recorded(rows: Sequence[Row], decision: Decision, stamp: datetime) -> tuple[Row, ...]:
    """The rows once a decision is written."""
    ended = [
        replace(row, superseded_time=stamp) if row.binding_id in decision.superseded else row for row in rows
    ]
    return (*ended, *(replace(row, recorded_time=stamp) for row in decision.added))


def replayed(told: Sequence[Change]) -> set[Row]:
    """The rows that a listener has who keeps what he is told."""
    rows: dict[str, Row] = {}
    for change in told:
        for binding_id in change.superseded:
            rows[binding_id] = replace(rows[binding_id], superseded_time=change.recorded_time)
        for row in change.added:
            assert row.recorded_time == change.recorded_time
            assert row.superseded_time is None
            assert row.binding_id not in rows
            rows[row.binding_id] = row
    return set(rows.values())


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[datetime, tuple[Row, ...]]]:
    """All states that a member's rows were in, each with the time at which it was recorded."""
    rows: tuple[Row, ...] = ()
    states = []
    stamp = now = BEGIN
    for number in range(draw(st.integers(0, 8))):
        now += draw(st.sampled_from([timedelta(0), MILLISECOND, timedelta(hours=1), timedelta(days=40)]))
        guide, next_id = draw(st.sampled_from(["ann", "bea", ""])), f"row-{number}"
        match draw(st.sampled_from(["scan", "end", "correct"])):
            case "scan":
                decision = binding.scan(rows, Scan(guide, "east", "", now, False), ALWAYS, next_id)
            case "end":
                decision = binding.end(rows, now, Cause.LAPSED, next_id)
            case _:
                begin = now - draw(st.sampled_from([timedelta(minutes=30), timedelta(days=90)]))
                was = Correction(guide, "west", begin, now, "he said so")
                decision = correction.correct(rows, was, ALWAYS, next_id)
        if decision.added:
            stamp = max(now, stamp + MILLISECOND)
            rows = recorded(rows, decision, stamp)
            states.append((stamp, rows))
    return states


@given(histories())
def test_changes_replayed_in_order_give_exactly_the_rows(
    history: list[tuple[datetime, tuple[Row, ...]]],
) -> None:
    """Of every state that they were in, not of the last alone."""
    for stamp, rows in history:
        told = changes(rows, BEGIN - MILLISECOND, stamp)
        assert replayed(told) == set(rows)
        times = [change.recorded_time for change in told]
        assert times == sorted(set(times)), "one for every moment, in order"
        assert all(change.added or change.superseded for change in told)


@given(histories(), st.data())
def test_a_change_is_the_same_whenever_it_is_told(
    history: list[tuple[datetime, tuple[Row, ...]]], data: st.DataObject
) -> None:
    """A listener may compare, and whoever is told in parts is told what he had been told at once."""
    if not history:
        return
    last, rows = history[-1]
    whole = changes(rows, BEGIN - MILLISECOND, last)
    middle, then = data.draw(st.sampled_from(history))
    assert changes(then, BEGIN - MILLISECOND, middle) == [
        change for change in whole if change.recorded_time <= middle
    ]
    assert changes(tuple(reversed(rows)), middle, last) == [
        change for change in whole if change.recorded_time > middle
    ]
    # Rows that have not changed since need not be known.
    lately = [row for row in rows if max(row.recorded_time or BEGIN, row.superseded_time or BEGIN) > middle]
    assert changes(lately, middle, last) == changes(rows, middle, last)


def test_progress_is_drawn_back_and_never_forward() -> None:
    """Where the clock goes back, what is recorded from now on lies behind where a watch had come."""
    later, earlier = BEGIN + timedelta(hours=1), BEGIN - timedelta(hours=1)
    progress = Progress(BEGIN, Place(later, "member"))
    assert progress.not_after(later) == progress
    assert progress.not_after(BEGIN) == Progress(BEGIN, Place(BEGIN))
    assert progress.not_after(earlier) == Progress(earlier, Place(earlier))
