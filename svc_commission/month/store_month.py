"""Which month of a brand is open, and how each was closed, in MongoDB.

Documents: months `{_id: brand, first_open, closing: {month, holder, until_time}}`; closes `{_id: brand|month,
state, ...}`, the record of each close. Months are texts, 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chassis.errors import Conflict
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from chassis.times import EPOCH
from svc_commission.order.documents import month_of, month_text
from svc_commission.rules.month import next_month

CLOSING: Final = "CLOSING"
CLOSED: Final = "CLOSED"
MONTHS_MOST: Final = 120
"""Closed months that are looked back on: ten years."""
_READ_MS_MAX: Final = 5000

INDEXES = (
    Index("months", "closing", [("closing.until_time", 1)], {"sparse": True}),
    Index("closes", "by_brand", [("brand_id", 1), ("month", -1)]),
)


class MonthStore:
    """Reads and writes which month is open."""

    def __init__(self, database: Database) -> None:
        self._months = database["months"]
        self._closes = database["closes"]
        # Who answers is the primary still: a read of one that was deposed would start a lease too late.
        self._now = self._months.with_options(read_concern=ReadConcern("linearizable"))

    async def first_open(self, brand_id: str) -> date | None:
        """The first month of a brand that is open, as it is now; None: none was closed."""
        found = await self._now.find_one({"_id": brand_id}, max_time_ms=_READ_MS_MAX)
        return month_of(found["first_open"]) if found else None

    async def closing(self, brand_id: str) -> str:
        """The month of a brand that is being closed; empty: none is."""
        found = await self._months.find_one({"_id": brand_id})
        return str(found["closing"]["month"]) if found and "closing" in found else ""

    async def begin(self, brand_id: str, month: date, record: Mapping[str, Any]) -> None:
        """Records that the first open month is being closed; the next is open from now on.

        Safe to repeat. Raises: Conflict MONTH_CHANGED when somebody else closes, or has closed.
        """
        text, after = month_text(month), month_text(next_month(month))
        found = await self._months.find_one({"_id": brand_id})
        if not found or "closing" not in found:
            key = {"_id": f"{brand_id}|{text}"}
            fields = {"brand_id": brand_id, "month": text, "state": CLOSING, **record}
            await self._closes.update_one(key, {"$setOnInsert": fields}, upsert=True)
            guard = {"_id": brand_id, "first_open": text if found else {"$exists": False}}
            closing = {"closing": {"month": text, "holder": "", "until_time": EPOCH}}
            try:
                await self._months.update_one(
                    {**guard, "closing": {"$exists": False}},
                    {"$set": {"first_open": after, **closing}},
                    upsert=True,
                )
            except DuplicateKeyError:
                raise Conflict("MONTH_CHANGED", "the month was closed meanwhile") from None
        elif found["closing"]["month"] != text:
            raise Conflict("MONTH_CHANGED", f"{found['closing']['month']} is being closed")

    async def claim(self, brand_id: str, month: date, holder: str, lease_s: float) -> bool:
        """Takes the close of a month over, or keeps it, for so long by the primary's clock.

        False: another holds it, or it is closed.
        """
        free = {"$lt": ["$closing.until_time", "$$NOW"]}
        mine = {"$eq": ["$closing.holder", holder]}
        until = {"$add": ["$$NOW", int(lease_s * 1000)]}
        claimed = await self._months.find_one_and_update(
            {"_id": brand_id, "closing.month": month_text(month), "$expr": {"$or": [mine, free]}},
            [{"$set": {"closing.holder": {"$literal": holder}, "closing.until_time": until}}],
            return_document=ReturnDocument.AFTER,
        )
        return claimed is not None

    async def abandoned(self) -> list[tuple[str, date]]:
        """The closes, brand and month, that nobody goes on with."""
        pipeline = {"$expr": {"$lt": ["$closing.until_time", "$$NOW"]}, "closing": {"$exists": True}}
        found = await self._months.find(pipeline).to_list(None)
        return [(one["_id"], month_of(one["closing"]["month"])) for one in found]

    async def finish(self, brand_id: str, month: date, report: Mapping[str, Any]) -> None:
        """Records that a month is closed. Safe to repeat."""
        text = month_text(month)
        await self._closes.update_one(
            {"_id": f"{brand_id}|{text}", "state": CLOSING}, {"$set": {**report, "state": CLOSED}}
        )
        await self._months.update_one({"_id": brand_id, "closing.month": text}, {"$unset": {"closing": 1}})

    async def close_of(self, brand_id: str, month: date) -> Document | None:
        """The record of a month's close; None: none was begun."""
        return await self._closes.find_one({"_id": f"{brand_id}|{month_text(month)}"})

    async def note(self, brand_id: str, month: date, fields: Mapping[str, Any]) -> None:
        """Adds to the record of a close."""
        await self._closes.update_one({"_id": f"{brand_id}|{month_text(month)}"}, {"$set": dict(fields)})

    async def closes(self, brand_id: str, most: int) -> list[Document]:
        """The records of closes, latest month first."""
        return await self._closes.find({"brand_id": brand_id}).sort("month", -1).limit(most).to_list(None)
