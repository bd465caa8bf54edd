"""Whose events count, and which feeds a month waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_commission.rules import feed as rules
from svc_commission.rules.feed import Feed, Source, Tenure

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH_END = datetime(2026, 3, 31, 16, tzinfo=UTC)
TILLS, SHOP, OTHER = Source("POS", ""), Source("TMALL", "flagship"), Source("TMALL", "outlet")


def test_a_shop_without_a_feed_takes_events_from_anybody() -> None:
    """A brand begins without; the first registration shuts the others out."""
    assert rules.refused({}, [TILLS, SHOP], "") == frozenset()
    assert rules.refused({}, [TILLS, SHOP], "erp") == frozenset()
    assert rules.refused({SHOP: "erp"}, [TILLS, SHOP], "") == {SHOP}
    assert rules.refused({SHOP: "erp"}, [TILLS, SHOP, OTHER], "till") == {SHOP}
    assert rules.refused({SHOP: "erp"}, [TILLS, SHOP], "erp") == frozenset()


def test_a_feed_counts_for_its_own_shop_alone() -> None:
    """That of the orders which name no shop is none for those that do, and the other way round."""
    authorities = {TILLS: "till", Source("POS", "kiosk"): "kiosk"}
    assert rules.refused(authorities, list(authorities), "till") == {Source("POS", "kiosk")}
    assert rules.refused({TILLS: "till"}, [Source("POS", "kiosk")], "anybody") == frozenset()


def test_a_handover_tells_who_was_authoritative_when() -> None:
    """Without a gap and without an overlap; what was delivered stays delivered."""
    first = rules.registered({}, SHOP, "old", NOON)
    assert first == Feed(SHOP, "old", NOON)
    reported = Feed(SHOP, "old", NOON, synced_through_time=NOON + DAY)
    second = rules.registered({SHOP: reported}, SHOP, "new", NOON + 2 * DAY)
    assert second.synced_through_time == NOON + DAY
    third = rules.registered({SHOP: second}, SHOP, "old", NOON + 3 * DAY)
    assert third.former == (
        Tenure("old", NOON, NOON + 2 * DAY),
        Tenure("new", NOON + 2 * DAY, NOON + 3 * DAY),
    )
    assert (third.feed_id, third.from_time) == ("old", NOON + 3 * DAY)


def test_registering_the_authoritative_feed_again_only_brings_it_back() -> None:
    standing = Feed(SHOP, "erp", NOON, NOON + DAY)
    assert rules.registered({SHOP: standing}, SHOP, "erp", NOON + 5 * DAY) == standing
    retired = rules.retired({SHOP: standing}, SHOP, "erp", NOON + 2 * DAY)
    assert retired.retire_time == NOON + 2 * DAY
    assert rules.retired({SHOP: retired}, SHOP, "erp", NOON + 3 * DAY) == retired
    assert rules.registered({SHOP: retired}, SHOP, "erp", NOON + 5 * DAY) == standing
    assert rules.registered({SHOP: retired}, SHOP, "new", NOON + 5 * DAY).retire_time is None


def test_only_the_authoritative_feed_can_be_retired() -> None:
    """Somebody else may have taken over since it was looked at."""
    for feeds in ({}, {SHOP: Feed(SHOP, "new", NOON)}, {OTHER: Feed(OTHER, "erp", NOON)}):
        with pytest.raises(Refused) as refused:
            rules.retired(feeds, SHOP, "erp", NOON)
        assert refused.value.reason == "NOT_AUTHORITATIVE_FEED"


def test_a_brand_has_at_most_a_thousand_feeds_and_a_shop_a_hundred_handovers() -> None:
    most = {Source("POS", str(number)): Feed(SHOP, "f", NOON) for number in range(rules.SOURCES_MAX)}
    with pytest.raises(Refused) as refused:
        rules.registered(most, SHOP, "erp", NOON)
    assert refused.value.reason == "TOO_MANY_FEEDS"
    assert rules.registered(most, Source("POS", "7"), "other", NOON).feed_id == "other"
    feeds = {SHOP: Feed(SHOP, "feed-0", NOON)}
    for number in range(1, rules.HANDOVERS_MAX + 1):
        feeds[SHOP] = rules.registered(feeds, SHOP, f"feed-{number}", NOON)
    with pytest.raises(Refused) as refused:
        rules.registered(feeds, SHOP, "one-more", NOON)
    assert refused.value.reason == "TOO_MANY_HANDOVERS"


def test_a_month_waits_for_every_feed_that_has_not_passed_its_end() -> None:
    """To the millisecond; for one that has never reported too, and for none that is retired."""
    moment = timedelta(milliseconds=1)
    passed = Feed(TILLS, "till", NOON, MONTH_END)
    short = Feed(SHOP, "erp", NOON, MONTH_END - moment)
    silent = Feed(OTHER, "erp", MONTH_END + DAY)
    assert rules.feeds_behind([silent, passed, short], MONTH_END) == [short, silent]
    closed = Feed(SHOP, "erp", NOON, NOON, retire_time=MONTH_END + DAY)
    assert rules.feeds_behind([passed, closed], MONTH_END) == []
    assert rules.feeds_behind([], MONTH_END) == []


@given(
    st.lists(
        st.tuples(st.none() | st.integers(-5, 5), st.booleans()),
        max_size=6,
    ),
    st.integers(-5, 5),
)
def test_the_further_a_month_reaches_the_more_it_waits_for(
    reported: list[tuple[int | None, bool]], days: int
) -> None:
    """What holds up a month holds up every later one."""
    feeds = [
        Feed(
            Source("POS", str(number)),
            "till",
            NOON,
            None if synced is None else NOON + synced * DAY,
            NOON if retired else None,
        )
        for number, (synced, retired) in enumerate(reported)
    ]
    end = NOON + days * DAY
    assert set(rules.feeds_behind(feeds, end)) <= set(rules.feeds_behind(feeds, end + DAY))


def test_the_feed_furthest_behind_is_the_one_that_is_told_of() -> None:
    """One that has never reported is behind since it should; a retired one never."""
    now = NOON + 10 * DAY
    feeds = [Feed(TILLS, "till", NOON, now - DAY), Feed(SHOP, "erp", now - 2 * DAY)]
    assert rules.furthest_behind(feeds, now) == 2 * DAY
    feeds.append(Feed(OTHER, "erp", NOON, retire_time=NOON))
    assert rules.furthest_behind(feeds, now) == 2 * DAY
    assert rules.furthest_behind([], now) == timedelta(0)
    assert rules.furthest_behind([Feed(TILLS, "till", now + DAY)], now) == timedelta(0)
