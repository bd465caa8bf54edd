"""Orders by their buyers in the database: whose they are, and identities that are dropped in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_commission.order import store_order
from svc_commission.order.identities import IDENTITY_DUE
from svc_commission.order.store_order import OrderStore, order_key

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def store(database: Database) -> OrderStore:
    await schema.migrate(database, Schema(1, store_order.INDEXES))
    return OrderStore(database)


def order(number: int, member_id: str, *kinds: str, brand_id: str = BRAND, **more: Any) -> Document:
    """An order placed so many minutes after noon, of which these events are known."""
    return {
        "_id": order_key(brand_id, "POS", str(number)),
        "brand_id": brand_id,
        "channel": "POS",
        "order_id": str(number),
        "rev": 1,
        "placed_time": NOON + number * MINUTE,
        "attribution": {"member_id": member_id},
        "events": [{"kind": kind, "buyer": {}} for kind in kinds],
        **more,
    }


async def test_a_members_orders_are_found_by_when_they_were_placed(store: OrderStore) -> None:
    """From a moment on and before another; his alone, of the brand alone, and no more than asked for."""
    await store.replace_many([order(number, "ben") for number in (1, 2, 3, 4)])
    await store.replace_many([order(2, "ben", brand_id=OTHER), order(12, "cid"), order(13, "")])

    async def found(begin: int, end: int, most: int = 10) -> list[str]:
        times = NOON + begin * MINUTE, NOON + end * MINUTE
        return [one["order_id"] for one in await store.of_member(BRAND, "ben", *times, most)]

    assert await found(0, 99) == ["1", "2", "3", "4"]
    assert await found(2, 4) == ["2", "3"]
    assert await found(0, 99, most=2) == ["1", "2"]


async def test_the_first_of_a_members_orders_that_he_paid_is_found(store: OrderStore) -> None:
    assert await store.first_paid(BRAND, "ben") is None
    await store.replace_many([order(1, "ben", "PLACED"), order(2, "cid", "PAID")])
    assert await store.first_paid(BRAND, "ben") is None
    await store.replace_many([order(4, "ben", "PAID"), order(3, "ben", "PLACED", "PAID")])
    found = await store.first_paid(BRAND, "ben")
    assert found is not None
    assert found["order_id"] == "3"


def identified(number: int, due: datetime) -> Document:
    """An order with identities of whoever bought, beside a member's id."""
    buyers = [{"identity": b"one"}, {"member_id": "cid"}, {}, {"identity": b"two"}]
    events = [{"kind": "PAID", "buyer": buyer} for buyer in buyers]
    return {**order(number, ""), "events": events, IDENTITY_DUE: due}


@pytest.mark.both_drivers
async def test_identities_that_are_due_are_dropped_and_the_others_stay(
    store: OrderStore, database: Database
) -> None:
    """Whoever has read the order before must not write it back with them."""
    due, later = identified(1, NOON), identified(2, NOON + MINUTE)
    await store.replace_many([due, later])
    quarantined: list[Document] = [
        {"_id": "1", "brand_id": BRAND, "body": b"body", "identity": b"one", IDENTITY_DUE: NOON},
        {"_id": "2", "brand_id": BRAND, "body": b"body", "identity": b"two", IDENTITY_DUE: NOON + MINUTE},
        {"_id": "3", "brand_id": BRAND, "body": b"body"},
    ]
    await store.quarantine(quarantined)
    assert not await store.drop_identities(NOON, 10)
    found = await store.find_many([due["_id"], later["_id"]])
    buyers = [event["buyer"] for event in found[due["_id"]]["events"]]
    assert buyers == [{}, {"member_id": "cid"}, {}, {}]
    assert IDENTITY_DUE not in found[due["_id"]]
    assert found[later["_id"]] == later
    assert await store.replace_many([{**due, "rev": 2}]) == {due["_id"]}, "it was written meanwhile"
    kept = [one async for one in database["quarantine"].find().sort("_id", 1)]
    assert kept == [{"_id": "1", "brand_id": BRAND, "body": b"body"}, *quarantined[1:]]


async def test_many_identities_are_dropped_some_at_a_time(store: OrderStore, database: Database) -> None:
    await store.replace_many([identified(number, NOON) for number in range(5)])
    assert await store.drop_identities(NOON, 2)
    assert await store.drop_identities(NOON, 2)
    assert not await store.drop_identities(NOON, 2)
    assert await database["orders"].count_documents({"events.buyer.identity": {"$exists": True}}) == 0
