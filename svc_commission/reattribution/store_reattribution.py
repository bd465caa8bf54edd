"""Reattributions in MongoDB: `{_id: brand|reattribution, rev, state, orders, created, receipts}`.

Whether an order was reattributed stands in the order: nothing here changes while one is carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import bson
from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_commission.order.store_order import BYTES_MAX
from svc_commission.rules.reattribution import State

DUE: Final = "carry_out_time"
"""When an approved one is to be carried out, until that has been done."""
INDEXES = (
    Index("reattributions", "due", [(DUE, 1)], {"sparse": True}),
    Index(
        "reattributions",
        "by_time",
        [("brand_id", 1), ("propose_time", -1), ("reattribution_id", -1)],
    ),
)
_HEAD: Final = {"orders": 0, "created": 0, "receipts": 0}


def document_id(brand_id: str, reattribution_id: str) -> str:
    """The primary key: it begins with the brand, by which the collection is sharded."""
    return f"{brand_id}|{reattribution_id}"


class ReattributionStore:
    """Reads and writes reattributions."""

    def __init__(self, database: Database) -> None:
        self._reattributions = database["reattributions"]

    async def find(self, brand_id: str, reattribution_id: str) -> Document:
        """One of them. Raises: NotFound REATTRIBUTION_UNKNOWN."""
        found = await self.standing(brand_id, reattribution_id)
        if found is None:
            raise NotFound("REATTRIBUTION_UNKNOWN", "the brand has no reattribution of that id")
        return found

    async def standing(self, brand_id: str, reattribution_id: str) -> Document | None:
        """One of them, if it is there."""
        found: Document | None = await self._reattributions.find_one(
            {"_id": document_id(brand_id, reattribution_id)}
        )
        return found

    async def insert(self, proposed: Document) -> Document:
        """Inserts it unless one of its id is there; what then stands. Raises: Refused TOO_MANY_ORDERS."""
        if len(bson.encode(proposed)) > BYTES_MAX:
            raise Refused("TOO_MANY_ORDERS", "they are too large to be kept together: propose fewer")
        try:
            await self._reattributions.insert_one(proposed)
        except DuplicateKeyError:
            return await self.find(proposed["brand_id"], proposed["reattribution_id"])
        return proposed

    async def change(self, standing: Document, changes: Document) -> None:
        """Changes fields of one, if nobody else has written it. Raises: Conflict REATTRIBUTION_CHANGED."""
        guard = {"_id": standing["_id"], "rev": standing["rev"]}
        result = await self._reattributions.update_one(guard, {"$set": changes, "$inc": {"rev": 1}})
        if not result.matched_count:
            raise Conflict(
                "REATTRIBUTION_CHANGED", "the reattribution was changed meanwhile", retry_after_s=0.05
            )

    async def page(self, brand_id: str, before: tuple[datetime, str] | None, size: int) -> list[Document]:
        """Up to `size` of a brand without their orders, the last proposed first, before one."""
        query: dict[str, Any] = {"brand_id": brand_id}
        if before is not None:
            time, reattribution_id = before
            query["$or"] = [
                {"propose_time": {"$lt": time}},
                {"propose_time": time, "reattribution_id": {"$lt": reattribution_id}},
            ]
        order = [("propose_time", -1), ("reattribution_id", -1)]
        return [found async for found in self._reattributions.find(query, _HEAD).sort(order).limit(size)]

    async def due(self, now: datetime, most: int) -> list[Document]:
        """Some that are to be carried out, longest due first."""
        unneeded = {"created": 0, "receipts": 0}
        found = self._reattributions.find({DUE: {"$lte": now}}, unneeded).sort(DUE, 1).limit(most)
        return [one async for one in found]

    async def put_off(self, reattributions: Sequence[Document], time: datetime) -> None:
        """Makes them due again at a time, whatever comes of the attempt that is about to be made."""
        ids = [one["_id"] for one in reattributions]
        await self._reattributions.update_many(
            {"_id": {"$in": ids}, DUE: {"$exists": True}}, {"$max": {DUE: time}}
        )

    async def done(self, reattribution: Document, now: datetime) -> None:
        """Notes that one has been carried out. Safe to repeat."""
        await self._reattributions.update_one(
            {"_id": reattribution["_id"], "state": State.APPROVED},
            {"$set": {"state": State.DONE, "done_time": now}, "$unset": {DUE: ""}, "$inc": {"rev": 1}},
        )
