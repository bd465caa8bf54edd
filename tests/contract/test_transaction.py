"""Transactions over several documents: all of it or none, once, whatever fails on the way."""

from __future__ import annotations

import asyncio
import time

import pytest
from pymongo.errors import DuplicateKeyError, OperationFailure

from chassis.errors import Conflict, Refused
from chassis.mongo import failures, transaction
from chassis.mongo.connection import Database, Session
from tests.contract.conftest import Failing

pytestmark = pytest.mark.both_drivers


@pytest.fixture(autouse=True)
async def accounts(database: Database) -> None:
    """Two of them, which must sum to 100."""
    await database["accounts"].insert_many([{"_id": "a", "sum": 100}, {"_id": "b", "sum": 0}])


async def move(database: Database, session: Session, amount: int = 1) -> int:
    """Moves an amount from one account to the other."""
    for account, change in (("a", -amount), ("b", amount)):
        await database["accounts"].update_one({"_id": account}, {"$inc": {"sum": change}}, session=session)
    return amount


async def sums(database: Database) -> dict[str, int]:
    """What stands on the accounts."""
    return {one["_id"]: one["sum"] async for one in database["accounts"].find()}


async def test_it_returns_what_its_body_returned_and_did_all_of_it(database: Database) -> None:
    """Both accounts have changed."""
    assert await transaction.run(database, lambda session: move(database, session, 7)) == 7
    assert await sums(database) == {"a": 93, "b": 7}


async def test_what_the_body_refuses_is_not_done(database: Database) -> None:
    """None of it, and the refusal arrives as it was raised, at the first attempt."""
    attempts = 0

    async def body(session: Session) -> None:
        nonlocal attempts
        attempts += 1
        await move(database, session)
        raise Refused("NO", "no")

    with pytest.raises(Refused):
        await transaction.run(database, body)
    assert attempts == 1
    assert await sums(database) == {"a": 100, "b": 0}


async def test_a_mistake_in_the_body_is_not_tried_again(database: Database) -> None:
    """A key that is there will be there next time."""
    attempts = 0

    async def body(session: Session) -> None:
        nonlocal attempts
        attempts += 1
        await move(database, session)
        await database["accounts"].insert_one({"_id": "a"}, session=session)

    with pytest.raises(DuplicateKeyError):
        await transaction.run(database, body)
    assert attempts == 1
    assert await sums(database) == {"a": 100, "b": 0}


async def test_a_cancelled_call_leaves_nothing(database: Database) -> None:
    """And no lock that the next one would wait for."""
    begun = asyncio.Event()

    async def body(session: Session) -> None:
        await move(database, session)
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(transaction.run(database, body))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started_s = time.monotonic()
    await transaction.run(database, lambda session: move(database, session))
    assert time.monotonic() - started_s < 2
    assert await sums(database) == {"a": 99, "b": 1}


async def test_all_of_many_at_once_get_through(database: Database) -> None:
    """On the same two documents: whoever loses tries again."""
    runs = [transaction.run(database, lambda session: move(database, session)) for _ in range(12)]
    assert await asyncio.gather(*runs) == [1] * 12
    assert await sums(database) == {"a": 88, "b": 12}


async def test_a_conflict_in_passing_is_tried_again(database: Database, failing: Failing) -> None:
    """The server says which failures are of that kind."""
    async with failing("update", times=3, errorCode=112, errorLabels=["TransientTransactionError"]):
        await transaction.run(database, lambda session: move(database, session))
    assert await sums(database) == {"a": 99, "b": 1}


async def test_a_lost_connection_is_tried_again(database: Database, failing: Failing) -> None:
    """Nothing was committed, so nothing is done twice."""
    async with failing("update", times=2, closeConnection=True):
        await transaction.run(database, lambda session: move(database, session))
    assert await sums(database) == {"a": 99, "b": 1}


async def test_a_conflict_that_does_not_end_is_given_up_at_the_deadline(
    database: Database, failing: Failing
) -> None:
    """The caller hears that others write the same, and may come again."""
    started_s = time.monotonic()
    async with failing("update", times=1000, errorCode=112, errorLabels=["TransientTransactionError"]):
        with pytest.raises(Conflict) as raised:
            await transaction.run(database, lambda session: move(database, session), timeout_s=0.3)
    assert raised.value.reason == "TRANSACTION_CONTENDED"
    assert raised.value.retry_after_s
    assert time.monotonic() - started_s < 3
    assert await sums(database) == {"a": 100, "b": 0}


@pytest.mark.parametrize(
    "lost",
    [
        {"closeConnection": True},
        {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}},
    ],
    ids=["connection", "timeout"],
)
async def test_a_commit_whose_answer_is_lost_is_asked_for_again_and_done_once(
    database: Database, failing: Failing, lost: dict[str, object]
) -> None:
    """Thrice in a row: oftener than the driver itself asks again."""
    runs = 0

    async def body(session: Session) -> int:
        nonlocal runs
        runs += 1
        return await move(database, session)

    async with failing("commitTransaction", times=3, **lost):
        await transaction.run(database, body)
    assert await sums(database) == {"a": 99, "b": 1}
    assert runs == 1, "what was committed must not run again"


async def test_a_commit_whose_outcome_stays_unknown_is_told_as_unknown(
    database: Database, failing: Failing
) -> None:
    """It may have been done: the driver's failure comes out, which callers hear as UNAVAILABLE."""
    async with failing(
        "commitTransaction", times=1000, writeConcernError={"code": 64, "errmsg": "waiting timed out"}
    ):
        with pytest.raises(OperationFailure) as raised:
            await transaction.run(database, lambda session: move(database, session), timeout_s=0.3)
    assert failures.as_error(raised.value) is not None
    assert await sums(database) == {"a": 99, "b": 1}
