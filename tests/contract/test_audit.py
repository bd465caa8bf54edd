"""The audit log in the database: no act without a record, no record lost, one whole chain."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from chassis.audit import Audit, broken_at
from chassis.clock import Clock
from chassis.mongo import failures
from chassis.mongo.connection import Database, Document
from chassis.rpc.call import Claims
from daogou.common.v1.access_pb2 import Role
from tests.contract.conftest import Failing

CLAIMS = Claims(
    subject="auditor",
    role=Role.ROLE_BRAND_ADMIN,
    brand_id="brand",
    store_id="",
    guide_id="",
    region_id="",
    expire_time_s=0.0,
)
NOW = Clock().now()


async def record(audit: Audit, purpose: str = "a complaint") -> None:
    """Somebody reads a phone number."""
    subject = {"brand_id": "brand", "member_id": "member", "kind": "PHONE"}
    await audit.record(CLAIMS, "RevealIdentity", subject, purpose, NOW + timedelta(milliseconds=7))


async def chain(database: Database, process_id: str = "process") -> list[Document]:
    """A process's records, as the database gives them."""
    found = database["audit"].find({"process_id": process_id}).sort("_id", 1)
    return [one async for one in found]


@pytest.mark.both_drivers
async def test_a_chain_read_back_is_whole(database: Database) -> None:
    """Times, ids and hashes come back as they were hashed."""
    audit = Audit(database["audit"], "process")
    for number in range(3):
        await record(audit, f"reason {number}")
    records = await chain(database)
    assert broken_at(records) is None
    assert [one["purpose"] for one in records] == ["reason 0", "reason 1", "reason 2"]
    assert (records[0]["caller"], records[0]["role"]) == ("auditor", "ROLE_BRAND_ADMIN")
    assert records[0]["subject"]["member_id"] == "member"
    assert records[0]["recorded_time"] == NOW + timedelta(milliseconds=7)


async def test_many_at_once_make_one_chain(database: Database) -> None:
    """None of them overtakes another."""
    audit = Audit(database["audit"], "process")
    await asyncio.gather(*(record(audit, f"reason {number}") for number in range(25)))
    records = await chain(database)
    assert len(records) == 25
    assert broken_at(records) is None
    assert {one["purpose"] for one in records} == {f"reason {number}" for number in range(25)}


async def test_each_start_of_a_process_has_its_own_chain(database: Database) -> None:
    """Replicas do not wait for each other."""
    for process_id in ("one", "other", "one-restarted"):
        await record(Audit(database["audit"], process_id))
    for process_id in ("one", "other", "one-restarted"):
        [first] = await chain(database, process_id)
        assert broken_at([first]) is None


async def test_what_was_changed_in_the_database_is_found(database: Database) -> None:
    """By whoever has access to it and not the anchored heads; so is what was taken out."""
    audit = Audit(database["audit"], "process")
    for number in range(4):
        await record(audit, f"reason {number}")
    records = await chain(database)
    await database["audit"].update_one({"_id": records[1]["_id"]}, {"$set": {"purpose": "none"}})
    assert broken_at(await chain(database)) == records[1]["_id"]
    await database["audit"].delete_one({"_id": records[1]["_id"]})
    assert broken_at(await chain(database)) == records[2]["_id"]


@pytest.mark.both_drivers
@pytest.mark.parametrize(
    ("failure", "written"),
    [
        ({"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}}, True),
        ({"errorCode": 10107}, False),
    ],
    ids=["the answer was lost", "the write was lost"],
)
async def test_after_a_failed_record_the_chain_goes_on(
    database: Database, failing: Failing, failure: dict[str, Any], written: bool
) -> None:
    """The act is not answered. If its record is there after all it stays, and the next one follows it."""
    audit = Audit(database["audit"], "process")
    await record(audit, "before")
    async with failing("insert", times=1 if written else 2, **failure):
        with pytest.raises(PyMongoError) as raised:
            await record(audit, "unknown")
    assert failures.as_error(raised.value) is not None
    await record(audit, "after")
    await record(audit, "and on")
    records = await chain(database)
    wanted = ["before", "unknown", "after", "and on"] if written else ["before", "after", "and on"]
    assert [one["purpose"] for one in records] == wanted
    assert broken_at(records) is None


async def test_two_lost_answers_in_a_row_break_nothing(database: Database, failing: Failing) -> None:
    """An election takes its time. (The second meets the first one's record before its own answer is lost.)"""
    audit = Audit(database["audit"], "process")
    async with failing("insert", times=3, writeConcernError={"code": 64, "errmsg": "waiting timed out"}):
        for purpose in ("one", "two"):
            with pytest.raises(PyMongoError):
                await record(audit, purpose)
    await record(audit, "three")
    records = await chain(database)
    assert broken_at(records) is None
    assert records[-1]["purpose"] == "three"
    assert "one" in {one["purpose"] for one in records}
