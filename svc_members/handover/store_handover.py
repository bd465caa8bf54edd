"""Handovers and their offers in MongoDB.

Documents: handovers `{_id: brand|handover, state OFFERING or OFFERED, lease_time}`; offers
`{_id: brand|handover|member, state}`, one for each member handled, NOT_OFFERED where he was only released.
Counts are taken from the offers when asked for: no counter can go wrong in a crash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chassis.errors import NotFound
from chassis.mongo.connection import Database, Document, aggregated
from chassis.mongo.schema import Index

NOT_OFFERED: Final = "NOT_OFFERED"
LEASE: Final = timedelta(seconds=30)

INDEXES = (
    Index("handovers", "offering", [("state", 1), ("lease_time", 1)]),
    Index("offers", "by_member", [("brand_id", 1), ("member_id", 1), ("offer_time", 1)]),
    Index("offers", "by_state", [("brand_id", 1), ("handover_id", 1), ("state", 1)]),
    Index(
        "offers",
        "open",
        [("answer_by_time", 1)],
        {"partialFilterExpression": {"state": "OFFERED"}},
    ),
)


class HandoverStore:
    """Reads and writes handovers."""

    def __init__(self, database: Database) -> None:
        self._handovers = database["handovers"]
        self._offers = database["offers"]

    async def insert(self, handover: Document) -> Document:
        """Inserts a handover; the one that stands if its id is there already."""
        try:
            await self._handovers.insert_one(handover)
        except DuplicateKeyError:
            return await self.find(handover["brand_id"], handover["handover_id"])
        return handover

    async def find(self, brand_id: str, handover_id: str) -> Document:
        """Raises: NotFound HANDOVER_UNKNOWN."""
        found = await self._handovers.find_one({"_id": f"{brand_id}|{handover_id}"})
        if found is None:
            raise NotFound("HANDOVER_UNKNOWN", "the handover does not exist in this brand")
        return found

    async def lease(self, now: datetime) -> Document | None:
        """A handover whose members are still to be offered, held for `LEASE`; None: there is none free."""
        return await self._handovers.find_one_and_update(
            {"state": "OFFERING", "lease_time": {"$lte": now}},
            {"$set": {"lease_time": now + LEASE}},
            sort=[("lease_time", 1)],
        )

    async def release(self, handover: Document, changes: Document) -> None:
        """Gives a leased handover back with what has changed of it."""
        await self._handovers.update_one({"_id": handover["_id"]}, {"$set": changes})

    async def add_offer(self, offer: Document) -> None:
        """Writes an offer unless the member has one in this handover already."""
        await self._offers.update_one({"_id": offer["_id"]}, {"$setOnInsert": offer}, upsert=True)

    async def find_offer(self, brand_id: str, handover_id: str, member_id: str) -> Document:
        """Raises: NotFound OFFER_UNKNOWN."""
        found = await self._offers.find_one({"_id": f"{brand_id}|{handover_id}|{member_id}"})
        if found is None or found["state"] == NOT_OFFERED:
            raise NotFound("OFFER_UNKNOWN", "the member was not offered in this handover")
        return found

    async def offers_to(self, brand_id: str, handover_id: str, member_ids: Sequence[str]) -> list[Document]:
        """What was offered in a handover to members of some ids."""
        ids = [f"{brand_id}|{handover_id}|{member_id}" for member_id in member_ids]
        query = {"_id": {"$in": ids}, "state": {"$ne": NOT_OFFERED}}
        return [offer async for offer in self._offers.find(query)]

    async def begin_accepting(self, offer: Document, now: datetime, *, by_member: bool) -> bool:
        """Marks an open offer as being accepted; False when it has ended.

        It is due from now on, so that the background takes it up where this is cut off.
        """
        marks = {"accepting": True, "answered_by_member": by_member}
        marked = await self._offers.update_one(
            {"_id": offer["_id"], "state": "OFFERED"}, {"$set": marks, "$min": {"answer_by_time": now}}
        )
        return bool(marked.matched_count)

    async def end_offer(
        self, offer: Document, changes: Document, *, unless_accepting: bool = False
    ) -> Document | None:
        """Ends an open offer and returns it; None when it had ended already, or is being accepted."""
        criteria: Document = {"_id": offer["_id"], "state": "OFFERED"}
        if unless_accepting:
            criteria["accepting"] = {"$ne": True}
        return await self._offers.find_one_and_update(
            criteria, {"$set": changes}, return_document=ReturnDocument.AFTER
        )

    async def overdue(self, now: datetime, size: int) -> list[Document]:
        """Up to `size` open offers whose time to answer has passed, longest ago first."""
        query = {"state": "OFFERED", "answer_by_time": {"$lte": now}}
        return [offer async for offer in self._offers.find(query).sort("answer_by_time", 1).limit(size)]

    async def earlier_offers(
        self, brand_id: str, member_ids: Sequence[str], handover_id: str, since: datetime
    ) -> Sequence[datetime]:
        """When a member, by whichever of his ids, was offered in other handovers."""
        query = {
            "brand_id": brand_id,
            "member_id": {"$in": list(member_ids)},
            "offer_time": {"$gt": since},
            "handover_id": {"$ne": handover_id},
            "state": {"$ne": NOT_OFFERED},
        }
        return [offer["offer_time"] async for offer in self._offers.find(query, {"offer_time": 1})]

    async def counts(self, brand_id: str, handover_id: str) -> Counter[str]:
        """How many members of a handover are in which state."""
        grouped = await aggregated(
            self._offers,
            [
                {"$match": {"brand_id": brand_id, "handover_id": handover_id}},
                {"$group": {"_id": "$state", "count": {"$sum": 1}}},
            ],
        )
        return Counter({group["_id"]: group["count"] for group in grouped})

    async def loads(self, brand_id: str, handover_id: str) -> Counter[str]:
        """How many members of a handover were offered to whom."""
        grouped = await aggregated(
            self._offers,
            [
                {"$match": {"brand_id": brand_id, "handover_id": handover_id, "state": {"$ne": NOT_OFFERED}}},
                {"$group": {"_id": "$taker_guide_id", "count": {"$sum": 1}}},
            ],
        )
        return Counter({group["_id"]: group["count"] for group in grouped})

    async def page(self, brand_id: str, handover_id: str, after_id: str, size: int) -> list[Document]:
        """Up to `size` offers of a handover by member id, after one."""
        prefix = f"{brand_id}|{handover_id}"
        query = {"_id": {"$gt": f"{prefix}|{after_id}", "$lt": prefix + "}"}, "state": {"$ne": NOT_OFFERED}}
        return [offer async for offer in self._offers.find(query).sort("_id", 1).limit(size)]
