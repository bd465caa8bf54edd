"""Adjustments in MongoDB: `{_id: brand|adjustment, rev, state, payee, amount_minor, receipts, post_time}`.

`post_time` stands there from the approval until the journal has the entry: when to try it (again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict, NotFound
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index

INDEXES = (
    Index("adjustments", "by_time", [("brand_id", 1), ("propose_time", -1), ("_id", -1)]),
    Index("adjustments", "by_state", [("brand_id", 1), ("state", 1), ("propose_time", -1), ("_id", -1)]),
    Index("adjustments", "to_post", [("post_time", 1)], {"sparse": True}),
)


class AdjustmentStore:
    """Reads and writes adjustments."""

    def __init__(self, database: Database) -> None:
        self._adjustments = database["adjustments"]

    async def insert(self, adjustment: Document) -> Document:
        """Writes a new adjustment; the one that stands if its id is there already."""
        try:
            await self._adjustments.insert_one(adjustment)
        except DuplicateKeyError:
            return await self.find(adjustment["brand_id"], adjustment["adjustment_id"])
        return adjustment

    async def find(self, brand_id: str, adjustment_id: str) -> Document:
        """Raises: NotFound ADJUSTMENT_UNKNOWN."""
        found = await self._adjustments.find_one({"_id": f"{brand_id}|{adjustment_id}"})
        if found is None:
            raise NotFound("ADJUSTMENT_UNKNOWN", "the brand has no adjustment of this id")
        return found

    async def standing(self, brand_id: str, adjustment_id: str) -> Document | None:
        """An adjustment, or None."""
        return await self._adjustments.find_one({"_id": f"{brand_id}|{adjustment_id}"})

    async def change(self, adjustment: Document, values: Mapping[str, Any]) -> None:
        """Writes fields of one. Raises: Conflict ADJUSTMENT_CHANGED when somebody else has written it."""
        written = await self._adjustments.update_one(
            {"_id": adjustment["_id"], "rev": adjustment["rev"]}, {"$set": dict(values), "$inc": {"rev": 1}}
        )
        if not written.matched_count:
            raise Conflict("ADJUSTMENT_CHANGED", "the adjustment was changed meanwhile", retry_after_s=0.05)

    async def to_post(self, now: datetime, most: int) -> list[Document]:
        """Some that are approved and not in the journal as far as anybody knows, longest due first."""
        found = self._adjustments.find({"post_time": {"$lte": now}}).sort("post_time", 1).limit(most)
        return [adjustment async for adjustment in found]

    async def put_off(self, adjustments: Sequence[Document], until: datetime) -> None:
        """Makes them due again later, whatever comes of the attempt that is about to be made."""
        ids = [adjustment["_id"] for adjustment in adjustments]
        query = {"_id": {"$in": ids}, "post_time": {"$exists": True}}
        await self._adjustments.update_many(query, {"$max": {"post_time": until}})

    async def posted(self, adjustments: Sequence[Document]) -> None:
        """Notes that the journal has their entries."""
        ids = [adjustment["_id"] for adjustment in adjustments]
        await self._adjustments.update_many({"_id": {"$in": ids}}, {"$unset": {"post_time": 1}})

    async def page(
        self, brand_id: str, state: str, after: tuple[datetime, str] | None, size: int
    ) -> list[Document]:
        """Up to `size` adjustments, the last proposed first, then by id. `state`: empty for any."""
        query: Document = {"brand_id": brand_id}
        if state:
            query["state"] = state
        if after is not None:
            time, key = after
            query["propose_time"] = {"$lte": time}
            query["$or"] = [{"propose_time": {"$lt": time}}, {"_id": {"$lt": key}}]
        found = self._adjustments.find(query).sort([("propose_time", -1), ("_id", -1)]).limit(size)
        return [adjustment async for adjustment in found]
