"""Orders, the journal and the quarantine in MongoDB.

Documents: orders `{_id: brand|hash byte|channel|order, rev, events, attribution, target, relay}`, written
by compare-and-set on `rev`; journal `{_id: order key|rev|month, postings}`; sales `{_id: order key|rev|n,
date, stores, guides, sold_minor, ...}`. New entries and sales are written into the order first (`relay`) and
copied to journal and sales after, so that one document write decides everything and no transaction is needed;
`Relay` finishes what a crash left in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import bson
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError

from chassis import crash
from chassis.mongo import failures, outbox
from chassis.mongo.connection import Collection, Database, Document
from chassis.mongo.schema import Index
from svc_commission.order.identities import IDENTITY_DUE

PARKED: Final = "parked.retry_time"
"""When an order's attribution is to be tried again."""
CONFIRM_TIME: Final = "confirm_time"
"""When what an order earned becomes payable, until that has been done."""
CONFIRM_DUE: Final = "confirm_due_time"
"""When it is to be tried."""
STUCK_SINCE: Final = "stuck_time"
"""From when on an order is held for too long without news."""

INDEXES = (
    Index("orders", "relay", [("relay.recorded_time", 1)], {"sparse": True}),
    Index("orders", "parked", [(PARKED, 1)], {"sparse": True}),
    Index(
        "orders",
        "to_confirm",
        [("brand_id", 1), (CONFIRM_TIME, 1)],
        {"partialFilterExpression": {CONFIRM_TIME: {"$exists": True}}},
    ),
    Index("orders", "confirm_due", [(CONFIRM_DUE, 1)], {"sparse": True}),
    Index("orders", "stuck", [(STUCK_SINCE, 1)], {"sparse": True}),
    Index("orders", "identity_due", [(IDENTITY_DUE, 1)], {"sparse": True}),
    Index(
        "orders",
        "by_member",
        [("brand_id", 1), ("attribution.member_id", 1), ("placed_time", 1)],
        {"partialFilterExpression": {"attribution.member_id": {"$gt": ""}}},
    ),
    outbox.index_of("orders"),
    Index("quarantine", "identity_due", [(IDENTITY_DUE, 1)], {"sparse": True}),
    Index(
        "journal",
        "of_payee",
        [("brand_id", 1), ("postings.payee", 1), ("recorded_time", 1), ("_id", 1)],
    ),
    Index("journal", "by_time", [("brand_id", 1), ("recorded_time", 1)]),
    Index("journal", "by_order", [("brand_id", 1), ("order_key", 1)]),
)


BYTES_MAX: Final = 15 << 20
"""Of one document. The database takes 16 MiB."""
_PARTS_OF_SMALL_ORDER: Final = 5000

