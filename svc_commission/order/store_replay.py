"""Orders and entries read page by page, to be looked at again: all of a brand, or those of a period.

Each page is a query of its own, so that a reader may take his time, and each order is read once, as it stands
when its page is read: what the pages are sorted by never changes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final

from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index

INDEXES = (Index("orders", "by_placed", [("brand_id", 1), ("placed_time", 1), ("_id", 1)]),)

PAGE_ORDERS: Final = 100
_PAGE_PARTS: Final = 20_000
"""Lines of events, after which a page ends: an order may have as many as fit into 15 MB."""
_NOT_REPLAYED: Final = {"relay": 0, "target": 0, "outbox": 0, "events.buyer": 0, "events.body_hash": 0}


class ReplayStore:
    """Reads orders and entries again."""

    def __init__(self, database: Database) -> None:
        self._orders = database["orders"]
        self._journal = database["journal"]

    async def placed(
        self, brand_id: str, from_time: datetime, to_time: datetime
    ) -> AsyncGenerator[list[Document], None]:
        """The orders placed in [from_time, to_time), the earliest first, but for what buyers are known by."""
        query: Document = {"brand_id": brand_id, "placed_time": {"$gte": from_time, "$lt": to_time}}
        while True:
            found = self._orders.find(query, _NOT_REPLAYED).sort([("placed_time", 1), ("_id", 1)])
            page = await _page(found.limit(PAGE_ORDERS))
            if not page:
                return
            yield page
            last = page[-1]
            query["placed_time"] = {"$gte": last["placed_time"], "$lt": to_time}
            query["$or"] = [{"placed_time": {"$gt": last["placed_time"]}}, {"_id": {"$gt": last["_id"]}}]

    async def placed_count(self, brand_id: str, from_time: datetime, to_time: datetime) -> int:
        """How many were placed in [from_time, to_time)."""
        query = {"brand_id": brand_id, "placed_time": {"$gte": from_time, "$lt": to_time}}
        return int(await self._orders.count_documents(query))

    async def of_brand(self, brand_id: str) -> AsyncGenerator[tuple[list[Document], list[Document]], None]:
        """All orders of a brand, by key, and with each page the entries up to the key of its last.

        The last page has no orders, and the entries of all keys beyond. There may be entries of no order.
        """
        after, end = f"{brand_id}|", f"{brand_id}~"
        # Entries whose key is no key of the brand's orders must not stay unseen.
        keys: Document = {"$gt": ""}
        while True:
            found = self._orders.find({"_id": {"$gt": after, "$lt": end}}).sort("_id", 1)
            page = await _page(found.limit(PAGE_ORDERS))
            if page:
                after = keys["$lte"] = page[-1]["_id"]
            query = {"brand_id": brand_id, "order_key": keys}
            yield page, [entry async for entry in self._journal.find(query)]
            if not page:
                return
            keys = {"$gt": after}

    async def count_of_brand(self, brand_id: str) -> int:
        """How many orders a brand has."""
        query = {"_id": {"$gt": f"{brand_id}|", "$lt": f"{brand_id}~"}}
        return int(await self._orders.count_documents(query))


async def _page(found: Any) -> list[Document]:
    """As many of the orders found as are to be held at once."""
    page, parts = [], 0
    async for order in found:
        page.append(order)
        parts += parts_of(order)
        if parts > _PAGE_PARTS:
            break
    await found.close()
    return page


def parts_of(order: Document) -> int:
    """How much there is to compute of an order: its events' lines."""
    return sum(1 + len(event["lines"]) + len(event["refund_lines"]) for event in order["events"])
