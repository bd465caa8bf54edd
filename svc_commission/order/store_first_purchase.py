"""Which order is a member's first, in MongoDB: `{_id: brand|member, first, displaced}`.

`first` is the least of his paid orders: `{placed_time, channel, order_id, order_key}`, compared in that
order. One that becomes known later and is less takes its place in one write, which also notes the key of the
order that it `displaced`, and when (`displaced_time`): that one's books are to be made anew, at `retry_time`
or later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        named = {first["_id"][prefix:]: first["first"]["order_key"] for first in found if "first" in first}
        # One may have been forgotten (`left`) between the write and the read.
        rest = {member_id: orders for member_id, orders in paid.items() if member_id not in named}
        return named | await self.note(brand_id, rest, now)

    async def firsts(self, brand_id: str, member_ids: Collection[str]) -> dict[str, Document]:
        """The first orders that are noted of members."""
        ids = [f"{brand_id}|{member_id}" for member_id in member_ids]
        query = {"_id": {"$in": ids}, "first": {"$exists": True}}
        prefix = len(brand_id) + 1
        return {found["_id"][prefix:]: found["first"] async for found in self._firsts.find(query)}

    async def left(
        self, brand_id: str, member_id: str, order_key: str, following: Document | None, now: datetime
    ) -> None:
        """Forgets a member's first order that turned out to be another's. Safe to repeat.

        The `following` of his takes its place, and its books are to be made anew as if it were displaced.
        One that is being written this moment and would be less is not seen, and stays a repeat.
        """
        forgotten: list[Document] = [{"$unset": "first"}] if following is None else _followed(following, now)
        await self._firsts.update_one(
            {"_id": f"{brand_id}|{member_id}", "first.order_key": order_key}, forgotten
        )

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

    async def hasten(self, records: Sequence[Document], retry_time: datetime) -> None:
        """Makes records due at a time, at the latest, that were put off."""
        ids = [record["_id"] for record in records]
        if ids:
            await self._firsts.update_many(
                {"_id": {"$in": ids}, "retry_time": {"$exists": True}}, {"$min": {"retry_time": retry_time}}
            )

    async def settled(self, made_anew: Mapping[str, Sequence[str]]) -> None:
        """Forgets displaced orders, by the id of their record, whose books have been made anew."""
        writes = [UpdateOne({"_id": record_id}, _without(keys)) for record_id, keys in made_anew.items()]
        if writes:
            await self._firsts.bulk_write(writes, ordered=False)


def _least(orders: Sequence[Document]) -> Document:
    return _first_of(min(orders, key=order_rank))


def order_rank(order: Document) -> tuple[datetime, str, str]:
    """The least is the first: of orders, and of what is noted of them."""
    return order["placed_time"], order["channel"], order["order_id"]


def _followed(following: Document, now: datetime) -> list[Document]:
    """The update that puts an order in the place of a first that has gone."""
    noted = {"$concatArrays": [{"$ifNull": ["$displaced", []]}, [{"$literal": following["_id"]}]]}
    made: Document = {"first": {"$literal": _first_of(following)}, "displaced": noted}
    return [{"$set": {**made, "displaced_time": now, "retry_time": now}}]


def _first_of(least: Document) -> Document:
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
