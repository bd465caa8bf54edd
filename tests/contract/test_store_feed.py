"""Feeds in the database: one authority for a shop, however many register; reports that never go back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import Conflict
from chassis.mongo import schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from svc_commission.feed import store_feed
from svc_commission.feed.store_feed import FeedStore, feed_document
from svc_commission.rules import feed as rules
from svc_commission.rules.feed import Feed, Source, Tenure

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
TILLS, SHOP = Source("POS", ""), Source("TMALL", "flagship")


@pytest.fixture
async def store(database: Database) -> FeedStore:
    await schema.migrate(database, Schema(1, store_feed.INDEXES))
    return FeedStore(database)


async def registered(store: FeedStore, source: Source, feed_id: str, brand_id: str = BRAND) -> None:
    """Registers a feed as the service does: read, decide, write."""
    standing = await store.find(brand_id)
    feeds = {feed.source: feed for feed in await store.with_reports(standing)}
    feeds[source] = rules.registered(feeds, source, feed_id, NOON)
    await store.replace({**standing, "feeds": [feed_document(feed) for feed in feeds.values()]})


async def test_a_feed_read_back_is_the_feed_that_was_written(store: FeedStore) -> None:
    """Those who were before it, what it reported, and that it is retired."""
    assert await store.feeds(BRAND) == []
    feeds = [
        Feed(SHOP, "new", NOON, NOON + HOUR, NOON + 2 * HOUR, (Tenure("old", NOON - HOUR, NOON),)),
        Feed(TILLS, "till", NOON),
    ]
    documents = [feed_document(feed) for feed in feeds]
    await store.replace({**await store.find(BRAND), "feeds": documents})
    await store.report(BRAND, [SHOP], NOON + HOUR)
    assert await store.feeds(BRAND) == sorted(feeds, key=lambda feed: feed.source)
    assert await store.authorities(BRAND) == {SHOP: "new", TILLS: "till"}
    assert await store.feeds(OTHER) == []
    assert await store.authorities(OTHER) == {}


@pytest.mark.both_drivers
async def test_of_two_feeds_that_are_registered_at_once_one_must_look_again(store: FeedStore) -> None:
    """The first of a brand, and a later one: two are never authoritative for one shop."""
    for source in (TILLS, SHOP):
        rivals = [registered(store, source, f"feed-{rival}") for rival in range(2)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        [conflict] = [outcome for outcome in outcomes if outcome is not None]
        assert isinstance(conflict, Conflict)
        assert conflict.reason == "FEEDS_CHANGED"
    assert len(await store.feeds(BRAND)) == 2


async def test_a_report_never_goes_back(store: FeedStore) -> None:
    """Reports overtake each other; each counts for the shops it is about, of its own brand."""
    for brand_id in (BRAND, OTHER):
        await registered(store, TILLS, "till", brand_id)
        await registered(store, SHOP, "erp", brand_id)
    reports = [store.report(BRAND, [TILLS, SHOP], NOON + hours * HOUR) for hours in (3, 1, 5, 2)]
    await asyncio.gather(*reports)
    await store.report(BRAND, [TILLS], NOON + 9 * HOUR)
    synced = {feed.source: feed.synced_through_time for feed in await store.feeds(BRAND)}
    assert synced == {TILLS: NOON + 9 * HOUR, SHOP: NOON + 5 * HOUR}
    assert {feed.synced_through_time for feed in await store.feeds(OTHER)} == {None}


async def test_a_report_survives_a_registration_that_had_read_before_it(store: FeedStore) -> None:
    """They are written apart: neither waits for the other, and neither is lost."""
    await registered(store, SHOP, "old")
    standing = await store.find(BRAND)
    await store.report(BRAND, [SHOP], NOON + HOUR)
    feeds = {feed.source: feed for feed in await store.with_reports(standing)}
    handed_over = rules.registered(feeds, SHOP, "new", NOON + 2 * HOUR)
    await store.replace({**standing, "feeds": [feed_document(handed_over)]})
    [feed] = await store.feeds(BRAND)
    assert (feed.feed_id, feed.synced_through_time) == ("new", NOON + HOUR)


async def test_every_brand_that_has_feeds_is_looked_at(store: FeedStore) -> None:
    for brand_id in (BRAND, OTHER):
        await registered(store, SHOP, brand_id, brand_id)
    assert [[feed.feed_id for feed in feeds] async for feeds in store.brands()] == [[BRAND], [OTHER]]
