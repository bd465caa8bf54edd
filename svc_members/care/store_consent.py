"""Consents in MongoDB, a record each: `{_id: brand|origin|key, member_id, origin_id, purpose, state, ...}`.

The key is made of purpose, state, version and time, so that a repeat meets what it recorded first. Records
are added and never changed; only a merge changes whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument

from chassis.clock import Clock
from chassis.mongo.connection import Database, Document, Session, aggregated
from chassis.mongo.schema import Index
from svc_members.member.store_owned import OwnedRecords

# Of one purpose the latest first; what was recorded within one millisecond, by its id.
_LATEST: Final = (("purpose", 1), ("consent_time", -1), ("recorded_time", -1), ("_id", -1))
INDEXES = (
    Index("consents", "by_purpose", [("brand_id", 1), ("member_id", 1), *_LATEST]),
    Index("consents", "by_time", [("brand_id", 1), ("member_id", 1), ("consent_time", -1), ("_id", -1)]),
)


class ConsentStore:
    """Reads and writes consents."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._consents = database["consents"]
        self._owned = OwnedRecords(database)
        self._clock = clock

    async def record(self, consent: Mapping[str, Any]) -> Document:
        """Adds a record, with the primary's time as `recorded_time`; the one that stands if it is there.

        Raises: Conflict MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """
        stands = await self._consents.find_one({"_id": consent["_id"]})
        if stands is not None:
            return stands
        added = {"$mergeObjects": [{"$literal": consent}, {"recorded_time": self._clock.database_now()}]}
        recorded = {"$cond": [{"$gt": ["$recorded_time", None]}, "$$ROOT", added]}

        async def write(started: Session) -> Document | None:
            return await self._consents.find_one_and_update(
                {"_id": consent["_id"]},
                [{"$replaceWith": recorded}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=started,
            )

        stands = await self._owned.add(
            consent["brand_id"], {consent["origin_id"]: consent["member_id"]}, write
        )
        assert stands is not None, "an upsert leaves a document"
        return stands

    async def purposes(self, brand_id: str, member_id: str) -> set[str]:
        """The purposes of which a member has said anything."""
        grouped = await aggregated(
            self._consents,
            [
                {"$match": {"brand_id": brand_id, "member_id": member_id}},
                {"$group": {"_id": "$purpose"}},
            ],
        )
        return {group["_id"] for group in grouped}

    async def latest(self, brand_id: str, member_id: str) -> list[Document]:
        """Per purpose the latest record; of two from one moment the one that was recorded later."""
        grouped = await aggregated(
            self._consents,
            [
                {"$match": {"brand_id": brand_id, "member_id": member_id}},
                {"$sort": dict(_LATEST)},
                {"$group": {"_id": "$purpose", "latest": {"$first": "$$ROOT"}}},
                {"$sort": {"_id": 1}},
            ],
        )
        return [group["latest"] for group in grouped]

    async def page(
        self, brand_id: str, member_id: str, before: tuple[datetime, str] | None, size: int
    ) -> list[Document]:
        """Up to `size` records of a member, newest first, after the one of a time and an id."""
        query: Document = {"brand_id": brand_id, "member_id": member_id}
        if before is not None:
            time, record_id = before
            query["consent_time"] = {"$lte": time}
            query["$or"] = [{"consent_time": {"$lt": time}}, {"_id": {"$lt": record_id}}]
        found = self._consents.find(query).sort([("consent_time", -1), ("_id", -1)]).limit(size)
        return [record async for record in found]
