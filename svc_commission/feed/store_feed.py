"""A brand's feeds in MongoDB, and how far they have come.

One document `{_id: brand, rev, feeds, receipts}` in `feeds`, written by compare-and-set, so that two feeds
cannot both become authoritative unseen. What feeds report every few seconds stands beside it, a document per
source in `feed_reports`: `{_id: brand|channel|shop, synced_through_time}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import asdict
from datetime import datetime

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_commission.rules.feed import Feed, Source, Tenure

INDEXES = (Index("feed_reports", "by_brand", [("brand_id", 1)]),)


def feed_document(feed: Feed) -> Document:
    """A feed for storage, without what it has reported."""
    document = asdict(feed)
    del document["source"], document["synced_through_time"]
    return {**feed.source._asdict(), **document}


def feed_of(document: Document, synced_through_time: datetime | None = None) -> Feed:
    """A stored feed for the rules."""
    return Feed(
        source=Source(document["channel"], document["shop_id"]),
        feed_id=document["feed_id"],
        from_time=document["from_time"],
        synced_through_time=synced_through_time,
        retire_time=document["retire_time"],
        former=tuple(Tenure(**one) for one in document["former"]),
    )


class FeedStore:
    """Reads and writes feeds."""

    def __init__(self, database: Database) -> None:
        self._feeds = database["feeds"]
        self._reports = database["feed_reports"]

    async def find(self, brand_id: str) -> Document:
        """The brand's document; a new one, not written yet, where there is none."""
        found = await self._feeds.find_one({"_id": brand_id})
        return found or {"_id": brand_id, "rev": 0, "feeds": [], "receipts": []}

    async def replace(self, document: Document) -> None:
        """Writes the next state. Raises: Conflict FEEDS_CHANGED when somebody else has written."""
        guard = {"_id": document["_id"], "rev": document["rev"]}
        written = {**document, "rev": document["rev"] + 1}
        try:
            await self._feeds.replace_one(guard, written, upsert=True)
        except DuplicateKeyError:
            raise Conflict(
                "FEEDS_CHANGED", "the brand's feeds were changed meanwhile", retry_after_s=0.05
            ) from None

    async def feeds(self, brand_id: str) -> list[Feed]:
        """All feeds of a brand, by source."""
        return await self.with_reports(await self.find(brand_id))

    async def with_reports(self, document: Document) -> list[Feed]:
        """The feeds of a brand's document, with how far they have come, by source."""
        found = self._reports.find({"brand_id": document["_id"]})
        synced = {report["_id"]: report["synced_through_time"] async for report in found}
        feeds = [
            feed_of(one, synced.get(_report_key(document["_id"], one["channel"], one["shop_id"])))
            for one in document["feeds"]
        ]
        return sorted(feeds, key=lambda feed: feed.source)

    async def authorities(self, brand_id: str) -> Mapping[Source, str]:
        """The authoritative feed of each source that has one."""
        document = await self._feeds.find_one(
            {"_id": brand_id}, {"feeds.channel": 1, "feeds.shop_id": 1, "feeds.feed_id": 1}
        )
        stored = document["feeds"] if document else []
        return {Source(one["channel"], one["shop_id"]): one["feed_id"] for one in stored}

    async def report(self, brand_id: str, sources: Collection[Source], synced_through_time: datetime) -> None:
        """Notes how far the events of some sources have come; never goes back."""
        update = {"$max": {"synced_through_time": synced_through_time}, "$set": {"brand_id": brand_id}}
        writes = [UpdateOne({"_id": _report_key(brand_id, *one)}, update, upsert=True) for one in sources]
        await self._reports.bulk_write(writes, ordered=False)

    async def brands(self) -> AsyncIterator[list[Feed]]:
        """The feeds of every brand that has some, brand by brand."""
        async for document in self._feeds.find({}, {"receipts": 0}):
            yield await self.with_reports(document)


def _report_key(brand_id: str, channel: str, shop_id: str) -> str:
    return f"{brand_id}|{channel}|{shop_id}"
