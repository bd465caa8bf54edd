"""How far the feeds are behind, for whoever is on duty: a month cannot close before the last has come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Gauge

from chassis.clock import Now
from svc_commission.feed.store_feed import FeedStore
from svc_commission.rules.feed import furthest_behind

EVERY: Final = timedelta(seconds=30)
"""All feeds of all brands are read for it."""

BEHIND = Gauge(
    "daogou_commission_feed_behind_seconds",
    "How long ago the feed that is furthest behind, of all brands, had delivered everything.",
)


class Lag:
    """Measures it now and then."""

    def __init__(self, feeds: FeedStore, now: Now) -> None:
        self._feeds = feeds
        self._now = now
        self._due_time: datetime | None = None

    async def round(self) -> bool:
        """Looks at all feeds, where it was not done a moment ago."""
        now = self._now()
        if self._due_time is None or now >= self._due_time:
            behind = [furthest_behind(feeds, now) async for feeds in self._feeds.brands()]
            BEHIND.set(max(behind, default=timedelta(0)).total_seconds())
            self._due_time = now + EVERY
        return False
