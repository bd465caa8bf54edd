"""The connection to MongoDB, through Motor or PyMongo's own asyncio API.

Stores are written against PyMongo's types. The two drivers differ where one awaits and the other does not;
those few places are functions here, and nothing else of a service knows which driver runs.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from chassis.settings import ServiceSettings

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession

_CLIENT_OPTIONS: Mapping[str, Any] = {
    "appname": "daogou",
    "tz_aware": True,
    "heartbeatFrequencyMS": 1000,
    "connectTimeoutMS": 1000,
    "serverSelectionTimeoutMS": 5000,
    "socketTimeoutMS": 20_000,
    "maxPoolSize": 64,
    "retryWrites": True,
    "retryReads": True,
}
_WRITES = WriteConcern(w="majority", j=True, wtimeout=10_000)
_READS = ReadConcern("majority")


@contextlib.asynccontextmanager
async def connected(config: ServiceSettings, name: str) -> AsyncIterator[Database]:
    """The service's database; closed at the end. Does not wait for the server to answer."""
    client: Any = (
        AsyncIOMotorClient(config.mongodb_uri, **_CLIENT_OPTIONS)
        if config.mongo_driver == "motor"
        else AsyncMongoClient(config.mongodb_uri, **_CLIENT_OPTIONS)
    )
    try:
        yield cast(
            "Database",
            client.get_database(
                name, write_concern=_WRITES, read_concern=_READS, read_preference=ReadPreference.PRIMARY
            ),
        )
    finally:
        closing = client.close()
        if inspect.isawaitable(closing):
            await closing


async def aggregated(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], hint: str = ""
) -> list[Document]:
    """All documents of an aggregation. For results whose size is bounded by their nature.

    `hint`: the name of the index to use; empty: whatever the server finds best.
    """
    options: dict[str, Any] = {"hint": hint} if hint else {}
    cursor: Any = collection.aggregate(pipeline, allowDiskUse=True, **options)
    if inspect.isawaitable(cursor):
        cursor = await cursor
    return cast("list[Document]", await cursor.to_list(None))


async def primary_time(database: Database) -> datetime:
    """The primary's time in whole milliseconds: what `$$NOW` is in a pipeline, for writes without one."""
    answered: Document = await database.client["admin"].command("hello")
    return cast("datetime", answered["localTime"]).replace(tzinfo=UTC)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Commands within the block are given up, by the driver and by the server, when the time is over."""
    with pymongo.timeout(seconds):
        yield


@contextlib.asynccontextmanager
async def session(database: Database) -> AsyncIterator[Session]:
    """A session of the database's client."""
    starting: Any = database.client.start_session()
    if inspect.isawaitable(starting):
        starting = await starting
    async with starting as started:
        yield started


async def begin(started: Session) -> None:
    """Begins a transaction on the session, to be committed or aborted by the caller."""
    beginning: Any = started.start_transaction(
        read_concern=ReadConcern("snapshot"), write_concern=_WRITES, read_preference=ReadPreference.PRIMARY
    )
    if inspect.isawaitable(beginning):
        await beginning
