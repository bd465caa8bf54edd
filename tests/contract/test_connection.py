"""The connection: the same through both drivers, and never less durable than it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import DuplicateKeyError

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.mongo import connection, failures, schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Index, Schema
from local.embedded_mongo import EmbeddedMongo, GivenMongo
from tests.contract.conftest import Failing, settings_for

pytestmark = pytest.mark.both_drivers


async def test_an_aggregation_gives_all_its_documents(database: Database) -> None:
    """Also more than one batch of them."""
    await database["numbers"].insert_many([{"_id": number} for number in range(1000)])
    pipeline: list[dict[str, Any]] = [{"$match": {"_id": {"$gte": 10}}}, {"$sort": {"_id": 1}}]
    found = await connection.aggregated(database["numbers"], pipeline)
    assert [one["_id"] for one in found] == list(range(10, 1000))
    assert await connection.aggregated(database["nothing"], pipeline) == []


async def test_a_stored_time_is_the_time_that_was_taken(database: Database) -> None:
    """To the millisecond, and in UTC."""
    now = Clock().now()
    await database["times"].insert_one({"_id": 1, "time": now})
    stored = await database["times"].find_one({"_id": 1})
    assert stored is not None
    assert stored["time"] == now
    assert stored["time"].utcoffset() == now.utcoffset()


async def test_writes_wait_for_the_disk_and_a_majority(database: Database) -> None:
    """Said explicitly, so that no server's default can weaken it."""
    assert database["any"].write_concern.document == {"w": "majority", "j": True, "wtimeout": 10_000}
    assert database["any"].read_concern.document == {"level": "majority"}


async def test_a_transaction_that_is_not_committed_leaves_nothing(database: Database) -> None:
    """The session that began it ends with the block."""
    await database["facts"].insert_one({"_id": 0})
    async with connection.session(database) as started:
        await connection.begin(started)
        await database["facts"].insert_one({"_id": 1}, session=started)
        await started.abort_transaction()
    assert await database["facts"].count_documents({}) == 1


async def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """In our words, which tell the caller to come again.

    On Motor alone: PyMongo Async leaves a socket open when it is closed while it connects.
    """
    monkeypatch.setattr(
        connection, "_CLIENT_OPTIONS", {**connection._CLIENT_OPTIONS, "serverSelectionTimeoutMS": 200}
    )
    nowhere = GivenMongo("mongodb://127.0.0.1:9/")
    async with connection.connected(settings_for(nowhere, "motor"), "any") as database:
        with pytest.raises(Exception) as raised:
            await database["facts"].find_one({"_id": 1})
    error = failures.as_error(raised.value)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s


@pytest.mark.parametrize("code", [10107, 13435])
async def test_a_server_that_steps_down_is_unavailable(
    database: Database, failing: Failing, code: int
) -> None:
    """Twice in a row: once the driver tries again by itself."""
    async with failing("insert", times=2, errorCode=code):
        with pytest.raises(Exception) as raised:
            await database["facts"].insert_one({"_id": 1})
    assert isinstance(failures.as_error(raised.value), Unavailable)


async def test_one_lost_connection_is_not_noticed(database: Database, failing: Failing) -> None:
    """The driver writes again, and the server knows that it is the same write."""
    async with failing("insert", times=1, closeConnection=True):
        await database["facts"].insert_one({"_id": 1})
    assert await database["facts"].count_documents({}) == 1


async def test_a_write_that_a_majority_did_not_confirm_is_unknown_and_not_refused(
    database: Database, failing: Failing
) -> None:
    """It may be there: the caller must hear UNAVAILABLE, never "no"."""
    async with failing("insert", times=1, writeConcernError={"code": 64, "errmsg": "waiting timed out"}):
        with pytest.raises(Exception) as raised:
            await database["facts"].insert_one({"_id": 1})
    assert isinstance(failures.as_error(raised.value), Unavailable)
    assert await database["facts"].count_documents({}) == 1


async def test_a_key_that_is_there_already_is_our_own_mistake_to_handle(database: Database) -> None:
    """Stores expect it where it can happen; elsewhere it is no failure of the database."""
    await database["facts"].insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError) as raised:
        await database["facts"].insert_one({"_id": 1})
    assert failures.as_error(raised.value) is None


WANTED = Schema(
    version=2,
    indexes=[
        Index("shops", "shop", [("brand_id", 1), ("shop", 1)], {"unique": True}),
        Index("orders", "relay", [("relay.recorded_time", 1)], {"sparse": True}),
    ],
)


async def test_an_empty_database_says_what_it_lacks(database: Database) -> None:
    """And that the migrate job helps."""
    [said] = await schema.missing(database, WANTED)
    assert "schema version 0, needed 2" in said
    assert "migrate" in said


async def test_a_migrated_database_lacks_nothing(database: Database) -> None:
    """Also when the job runs twice at once, and again later."""
    await asyncio.gather(schema.migrate(database, WANTED), schema.migrate(database, WANTED))
    await schema.migrate(database, WANTED)
    assert await schema.missing(database, WANTED) == []
    built = await database["shops"].index_information()
    assert built["shop"]["unique"]


async def test_an_index_that_somebody_dropped_is_named(database: Database) -> None:
    """The service stays NOT_SERVING and says which."""
    await schema.migrate(database, WANTED)
    await database["orders"].drop_index("relay")
    assert await schema.missing(database, WANTED) == ["index orders.relay"]


async def test_a_later_schema_serves_an_earlier_service(database: Database) -> None:
    """While a rollout goes on, replicas of the last version go on serving; its job does not go back."""
    await schema.migrate(database, WANTED)
    earlier = Schema(version=1, indexes=WANTED.indexes[:1])
    assert await schema.missing(database, earlier) == []
    await schema.migrate(database, earlier)
    assert await schema.missing(database, WANTED) == []


async def test_the_server_is_a_replica_set(mongo: EmbeddedMongo | GivenMongo, database: Database) -> None:
    """Without one there would be no transactions, and these tests would show nothing."""
    assert "setName" in await database.client["admin"].command("hello")
