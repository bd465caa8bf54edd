"""Orders, the journal and the quarantine in MongoDB.

Documents: orders `{_id: brand|hash byte|channel|order, rev, events, attribution, target, relay}`, written
by compare-and-set on `rev`; journal `{_id: order key|rev|month, postings}`. New entries are written into the
order first (`relay`) and copied to the journal after, so that one document write decides everything and no
transaction is needed; `Relay` finishes what a crash left in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import bson
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError

from chassis.mongo import failures, outbox
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index

PARKED: Final = "parked.retry_time"
"""When an order's attribution is to be tried again."""
CONFIRM_DUE: Final = "confirm_due_time"
"""When what an order earned becomes payable, until that has been done."""
STUCK_SINCE: Final = "stuck_time"
"""From when on an order is held for too long without news."""

INDEXES = (
    Index("orders", "relay", [("relay.recorded_time", 1)], {"sparse": True}),
    Index("orders", "parked", [(PARKED, 1)], {"sparse": True}),
    Index("orders", "confirm_due", [(CONFIRM_DUE, 1)], {"sparse": True}),
    Index("orders", "stuck", [(STUCK_SINCE, 1)], {"sparse": True}),
    outbox.index_of("orders"),
    Index("journal", "by_payee", [("brand_id", 1), ("postings.payee", 1), ("recorded_time", 1)]),
    Index("journal", "by_time", [("brand_id", 1), ("recorded_time", 1)]),
    Index("journal", "by_order", [("brand_id", 1), ("order_key", 1)]),
)


BYTES_MAX: Final = 15 << 20
"""Of one document. The database takes 16 MiB."""
_PARTS_OF_SMALL_ORDER: Final = 5000


def fits(order: Document) -> bool:
    """Whether the database takes the order. Measured only where there are many parts: most have a few."""
    parts = sum(len(event["lines"]) + len(event["refund_lines"]) for event in order["events"])
    if parts + len(order["target"]) < _PARTS_OF_SMALL_ORDER:
        return True
    return len(bson.encode(order)) <= BYTES_MAX


def order_key(brand_id: str, channel: str, order_id: str) -> str:
    """The primary key of an order. The hash byte spreads one brand's orders over shards."""
    spread = hashlib.sha256(f"{channel}|{order_id}".encode()).hexdigest()[:2]
    return f"{brand_id}|{spread}|{channel}|{order_id}"


class OrderStore:
    """Reads and writes orders and what follows from them."""

    def __init__(self, database: Database) -> None:
        self._orders = database["orders"]
        self._journal = database["journal"]
        self._quarantine = database["quarantine"]

    async def find_many(self, keys: Sequence[str]) -> dict[str, Document]:
        """The orders that exist, by key."""
        found = self._orders.find({"_id": {"$in": list(keys)}})
        return {order["_id"]: order async for order in found}

    async def replace_many(self, orders: Sequence[Document]) -> set[str]:
        """Writes each order whose stored `rev` is one less than its own; the keys of those that were not.

        A new order has rev 1. An order that somebody else wrote first shows as a duplicate key, because
        the replacement then tries to insert.
        """
        writes = [
            ReplaceOne({"_id": order["_id"], "rev": order["rev"] - 1}, order, upsert=True) for order in orders
        ]
        try:
            await self._orders.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            return {orders[failure["index"]]["_id"] for failure in failures.duplicates(error)}
        return set()

    async def relay(self, orders: Sequence[Document]) -> None:
        """Copies the orders' new entries to the journal and marks them as copied. Safe to repeat."""
        waiting = [order for order in orders if "relay" in order]
        entries = [entry for order in waiting for entry in order["relay"]["entries"]]
        if not waiting:
            return
        if entries:
            try:
                await self._journal.insert_many(entries, ordered=False)
            except BulkWriteError as error:
                failures.duplicates(error)
        for batch in {order["relay"]["batch"] for order in waiting}:
            keys = [order["_id"] for order in waiting if order["relay"]["batch"] == batch]
            # An order that was written again meanwhile carries another batch and keeps its mark.
            await self._orders.update_many(
                {"_id": {"$in": keys}, "relay.batch": batch}, {"$unset": {"relay": 1}}
            )

    async def unrelayed(self, recorded_before: datetime, most: int) -> list[Document]:
        """Orders whose entries have waited for the journal since before a time, oldest first."""
        query = {"relay.recorded_time": {"$lt": recorded_before}}
        return [order async for order in self._orders.find(query).sort("relay.recorded_time", 1).limit(most)]

    async def parked(self, retry_before: datetime, most: int) -> list[Document]:
        """Orders whose attribution is pending and due to be tried again, longest due first."""
        query = {PARKED: {"$lt": retry_before}}
        return [order async for order in self._orders.find(query).sort(PARKED, 1).limit(most)]

    async def confirmable(self, now: datetime, most: int) -> list[Document]:
        """Orders whose commission has been held for long enough, longest due first."""
        query = {CONFIRM_DUE: {"$lte": now}}
        return [order async for order in self._orders.find(query).sort(CONFIRM_DUE, 1).limit(most)]

    async def put_off(self, orders: Sequence[Document], due: str, retry_time: datetime) -> None:
        """Makes orders due again at a time, whatever comes of the attempt that is about to be made.

        Those that cannot be written then stand behind the others, and no other replica tries them meanwhile.
        `due`: PARKED or CONFIRM_DUE.
        """
        keys = [order["_id"] for order in orders]
        await self._orders.update_many(
            {"_id": {"$in": keys}, due: {"$exists": True}}, {"$max": {due: retry_time}}
        )

    async def stuck(self, now: datetime, most: int) -> int:
        """How many orders are held for too long without news, counted up to `most`."""
        return int(await self._orders.count_documents({STUCK_SINCE: {"$lte": now}}, limit=most))

    async def quarantine(self, documents: Sequence[Document]) -> None:
        """Keeps events whose body changed, each once."""
        try:
            await self._quarantine.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures.duplicates(error)

    async def entries_of(self, brand_id: str, key: str) -> list[Document]:
        """An order's journal entries, as recorded."""
        found = self._journal.find({"brand_id": brand_id, "order_key": key})
        entries = [entry async for entry in found]
        return sorted(entries, key=lambda entry: (entry["rev"], entry["posting_month"]))