_JOURNALLED = crash.point("entries_journalled")
_COUNTED = crash.point("sales_counted")


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
        self._sales = database["sales"]
        self._quarantine = database["quarantine"]

    async def find_many(self, keys: Sequence[str]) -> dict[str, Document]:
        """The orders that exist, by key."""
        # Room for one more than there are: a batch that comes back full makes the driver ask for another.
        found = self._orders.find({"_id": {"$in": list(keys)}}, batch_size=len(keys) + 1)
        return {order["_id"]: order for order in await found.to_list(None)}

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
        """Copies the orders' new entries to the journal, and their new credits to the sales; then marks them.

        Safe to repeat.
        """
        waiting = [order for order in orders if "relay" in order]
        if not waiting:
            return
        await _copied(self._journal, [entry for order in waiting for entry in order["relay"]["entries"]])
        _JOURNALLED.reached()
        # What an earlier version left half-way has no credits yet: they come with the order's next write.
        await _copied(self._sales, [one for order in waiting for one in order["relay"].get("credits", ())])
        _COUNTED.reached()
        for batch in dict.fromkeys(order["relay"]["batch"] for order in waiting):
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

    async def unrelayed_of(self, brand_id: str, most: int) -> list[Document]:
        """Orders of a brand that hold something for the journal."""
        query = {"brand_id": brand_id, "relay.recorded_time": {"$exists": True}}
        return await self._orders.find(query).limit(most).to_list(None)

    async def confirmable_of(self, brand_id: str, through: datetime, after: str, most: int) -> list[Document]:
        """Orders of a brand to be confirmed by a time, by key after one, whoever else is at them."""
        query = {"brand_id": brand_id, CONFIRM_TIME: {"$lte": through}, "_id": {"$gt": after}}
        return await self._orders.find(query).sort("_id", 1).limit(most).to_list(None)

    async def confirmable_count(self, brand_id: str, through: datetime) -> int:
        """How many there are."""
        return int(
            await self._orders.count_documents({"brand_id": brand_id, CONFIRM_TIME: {"$lte": through}})
        )

    async def parked_of(self, brand_id: str, most: int) -> tuple[int, list[Document]]:
        """How many orders of a brand wait for their attribution, and some of them."""
        query = {"brand_id": brand_id, PARKED: {"$exists": True}}
        some = await self._orders.find(query).sort(PARKED, 1).limit(most).to_list(None)
        return int(await self._orders.count_documents(query)), some

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

    async def of_member(
        self, brand_id: str, member_id: str, placed_from: datetime, placed_to: datetime, most: int
    ) -> list[Document]:
        """Some orders of [from, to) that were attributed to a member, by when they were placed."""
        query = {
            "brand_id": brand_id,
            "attribution.member_id": member_id,
            "placed_time": {"$gte": placed_from, "$lt": placed_to},
        }
        found = self._orders.find(query).sort([("placed_time", 1), ("_id", 1)]).limit(most)
        return [order async for order in found]

    async def first_paid(self, brand_id: str, member_id: str) -> Document | None:
        """The least of a member's paid orders; None: there is none."""
        query = {"brand_id": brand_id, "attribution.member_id": member_id, "events.kind": "PAID"}
        least = [("placed_time", 1), ("channel", 1), ("order_id", 1)]
        found: Document | None = await self._orders.find_one(query, sort=least)
        return found

    async def drop_identities(self, now: datetime, most: int) -> bool:
        """Drops some of the identities that are due. Whether there may be more."""
        due: Document = {IDENTITY_DUE: {"$lte": now}}
        orders = await self._orders.find(due, {"_id": 1}).limit(most).to_list(None)
        await self._orders.update_many(
            {"_id": {"$in": [order["_id"] for order in orders]}, **due},
            # Whoever has read the order must not write it back with what is dropped here.
            {"$set": {"events.$[one].buyer": {}}, "$unset": {IDENTITY_DUE: ""}, "$inc": {"rev": 1}},
            array_filters=[{"one.buyer.identity": {"$exists": True}}],
        )
        events = await self._quarantine.find(due, {"_id": 1}).limit(most).to_list(None)
        await self._quarantine.update_many(
            {"_id": {"$in": [event["_id"] for event in events]}},
            {"$unset": {IDENTITY_DUE: "", "identity": ""}},
        )
        return most in (len(orders), len(events))

    async def quarantine(self, documents: Sequence[Document]) -> None:
        """Keeps events whose body changed, each once."""
        await _copied(self._quarantine, documents)

    async def entries_of(self, brand_id: str, key: str) -> list[Document]:
        """An order's journal entries, as recorded."""
        found = self._journal.find({"brand_id": brand_id, "order_key": key})
        entries = [entry async for entry in found]
        return sorted(entries, key=lambda entry: (entry["rev"], entry["posting_month"]))

    async def credits_of(self, key: str, rev: int) -> list[Document]:
        """What was told of whom an order is counted for, up to one of its revisions."""
        found = self._sales.find({"_id": {"$gte": f"{key}|", "$lt": f"{key}}}"}})
        return [one async for one in found if int(one["_id"].split("|")[-2]) <= rev]


async def _copied(collection: Collection, documents: Sequence[Document]) -> None:
    """Writes those of the documents that are not there yet."""
    if not documents:
        return
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failures.duplicates(error)
