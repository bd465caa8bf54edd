"""Which order is a member's first, in MongoDB: `{_id: brand|member, first, displaced}`.

`first` is the least of his paid orders: `{placed_time, channel, order_id, order_key}`, compared in that
order. One that becomes known later and is less takes its place in one write, which also notes the key of the
order that it `displaced`, and when (`displaced_time`): that one's books are to be made anew, at `retry_time`
or later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pymongo import UpdateOne

from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index

INDEXES = (Index("first_purchases", "displaced", [("retry_time", 1)], {"sparse": True}),)


class FirstPurchaseStore:
    """Reads and writes which order is first."""

    def __init__(self, database: Database) -> None:
        self._firsts = database["first_purchases"]

    async def note(
        self, brand_id: str, paid: Mapping[str, Sequence[Document]], now: datetime
    ) -> dict[str, str]:
        """Notes paid orders by member; the key of each member's first order after it. Safe to repeat."""
        writes = [
            UpdateOne({"_id": f"{brand_id}|{member_id}"}, _noted(_least(orders), now), upsert=True)
            for member_id, orders in paid.items()
        ]
        if not writes:
            return {}
        await self._firsts.bulk_write(writes, ordered=False)
        ids = [f"{brand_id}|{member_id}" for member_id in paid]
        found = await self._firsts.find({"_id": {"$in": ids}}, {"first.order_key": 1}).to_list(None)
        prefix = len(brand_id) + 1
        return {first["_id"][prefix:]: first["first"]["order_key"] for first in found}

    async def displaced(self, now: datetime, most: int) -> list[Document]:
        """Some records that name displaced orders, longest due first."""
        due = self._firsts.find({"retry_time": {"$lte": now}}).sort("retry_time", 1).limit(most)
        return [record async for record in due]

    async def put_off(self, records: Sequence[Document], now: datetime, least: timedelta) -> None:
        """Makes records due again later, whatever comes of the attempt that is about to be made.

        The longer an order has been displaced, the longer: one that is not there may never be.
        """
        wait = {"$max": [{"$subtract": [now, "$displaced_time"]}, least // timedelta(milliseconds=1)]}
        ids = [record["_id"] for record in records]
        await self._firsts.update_many(
            {"_id": {"$in": ids}, "retry_time": {"$exists": True}},
            [{"$set": {"retry_time": {"$add": [now, wait]}}}],
        )

    async def settled(self, made_anew: Mapping[str, Sequence[str]]) -> None:
        """Forgets displaced orders, by the id of their record, whose books have been made anew."""
        writes = [UpdateOne({"_id": record_id}, _without(keys)) for record_id, keys in made_anew.items()]
        if writes:
            await self._firsts.bulk_write(writes, ordered=False)


def _least(orders: Sequence[Document]) -> Document:
    least = min(orders, key=lambda order: (order["placed_time"], order["channel"], order["order_id"]))
    return {
        "placed_time": least["placed_time"],
        "channel": least["channel"],
        "order_id": least["order_id"],
        "order_key": least["_id"],
    }


def _noted(candidate: Document, now: datetime) -> list[Document]:
    """The update that puts a candidate in the first's place where it is less. Documents compare by field."""
    literal = {"$literal": candidate}
    none = {"$eq": [{"$type": "$first"}, "missing"]}
    less = {"$lt": [literal, "$first"]}
    displaces = {"$and": [{"$not": [none]}, less]}
    noted = {"$concatArrays": [{"$ifNull": ["$displaced", []]}, ["$first.order_key"]]}
    return [
        {
            "$set": {
                "first": {"$cond": [{"$or": [none, less]}, literal, "$first"]},
                "displaced": {"$cond": [displaces, noted, "$displaced"]},
                "displaced_time": {"$cond": [displaces, now, "$displaced_time"]},
                "retry_time": {"$cond": [displaces, now, "$retry_time"]},
            }
        }
    ]


def _without(order_keys: Sequence[str]) -> list[Document]:
    """The update that takes orders from `displaced`, and all that is about them with the last."""
    rest = {"$setDifference": [{"$ifNull": ["$displaced", []]}, {"$literal": list(order_keys)}]}
    kept = {"$gt": [{"$size": "$displaced"}, 0]}
    return [
        {"$set": {"displaced": rest}},
        {
            "$set": {
                name: {"$cond": [kept, f"${name}", "$$REMOVE"]}
                for name in ("displaced_time", "retry_time", "displaced")
            }
        },
    ]
