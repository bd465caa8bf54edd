"""Where a guide was: a step function of time, to which moves only append."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Invalid, Refused
from svc_members.rules.posting import AHEAD_MOST, POSTINGS_MAX, Posting, moved, store_at

HIRED = datetime(2026, 3, 1, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)
STORES = st.sampled_from(["east", "west", "north"])
# Close together, so that moves meet each other, her hiring and the present.
SECONDS = st.integers(-3, 12).map(lambda seconds: timedelta(seconds=seconds))
MOVES = st.lists(st.tuples(STORES, SECONDS, SECONDS), max_size=12)


def hired(store_id: str = "east") -> tuple[Posting, ...]:
    return (Posting(store_id, HIRED),)


def after(moves: Sequence[tuple[str, timedelta, timedelta]]) -> tuple[Posting, ...]:
    """Her postings after those of the moves that were accepted; each says where, when, and how late it is."""
    postings, now = hired(), HIRED
    for store_id, at, passed in moves:
        now += abs(passed)
        try:
            postings = moved(postings, store_id, HIRED + at, now)
        except (Invalid, Refused):
            continue
    return postings


@given(MOVES, SECONDS)
def test_she_is_where_the_last_posting_that_has_begun_puts_her(
    moves: list[tuple[str, timedelta, timedelta]], at: timedelta
) -> None:
    postings = after(moves)
    begun = [posting.store_id for posting in postings if posting.from_time <= HIRED + at]
    assert store_at(postings, HIRED + at) == (begun[-1] if begun else "east")


@given(MOVES)
def test_she_changes_store_at_the_times_of_her_postings_and_at_no_other(
    moves: list[tuple[str, timedelta, timedelta]],
) -> None:
    postings = after(moves)
    begins = {posting.from_time for posting in postings}
    for step in range(-5_000, 15_000, 250):
        time = HIRED + step * MILLISECOND
        if time not in begins:
            assert store_at(postings, time) == store_at(postings, time - MILLISECOND)


@given(MOVES, STORES, SECONDS, SECONDS)
def test_a_move_appends_one_posting_and_changes_nothing_that_was_before_it(
    moves: list[tuple[str, timedelta, timedelta]], store_id: str, at: timedelta, passed: timedelta
) -> None:
    postings = after(moves)
    last, time = postings[-1], HIRED + at
    now = last.from_time + abs(passed)
    refused = [
        reason
        for reason, holds in {
            "MOVE_IN_FUTURE": time > now + AHEAD_MOST,
            "ALREADY_THERE": store_id == last.store_id,
            "MOVE_BEFORE_LAST": time < last.from_time,
        }.items()
        if holds
    ]
    if refused:
        with pytest.raises((Invalid, Refused)) as caught:
            moved(postings, store_id, time, now)
        assert caught.value.reason == refused[0]
        return
    longer = moved(postings, store_id, time, now)
    assert longer == (*postings, Posting(store_id, min(time, now)))
    assert store_at(longer, now) == store_id
    for step in range(-5, 15):
        if (earlier := HIRED + step * SECOND) < longer[-1].from_time:
            assert store_at(longer, earlier) == store_at(postings, earlier)


def test_a_move_may_be_dated_back_to_the_last_and_no_further() -> None:
    now = HIRED + timedelta(days=30)
    once = moved(hired(), "west", HIRED + timedelta(days=10), now)
    with pytest.raises(Refused) as caught:
        moved(once, "north", HIRED + timedelta(days=10) - MILLISECOND, now)
    assert caught.value.reason == "MOVE_BEFORE_LAST"
    with pytest.raises(Refused, match="MOVE_BEFORE_LAST"):
        moved(hired(), "west", HIRED - MILLISECOND, now)
    corrected = moved(once, "north", HIRED + timedelta(days=10), now)
    assert store_at(corrected, HIRED + timedelta(days=10)) == "north"
    assert store_at(corrected, HIRED + timedelta(days=10) - MILLISECOND) == "east"


def test_a_clock_that_is_a_little_fast_moves_her_now_and_a_faster_one_is_refused() -> None:
    now = HIRED + timedelta(hours=1)
    assert moved(hired(), "west", now + AHEAD_MOST, now)[-1] == Posting("west", now)
    with pytest.raises(Invalid, match="MOVE_IN_FUTURE"):
        moved(hired(), "west", now + AHEAD_MOST + MILLISECOND, now)


def test_after_two_hundred_postings_she_stays() -> None:
    postings, now = hired(), HIRED + timedelta(days=400)
    for number in range(1, POSTINGS_MAX):
        postings = moved(postings, ("east", "west")[number % 2], HIRED + timedelta(days=number), now)
    assert len(postings) == POSTINGS_MAX == 200
    with pytest.raises(Refused) as caught:
        moved(postings, "north", now, now)
    assert caught.value.reason == "TOO_MANY_MOVES"
