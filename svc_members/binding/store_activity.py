"""How far each feed of activity has delivered, in MongoDB: feeds `{_id: brand|feed, synced_through_time}`."""

from __future__ import annotations

from datetime import datetime

from chassis.errors import Refused
from chassis.mongo.connection import Database
from chassis.mongo.schema import Index

INDEXES = (Index("feeds", "by_brand", [("brand_id", 1)]),)
FEEDS_MAX = 100


class ActivityStore:
    """Reads and writes feeds."""

    def __init__(self, database: Database) -> None:
        self._feeds = database["feeds"]

    async def report(self, brand_id: str, feed_id: str, synced_through_time: datetime) -> None:
        """Notes how far a feed has come; never goes back. Raises: Refused TOO_MANY_FEEDS."""
        known = {feed["_id"] async for feed in self._feeds.find({"brand_id": brand_id}, {"_id": 1})}
        feed_key = f"{brand_id}|{feed_id}"
        if feed_key not in known and len(known) >= FEEDS_MAX:
            raise Refused("TOO_MANY_FEEDS", f"a brand has at most {FEEDS_MAX} feeds")
        await self._feeds.update_one(
            {"_id": feed_key},
            {"$max": {"synced_through_time": synced_through_time}, "$set": {"brand_id": brand_id}},
            upsert=True,
        )

    async def synced_through(self, brand_id: str) -> datetime | None:
        """How far all feeds of a brand have delivered. None: no feed has reported yet."""
        found = self._feeds.find({"brand_id": brand_id}, {"synced_through_time": 1})
        return min([feed["synced_through_time"] async for feed in found], default=None)
