"""The database in memory that simulations run on does what MongoDB does, as far as the stores ask."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import pytest

from chassis.mongo import outbox
from chassis.mongo.connection import Database, Document
from chassis.mongo.outbox import Message, Relay
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import CONFIRM_DUE, PARKED, OrderStore
from tests.memory_mongo import MemoryDatabase

BRAND: Final = "a" * 16
NOON: Final = datetime(2026, 3, 10, 4, tzinfo=UTC)
COLLECTIONS: Final = ("orders", "journal", "sales", "quarantine", "first_purchases")
STEPS: Final = 250
MOST: Final = 100
"""More than there are: among those of one moment either database may choose."""


class Lived:
    """The stores on one database, and what is asked of them as chance has it."""

    def __init__(self, database: Database, seed: int) -> None:
        self._draw = random.Random(seed)
        self._now = NOON
        self._orders, self._firsts = OrderStore(database), FirstPurchaseStore(database)
        self._told = Relay(database["orders"], {"told": self._deliver}, lambda: self._now)
        self._read: list[Document] = []

    async def _deliver(self, messages: Sequence[Message]) -> list[bool]:
        return [one.message_id.endswith(("1", "2", "3")) for one in messages]

    async def step(self) -> Any:
        """Something; what was answered."""
        self._now += timedelta(milliseconds=self._draw.choice([0, 1, 5_000]))
        return await self._draw.choice(
            [self._find, self._write, self._write, self._relay, self._rounds, self._note, self._displaced]
        )()

    def _keys(self) -> list[str]:
        return [f"{BRAND}|00|POS|{number}" for number in self._draw.sample(range(8), 3)]

    def _order(self, key: str) -> Document:
        number = int(key.rpartition("|")[2])
        placed = NOON - timedelta(hours=number)
        return {"_id": key, "placed_time": placed, "channel": "POS", "order_id": str(number)}

    async def _find(self) -> list[Document]:
        found = await self._orders.find_many(self._keys())
        self._read = [found[key] for key in sorted(found)]
        return self._read

    async def _write(self) -> set[str]:
        """Orders as they were read last, or as new: many of them were written since."""
        read = {order["_id"]: order for order in self._read}
        written = []
        for key in self._keys():
            before = read.get(key) or {**self._order(key), "brand_id": BRAND, "rev": 0, "events": []}
            rev = before["rev"] + 1
            entry = {"_id": f"{key}|{rev}|2026-03", "brand_id": BRAND, "order_key": key, "rev": rev}
            identified = {"event_id": str(rev), "buyer": {"identity": b"sealed"}}
            order = {**before, "rev": rev, "events": [*before["events"], identified]}
            order["relay"] = {
                "batch": str(self._draw.randrange(3)),
                "recorded_time": self._now,
                "entries": [{**entry, "posting_month": "2026-03"}],
                "credits": [{"_id": f"{key}|{rev}|0"}],
            }
            order["parked"] = {"retry_time": self._now} if rev % 2 else {}
            order[CONFIRM_DUE] = self._now + timedelta(seconds=rev)
            order["identity_due_time"] = self._now + timedelta(seconds=8)
            told = outbox.message(f"message-{rev}", "told", {}, self._now)
            order["outbox"] = [*before.get("outbox", ()), told]
            written.append(order)
        return await self._orders.replace_many(written)

    async def _relay(self) -> list[Document]:
        if self._draw.random() < 0.5:
            await self._orders.relay(self._read)
        unrelayed = _sorted(await self._orders.unrelayed(self._now - timedelta(seconds=2), MOST))
        await self._orders.relay(unrelayed[:2])
        return [order["relay"] for order in unrelayed]

    async def _rounds(self) -> Any:
        parked = _sorted(await self._orders.parked(self._now, MOST))
        await self._orders.put_off(parked[:2], PARKED, self._now + timedelta(seconds=6))
        confirmable = _sorted(await self._orders.confirmable(self._now, MOST))
        await self._orders.put_off(confirmable[:2], CONFIRM_DUE, self._now + timedelta(seconds=6))
        dropped = await self._orders.drop_identities(self._now, MOST)
        return [order["_id"] for order in (*parked, *confirmable)], dropped, await self._told.round()

    async def _note(self) -> dict[str, str]:
        paid = {member: [self._order(key) for key in self._keys()] for member in self._draw.sample("abcd", 2)}
        return await self._firsts.note(BRAND, paid, self._now)

    async def _displaced(self) -> list[Document]:
        records = _sorted(await self._firsts.displaced(self._now, MOST))
        await self._firsts.put_off(records, self._now, timedelta(seconds=6))
        await self._firsts.hasten(records[:1], self._now + timedelta(seconds=1))
        settled = {record["_id"]: record["displaced"][: self._draw.randrange(3)] for record in records}
        await self._firsts.settled(settled)
        return records


def _sorted(found: Sequence[Document]) -> list[Document]:
    return sorted(found, key=lambda document: str(document["_id"]))


async def _stored(database: Database) -> dict[str, list[Document]]:
    return {name: await database[name].find({}).sort("_id", 1).to_list(None) for name in COLLECTIONS}


async def _at_once(_what: str) -> None:
    """Nobody comes in between."""


@pytest.mark.parametrize("seed", range(4))
async def test_in_memory_everything_is_answered_and_kept_as_by_mongodb(database: Database, seed: int) -> None:
    """Conflicts of revisions, repeats, parts of lists, pipelines: whatever the stores use."""
    memory = cast("Database", MemoryDatabase(_at_once))
    one, other = Lived(database, seed), Lived(memory, seed)
    for number in range(STEPS):
        assert await one.step() == await other.step(), f"seed {seed}, step {number}"
    stored = await _stored(database)
    assert stored == await _stored(memory)
    assert all(stored[name] for name in ("orders", "journal", "sales", "first_purchases"))
