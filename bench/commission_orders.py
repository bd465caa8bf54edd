"""Orders as they stand in a database: written to a file for the floors, and copied to be many.

Copies are written past the service, which would take minutes. They are what it wrote, under other order ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import bson
from pymongo import MongoClient, WriteConcern

from bench.commission_floor import documents_in
from chassis.mongo.connection import Database, Document
from svc_commission.order.store_order import order_key

_PIECE: Final = 1000


async def write_down(
    database: Database, brand_id: str, keys: Iterable[str], since: datetime, file: Path
) -> None:
    """Writes orders, and what was entered for them since a time, into a file.

    BSON documents `{collection, document}`.
    """
    ordered = sorted(keys)
    with file.open("wb") as opened:
        for start in range(0, len(ordered), _PIECE):
            wanted = {"$in": ordered[start : start + _PIECE]}
            entered = {"brand_id": brand_id, "order_key": wanted, "recorded_time": {"$gte": since}}
            for collection, query in (("orders", {"_id": wanted}), ("journal", entered)):
                async for document in database[collection].find(query):
                    opened.write(bson.encode({"collection": collection, "document": document}))


def copy(file: Path, uri: str, database: str, orders: int) -> Iterator[int]:
    """Fills a database with so many copies of the orders in a file; yields how many with every piece."""
    stored: dict[str, list[Document]] = {"orders": [], "journal": []}
    for one in documents_in(file):
        stored[one["collection"]].append(one["document"])
    entries: dict[str, list[Document]] = {}
    for entry in stored["journal"]:
        entries.setdefault(entry["order_key"], []).append(entry)
    with MongoClient[dict[str, Any]](uri) as client:
        opened = client.get_database(database, write_concern=WriteConcern(w=1))
        for start in range(0, orders, _PIECE):
            numbers = range(start, min(start + _PIECE, orders))
            originals = [stored["orders"][number % len(stored["orders"])] for number in numbers]
            copies = [
                (_copied(original, number), entries.get(original["_id"], []))
                for number, original in zip(numbers, originals, strict=True)
            ]
            opened["orders"].insert_many([order for order, _ in copies], ordered=False)
            if booked := list(_booked(copies)):
                opened["journal"].insert_many(booked, ordered=False)
            yield len(numbers)


def _copied(original: Document, number: int) -> Document:
    order_id = f"copy-{number:010d}"
    key = order_key(original["brand_id"], original["channel"], order_id)
    return {**original, "_id": key, "order_id": order_id}


def _booked(copies: Iterable[tuple[Document, Sequence[Document]]]) -> Iterator[Document]:
    for order, entries in copies:
        for entry in entries:
            rest = entry["_id"].removeprefix(entry["order_key"])
            yield {**entry, "_id": f"{order['_id']}{rest}", "order_key": order["_id"]}
