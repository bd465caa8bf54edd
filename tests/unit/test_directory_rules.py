"""Where a guide was, what lies below a region, who is offered a member: the rules of the directory."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import DaogouError, Invalid, NotFound, Refused
from svc_members.rules import handover, posting, region
from svc_members.rules.handover import Spread
from svc_members.rules.posting import Posting

HIRED = datetime(2026, 1, 1, tzinfo=UTC)
DAY, MILLISECOND = timedelta(days=1), timedelta(milliseconds=1)
FIRST: tuple[Posting, ...] = (Posting("east", HIRED),)


def after(*moves: tuple[str, int]) -> tuple[Posting, ...]:
    """The postings of a guide who moved to these stores on these days."""
    postings = FIRST
    for store, day in moves:
        postings = posting.moved(postings, store, HIRED + day * DAY, HIRED + 1000 * DAY)
    return postings


def test_a_guide_is_at_the_store_of_her_last_move_from_its_first_moment() -> None:
    """And before it at the one before; before she was hired, at her first."""
    moved = after(("west", 10), ("north", 20))
    for moment, store in [
        (HIRED - DAY, "east"),
        (HIRED, "east"),
        (HIRED + 10 * DAY - MILLISECOND, "east"),
        (HIRED + 10 * DAY, "west"),
        (HIRED + 20 * DAY, "north"),
        (HIRED + 900 * DAY, "north"),
    ]:
        assert posting.store_at(moved, moment) == store


@given(st.lists(st.tuples(st.sampled_from(["east", "west", "north"]), st.integers(0, 50)), max_size=8))
def test_moves_only_append(moves: list[tuple[str, int]]) -> None:
    """What was known of the past stays; where she was last is where she is, whichever moves were refused."""
    postings = FIRST
    for store, day in moves:
        before = postings
        try:
            postings = posting.moved(postings, store, HIRED + day * DAY, HIRED + 100 * DAY)
        except Refused as error:
            wanted = "ALREADY_THERE" if store == before[-1].store_id else "MOVE_BEFORE_LAST"
            assert error.reason == wanted  # noqa: PT017 - both outcomes are right, each in its place
        else:
            assert postings[:-1] == before
    assert posting.store_at(postings, HIRED + 1000 * DAY) == postings[-1].store_id
    assert [one.from_time for one in postings] == sorted(one.from_time for one in postings)


def test_a_move_cannot_be_announced() -> None:
    """But a clock a little ahead of ours is no announcement: it counts as now."""
    now = HIRED + DAY
    assert posting.moved(FIRST, "west", now + posting.AHEAD_MOST, now)[-1].from_time == now
    with pytest.raises(Invalid, match="MOVE_IN_FUTURE"):
        posting.moved(FIRST, "west", now + posting.AHEAD_MOST + MILLISECOND, now)


def test_a_guide_moves_so_often_and_no_oftener() -> None:
    """Her document has a limit."""
    postings = FIRST
    for number in range(1, posting.POSTINGS_MAX):
        postings = posting.moved(
            postings, ("east", "west")[number % 2], HIRED + number * DAY, HIRED + 999 * DAY
        )
    with pytest.raises(Refused, match="TOO_MANY_MOVES"):
        posting.moved(postings, "north", HIRED + 998 * DAY, HIRED + 999 * DAY)


names = st.sampled_from("abcdef")


@given(st.lists(st.tuples(names, st.one_of(st.just(""), names)), max_size=25))
def test_regions_always_form_a_tree(placements: list[tuple[str, str]]) -> None:
    """From everywhere the way up ends at the top, whatever was asked for in whatever order."""
    tree: region.Tree = {}
    for name, parent in placements:
        try:
            tree = region.placed(tree, name, parent)
        except DaogouError as error:
            assert error.reason in {"REGION_CIRCLE", "REGION_UNKNOWN"}  # noqa: PT017 - refused or placed
    for name in tree:
        way, here = [name], tree[name]
        while here:
            assert here not in way
            way.append(here)
            here = tree[here]
    for name in tree:
        assert region.descendants(tree, name) == {other for other in tree if name in _way_up(tree, other)}


def _way_up(tree: region.Tree, name: str) -> list[str]:
    way = [name]
    while tree[way[-1]]:
        way.append(tree[way[-1]])
    return way


def test_a_region_is_not_put_below_itself_or_below_what_is_unknown() -> None:
    """Each refusal has its own reason; a region is below itself in what its manager sees."""
    tree = region.placed(region.placed(region.placed({}, "a", ""), "b", "a"), "c", "b")
    assert region.descendants(tree, "a") == {"a", "b", "c"}
    for name, parent in [("a", "c"), ("a", "a"), ("new", "new")]:
        with pytest.raises(Refused, match="REGION_CIRCLE"):
            region.placed(tree, name, parent)
    with pytest.raises(NotFound, match="REGION_UNKNOWN"):
        region.placed(tree, "c", "nowhere")
    with pytest.raises(NotFound, match="REGION_UNKNOWN"):
        region.descendants(tree, "nowhere")
    assert region.placed(tree, "c", "a")["c"] == "a"


def test_a_brand_has_at_most_a_thousand_regions() -> None:
    """Those that it has can still be moved."""
    tree = {str(number): "" for number in range(region.REGIONS_MAX)}
    with pytest.raises(Refused, match="TOO_MANY_REGIONS"):
        region.placed(tree, "new", "")
    assert region.placed(tree, "1", "2")["1"] == "2"


@given(st.integers(1, 6), st.integers(0, 60))
def test_by_turn_every_taker_is_offered_as_many(count: int, members: int) -> None:
    """To within one."""
    takers = [f"guide-{number}" for number in range(count)]
    offered = Counter(handover.taker_of(index, takers, Spread.TURN, {}) for index in range(members))
    assert max(offered[taker] for taker in takers) - min(offered[taker] for taker in takers) <= 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 100))
def test_by_load_the_fewest_get_the_next(have: list[int], members: int) -> None:
    """Until all have as many, and then in turn; who has most already is offered last."""
    loads = Counter({f"guide-{number}": load for number, load in enumerate(have)})
    takers = sorted(loads)
    for index in range(members):
        taker = handover.taker_of(index, takers, Spread.LOAD, loads)
        assert loads[taker] == min(loads[one] for one in takers)
        loads[taker] += 1
    assert sum(loads.values()) == sum(have) + members


def test_without_takers_nobody_is_offered_anybody() -> None:
    """That is a mistake of ours."""
    with pytest.raises(ValueError, match="no taker"):
        handover.taker_of(0, [], Spread.TURN, {})


def test_a_member_is_offered_twice_in_ninety_days_at_most() -> None:
    """He is no parcel. The ninetieth day frees him again."""
    now = HIRED + 365 * DAY
    recent, old = now - handover.OFFERS_WITHIN + MILLISECOND, now - handover.OFFERS_WITHIN
    assert handover.may_offer([], now)
    assert handover.may_offer([recent], now)
    assert not handover.may_offer([recent, recent], now)
    assert handover.may_offer([recent, old, old], now)
