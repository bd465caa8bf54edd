"""Feeds in the database: as far as all of them have come, and never back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import Refused
from chassis.mongo import schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from svc_members.binding import store_activity
from svc_members.binding.store_activity import ActivityStore

BRAND = "a" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: Database) -> ActivityStore:
    await schema.migrate(database, Schema(1, store_activity.INDEXES))
    return ActivityStore(database)


async def test_a_brand_has_come_as_far_as_its_slowest_feed(store: ActivityStore) -> None:
    """A purchase that the slow one has not told of yet must not find its binding lapsed."""
    assert await store.synced_through(BRAND) is None
    await store.report(BRAND, "tmall", NOON + 5 * HOUR)
    assert await store.synced_through(BRAND) == NOON + 5 * HOUR
    await store.report(BRAND, "pos", NOON)
    assert await store.synced_through(BRAND) == NOON
    await store.report("b" * 16, "pos", NOON - HOUR)
    assert await store.synced_through(BRAND) == NOON


async def test_a_feed_never_goes_back(store: ActivityStore) -> None:
    """Reports overtake each other."""
    await asyncio.gather(*(store.report(BRAND, "pos", NOON + hours * HOUR) for hours in (3, 1, 5, 2)))
    assert await store.synced_through(BRAND) == NOON + 5 * HOUR


async def test_a_brand_has_at_most_a_hundred_feeds(store: ActivityStore) -> None:
    """Those that it has go on reporting."""
    for number in range(store_activity.FEEDS_MAX):
        await store.report(BRAND, f"feed-{number}", NOON)
    with pytest.raises(Refused) as refused:
        await store.report(BRAND, "one-more", NOON)
    assert refused.value.reason == "TOO_MANY_FEEDS"
    await store.report(BRAND, "feed-7", NOON + HOUR)
