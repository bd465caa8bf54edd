"""The floors and the peer of `bench.commission`, in a process of their own: the same driver and options.

`python -c 'from bench import commission_floor; commission_floor.main()' PORT MONGODB_URI`. Each job names a
database and a file that was written before; it is read and made ready first, then timed in here, so that no
gRPC surrounds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

import bson
import grpc
import orjson
import uvloop
from bson.codec_options import CodecOptions
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from bench import floors
from chassis.mongo import connection, transaction
from chassis.mongo.connection import Database, Document, Session, aggregated
from chassis.settings import ServiceSettings
from svc_commission.month import store_statement
from svc_commission.month.store_statement import StatementStore

SERVICE: Final = "bench.CommissionFloor"
_OF_A_SESSION: Final = frozenset({"lsid", "txnNumber", "$db", "$clusterTime", "$readPreference"})
_AT_ONCE_INSERTED: Final = 1000
_CODEC: Final[CodecOptions[Document]] = CodecOptions(tz_aware=True)

T = TypeVar("T")


# ---- commission: the service's own commands, and nothing else ----------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A command that was recorded, ready to be sent again. It has the driver's methods do it."""

    name: str
    collection: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    read_concern: Mapping[str, str] = field(default_factory=dict)


def prepared(name: str, command: Mapping[str, Any]) -> Prepared:
    """A recorded command as the driver is asked for it. Raises: ValueError for one of a transaction."""
    if "startTransaction" in command or "autocommit" in command:
        raise ValueError(f"{name}: the commands of a transaction cannot be replayed one by one")
    collection = str(command[name])
    if name == "find":
        options = {key: command[key] for key in ("projection", "limit", "skip") if key in command}
        options |= {"batch_size": command["batchSize"]} if "batchSize" in command else {}
        options |= {"sort": list(command["sort"].items())} if "sort" in command else {}
        options |= {"max_time_ms": command["maxTimeMS"]} if "maxTimeMS" in command else {}
        return Prepared(name, collection, (command["filter"],), options, command.get("readConcern", {}))
    if name == "aggregate":
        return Prepared(name, collection, (command["pipeline"],), {})
    writes: list[Any]
    if name == "insert":
        writes = [InsertOne(document) for document in command["documents"]]
    elif name == "update":
        writes = [_update(one) for one in command["updates"]]
    elif name == "delete":
        writes = [
            DeleteMany(one["q"]) if not one["limit"] else DeleteOne(one["q"]) for one in command["deletes"]
        ]
    else:
        kept = {key: value for key, value in command.items() if key not in _OF_A_SESSION}
        return Prepared(name, collection, (kept,), {})
    return Prepared("write", collection, (writes,), {"ordered": command.get("ordered", True)})


def _update(one: Mapping[str, Any]) -> Any:
    change = one["u"]
    upsert = one.get("upsert", False)
    if isinstance(change, Mapping) and not next(iter(change), "").startswith("$"):
        return ReplaceOne(one["q"], change, upsert=upsert)
    kind = UpdateMany if one.get("multi") else UpdateOne
    return kind(one["q"], change, upsert=upsert, array_filters=one.get("arrayFilters"))


async def replayed(database: Database, flow: Sequence[Prepared]) -> None:
    """Floor of `commission`, taking in: the commands of one call, one after the other as it sent them."""
    for one in flow:
        collection = database[one.collection]
        if one.name == "find":
            reading = collection.with_options(read_concern=ReadConcern(one.read_concern.get("level")))
            await reading.find(*one.arguments, **one.options).to_list(None)
        elif one.name == "aggregate":
            await aggregated(collection, *one.arguments)
        elif one.name == "write":
            with contextlib.suppress(BulkWriteError):
                # What was refused when it was recorded, because another call was quicker, is refused again.
                await collection.bulk_write(*one.arguments, **one.options)
        else:
            await database.command(*one.arguments)


# ---- commission: a transaction for every event -------------------------------------------------------


async def taken_in_by_transaction(database: Database, key: str, event: Document, payee: str) -> None:
    """Peer of `commission`: read the order, write the order, write two entries, add to the balance."""
    orders, entries, balances = database["orders"], database["entries"], database["balances"]
    amount = sum(line["paid_minor"] for line in event["lines"]) * 3 // 100

    async def body(session: Session) -> None:
        order = await orders.find_one({"_id": key}, session=session)
        if order is None:
            await orders.insert_one({"_id": key, "events": [event]}, session=session)
        else:
            await orders.update_one({"_id": key}, {"$push": {"events": event}}, session=session)
        entry = {"order_key": key, "event_id": event["event_id"], "payee": payee}
        both = [
            {**entry, "account": "EXPENSE", "amount_minor": amount},
            {**entry, "account": "PAYABLE", "amount_minor": -amount},
        ]
        await entries.insert_many(both, session=session)
        await balances.update_one(
            {"_id": payee}, {"$inc": {"amount_minor": -amount}}, upsert=True, session=session
        )

    await transaction.run(database, body, timeout_s=60)


# ---- the jobs --------------------------------------------------------------------------------------


def documents_in(file: Path, begin: int = 0, end: int | None = None) -> Iterable[Document]:
    """The BSON documents in a file, from one offset to another."""
    return bson.decode_all(file.read_bytes()[begin:end], _CODEC)


def flows(recorded: Iterable[Document]) -> list[list[Prepared]]:
    """Recorded commands by the call that sent them, in the order of the calls' first; last, if there is any,
    what the service did meanwhile without being asked.
    """
    by_call: dict[str, list[Prepared]] = defaultdict(list)
    for one in recorded:
        by_call[one["trace_id"]].append(prepared(one["name"], one["command"]))
    own = by_call.pop("", [])
    return [*by_call.values(), *([own] if own else [])]


async def _timed(items: Sequence[T], work: Callable[[T], Awaitable[None]], at_once: int) -> float:
    """Seconds that the work on all items takes, some at once, begun in their order."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    began_s = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return time.perf_counter() - began_s


class Jobs:
    """What the benchmark asks for. Answers are JSON."""

    def __init__(self, database: Callable[[str], Database]) -> None:
        self._database = database

    async def ping(self, _job: Mapping[str, Any]) -> Any:
        """That it serves."""
        return None

    async def replay(self, job: Mapping[str, Any]) -> Any:
        """Sends recorded commands again; the seconds that took."""
        recorded = documents_in(Path(job["file"]), job["begin"], job["end"])
        database = self._database(job["database"])
        calls = flows(one for one in recorded if one["trace_id"])
        own = flows(one for one in recorded if not one["trace_id"])
        asked = _timed(calls, lambda flow: replayed(database, flow), job["at_once"])
        unasked = _timed(own, lambda flow: replayed(database, flow), 1)
        return max(await asyncio.gather(asked, unasked))

    async def insert(self, job: Mapping[str, Any]) -> Any:
        """Inserts documents, and nothing more; the seconds that took."""
        by_collection: dict[str, list[Document]] = defaultdict(list)
        for one in documents_in(Path(job["file"])):
            by_collection[one["collection"]].append(one["document"])
        database = self._database(job["database"])
        for name in by_collection:
            # What the same orders were a round ago.
            await database[name].delete_many({})
        batches = [
            (name, documents[start : start + _AT_ONCE_INSERTED])
            for name, documents in by_collection.items()
            for start in range(0, len(documents), _AT_ONCE_INSERTED)
        ]

        async def insert(batch: tuple[str, list[Document]]) -> None:
            await database[batch[0]].insert_many(batch[1], ordered=False)

        return await _timed(batches, insert, job["at_once"])

    async def take_in(self, job: Mapping[str, Any]) -> Any:
        """Takes events in, a transaction for each; the seconds that took."""
        database = self._database(job["database"])
        for name in ("orders", "entries", "balances"):
            if name not in await database.list_collection_names():
                await database.create_collection(name)
        orders = [one["document"] for one in documents_in(Path(job["file"])) if one["collection"] == "orders"]
        events = [
            (order["_id"], event, order["attribution"]["owner"])
            for order in orders
            for event in order["events"]
            if event["recorded_time"].timestamp() >= job["since"]
        ]
        events.sort(key=lambda one: one[1]["happened_time"])
        chosen = events[job["first"] : job["first"] + job["count"]]
        return await _timed(chosen, lambda one: taken_in_by_transaction(database, *one), job["at_once"])

    async def state(self, job: Mapping[str, Any]) -> Any:
        """Groups a month's entries by payee, inserts its statements anew; the seconds that took."""
        database, text = self._database(job["database"]), job["month"]
        made = await database["statements"].find({"brand_id": job["brand_id"], "month": text}).to_list(None)
        again = database["statements_again"]
        await again.delete_many({})
        for index in store_statement.INDEXES:
            if index.collection == "statements":
                await again.create_index(list(index.keys), name=index.name)
        began_s = time.perf_counter()
        await StatementStore(database).month_sums(job["brand_id"], date.fromisoformat(f"{text}-01"))
        for start in range(0, len(made), _AT_ONCE_INSERTED):
            await again.insert_many(made[start : start + _AT_ONCE_INSERTED], ordered=False)
        return time.perf_counter() - began_s


def _handler(job: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> floors.RpcHandler:
    async def call(request: bytes, _context: Any) -> bytes:
        return orjson.dumps(await job(orjson.loads(request)))

    return grpc.unary_unary_rpc_method_handler(call)


async def _serve(port: str, uri: str) -> None:
    # All that a connection reads of a service's settings.
    config = ServiceSettings.model_construct(mongodb_uri=uri, mongo_driver="motor")
    async with connection.connected(config, "unused") as opened:

        def database(name: str) -> Database:
            return opened.client.get_database(
                name, write_concern=opened.write_concern, read_concern=opened.read_concern
            )

        jobs = Jobs(database)
        handlers = {
            "Ping": _handler(jobs.ping),
            "Replay": _handler(jobs.replay),
            "Insert": _handler(jobs.insert),
            "TakeIn": _handler(jobs.take_in),
            "State": _handler(jobs.state),
        }
        server = floors.bare_server(SERVICE, handlers)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


def main() -> None:
    """Serves until the process is ended."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(*sys.argv[1:]))
