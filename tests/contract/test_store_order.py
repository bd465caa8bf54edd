"""Orders and the journal in the database: every entry once, wherever the writing of it was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import PyMongoError

from chassis.mongo import failures, schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_commission.background import MOST, Rounds
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.order import store_order
from svc_commission.order.attributor import RETRY_AFTER
from svc_commission.order.booking import Booking
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import CONFIRM_DUE, STUCK_SINCE, OrderStore, order_key
from tests.contract.conftest import Failing

BRAND = "a" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
MONTH = "2026-03"


@pytest.fixture
async def store(database: Database) -> OrderStore:
    await schema.migrate(database, Schema(1, store_order.INDEXES))
    return OrderStore(database)


def order(number: int = 1, rev: int = 1, *, minutes: int = 0, **fields: Any) -> Document:
    """An order that owes Ann 10.00 more with every revision; its entry waits to be relayed."""
    key, time = order_key(BRAND, "POS", str(number)), NOON + timedelta(minutes=minutes)
    entry = {
        "_id": f"{key}|{rev}|{MONTH}",
        "brand_id": BRAND,
        "order_key": key,
        "rev": rev,
        "posting_month": MONTH,
        "recorded_time": time,
        "currency_code": "CNY",
        "postings": [
            {"account": "PAYABLE", "payee": "guide:ann", "line_id": "A", "amount_minor": -1000},
            {"account": "EXPENSE", "payee": "", "line_id": "A", "amount_minor": 1000},
        ],
    }
    relay = {"batch": f"batch-{number}-{rev}", "recorded_time": time, "entries": [entry]}
    return {"_id": key, "brand_id": BRAND, "rev": rev, "relay": relay, **fields}


def settled(number: int = 1, rev: int = 1, **fields: Any) -> Document:
    """The same order with nothing to relay."""
    return {key: value for key, value in order(number, rev, **fields).items() if key != "relay"}


async def owed(database: Database) -> int:
    """What Ann is owed in fen."""
    sums = await JournalStore(database).account_sums(BRAND, None, "guide:ann")
    return -sum(int(one["amount_minor"]) for one in sums)


async def stored(store: OrderStore, number: int = 1) -> Document:
    """An order as it stands."""
    key = order_key(BRAND, "POS", str(number))
    return (await store.find_many([key]))[key]


@pytest.mark.both_drivers
async def test_orders_are_written_if_nobody_wrote_them_since(store: OrderStore) -> None:
    """New ones and known ones in one call; those that somebody else wrote are named and stay as they are."""
    assert await store.replace_many([order(1), order(2)]) == set()
    assert await store.replace_many([order(1, 2), order(3)]) == set()
    stale = {**order(1, 2), "who": "too late"}
    gap = {**order(2, 7), "who": "from the future"}
    new = {**order(3, 1), "who": "second"}
    conflicts = await store.replace_many([stale, gap, order(4), new])
    assert conflicts == {stale["_id"], gap["_id"], new["_id"]}
    found = await store.find_many([order(number)["_id"] for number in range(1, 6)])
    assert {one["rev"] for one in found.values()} == {1, 2}
    assert not any("who" in one for one in found.values())
    assert len(found) == 4


@pytest.mark.both_drivers
async def test_of_many_who_write_one_order_at_once_one_does(store: OrderStore) -> None:
    """Of a new order, and of the next revision of a known one."""
    for rev in (1, 2, 3):
        writes = [store.replace_many([{**order(1, rev), "who": who}]) for who in range(8)]
        conflicts = await asyncio.gather(*writes)
        [winner] = [who for who, found in enumerate(conflicts) if not found]
        assert (await stored(store))["who"] == winner


async def test_one_conflict_does_not_hold_up_the_others(store: OrderStore) -> None:
    """A call with a thousand orders in which one is contended writes the rest."""
    await store.replace_many([order(500)])
    conflicts = await store.replace_many([order(number) for number in range(1000)])
    assert conflicts == {order(500)["_id"]}


@pytest.mark.both_drivers
async def test_what_waits_is_copied_once_and_then_waits_no_longer(
    store: OrderStore, database: Database
) -> None:
    """However often it is asked for."""
    await store.replace_many([order(1), order(2), settled(3)])
    for _ in range(3):
        await store.relay([order(1), order(2), settled(3)])
    assert await owed(database) == 2000
    assert await store.unrelayed(NOON + timedelta(days=1), 10) == []
    assert "relay" not in await stored(store)


async def test_what_was_cut_off_after_the_order_was_written_is_found_and_finished(
    store: OrderStore, database: Database
) -> None:
    """The service died before a single entry was in the journal."""
    await store.replace_many([order(1, minutes=5), order(2, minutes=1), settled(3)])
    waiting = await store.unrelayed(NOON + timedelta(hours=1), 10)
    assert [one["_id"] for one in waiting] == [order(2)["_id"], order(1)["_id"]], "the oldest first"
    assert len(await store.unrelayed(NOON + timedelta(hours=1), 1)) == 1
    assert await store.unrelayed(NOON + timedelta(minutes=1), 10) == [], "younger ones are still in hand"
    await store.relay(waiting)
    assert await owed(database) == 2000
    assert await store.unrelayed(NOON + timedelta(hours=1), 10) == []


async def test_what_was_cut_off_after_the_entries_were_copied_is_not_copied_again(
    store: OrderStore, database: Database
) -> None:
    """The service died before it took the mark off the order."""
    await store.replace_many([order(1)])
    await database["journal"].insert_many(order(1)["relay"]["entries"])
    await store.relay(await store.unrelayed(NOON + timedelta(hours=1), 10))
    assert await owed(database) == 1000
    assert "relay" not in await stored(store)


async def test_what_was_cut_off_half_way_through_a_batch_is_finished(
    store: OrderStore, database: Database
) -> None:
    """Some entries were there, some orders still marked."""
    orders = [order(number) for number in range(10)]
    await store.replace_many(orders)
    await database["journal"].insert_many([one["relay"]["entries"][0] for one in orders[:4]])
    await database["orders"].update_many({"_id": {"$in": [orders[0]["_id"]]}}, {"$unset": {"relay": 1}})
    await store.relay(await store.unrelayed(NOON + timedelta(hours=1), 100))
    assert await owed(database) == 10_000
    assert await store.unrelayed(NOON + timedelta(hours=1), 100) == []


async def test_the_mark_of_a_later_write_stays_when_an_earlier_one_is_relayed(
    store: OrderStore, database: Database
) -> None:
    """Another call wrote the order in between: its entries have yet to be copied."""
    first, second = order(1, 1), order(1, 2)
    await store.replace_many([first])
    await store.relay([first])
    await store.replace_many([second])
    await store.relay([first])
    assert (await stored(store))["relay"]["batch"] == second["relay"]["batch"]
    assert await owed(database) == 1000
    await store.relay([await stored(store)])
    assert await owed(database) == 2000


async def test_whoever_read_an_order_before_it_was_relayed_can_relay_it_too(
    store: OrderStore, database: Database
) -> None:
    """The call that wrote it, the round that finishes, and the next call: all at once."""
    await store.replace_many([order(1)])
    await asyncio.gather(*(store.relay([order(1)]) for _ in range(6)))
    assert await owed(database) == 1000
    assert "relay" not in await stored(store)


async def test_an_order_without_entries_is_relayed_too(store: OrderStore) -> None:
    """A mark with nothing behind it is taken off."""
    empty = {**order(1), "relay": {**order(1)["relay"], "entries": []}}
    await store.replace_many([empty])
    await store.relay([empty])
    assert "relay" not in await stored(store)
    await store.relay([])


@pytest.mark.parametrize("command", ["insert", "update"])
@pytest.mark.parametrize(
    "failure",
    [
        {"errorCode": 10107},
        {"closeConnection": True},
        {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}},
    ],
    ids=["step down", "connection", "no majority"],
)
async def test_a_relay_that_fails_at_any_step_is_finished_by_the_next(
    store: OrderStore, database: Database, failing: Failing, command: str, failure: dict[str, Any]
) -> None:
    """Whether its write was done or not, it is told as unknown, and the books come out right."""
    await store.replace_many([order(1), order(2)])
    # Twice: once the driver tries again by itself. A write concern error is told at the first.
    times = 1 if "writeConcernError" in failure else 2
    async with failing(command, times=times, **failure):
        with pytest.raises(PyMongoError) as raised:
            await store.relay([order(1), order(2)])
    assert failures.as_error(raised.value) is not None
    await store.relay(await store.unrelayed(NOON + timedelta(hours=1), 10))
    assert await owed(database) == 2000
    assert await store.unrelayed(NOON + timedelta(hours=1), 10) == []


@pytest.mark.both_drivers
async def test_an_order_whose_write_was_not_confirmed_is_not_told_as_a_conflict(
    store: OrderStore, database: Database, failing: Failing
) -> None:
    """It may be there: the caller hears UNAVAILABLE, sends again, and finds that it is."""
    async with failing("update", times=1, writeConcernError={"code": 64, "errmsg": "waiting timed out"}):
        with pytest.raises(PyMongoError) as raised:
            await store.replace_many([order(1)])
    assert failures.as_error(raised.value) is not None
    assert await store.replace_many([order(1)]) == {order(1)["_id"]}
    assert (await stored(store))["rev"] == 1


async def test_parked_orders_come_when_they_are_due(store: OrderStore) -> None:
    """The longest due first, so many at a time; those without a reason to wait never."""

    def parked(number: int, minutes: int) -> Document:
        return settled(number, parked={"retry_time": NOON + timedelta(minutes=minutes), "reason": "X"})

    await store.replace_many([parked(1, 3), parked(2, 1), parked(3, 9), settled(4)])
    due = await store.parked(NOON + timedelta(minutes=5), 10)
    assert [one["_id"] for one in due] == [order(2)["_id"], order(1)["_id"]]
    assert len(await store.parked(NOON + timedelta(minutes=5), 1)) == 1
    assert await store.parked(NOON + timedelta(minutes=1), 10) == []


@pytest.mark.both_drivers
async def test_held_orders_come_when_they_are_due(store: OrderStore) -> None:
    """The longest due first, so many at a time; those that are put off come later, and no earlier again."""

    def held(number: int, minutes: int) -> Document:
        return settled(number, confirm_due_time=NOON + timedelta(minutes=minutes))

    await store.replace_many([held(1, 3), held(2, 1), held(3, 9), settled(4)])
    due = await store.confirmable(NOON + timedelta(minutes=3), 10)
    assert [one["_id"] for one in due] == [order(2)["_id"], order(1)["_id"]]
    assert len(await store.confirmable(NOON + timedelta(minutes=3), 1)) == 1
    assert await store.confirmable(NOON, 10) == []
    await store.put_off([held(2, 1), settled(4)], CONFIRM_DUE, NOON + timedelta(minutes=5))
    await store.put_off([held(2, 1)], CONFIRM_DUE, NOON)
    due = await store.confirmable(NOON + timedelta(minutes=9), 10)
    assert [one["_id"] for one in due] == [order(number)["_id"] for number in (1, 2, 3)]


async def test_orders_that_are_stuck_are_counted_by_their_index_and_not_without_end(
    store: OrderStore, database: Database
) -> None:
    """The count is made every second; a brand that never reports a parcel must not make it a burden."""
    stuck = [settled(number, stuck_time=NOON + timedelta(minutes=number)) for number in range(9)]
    await store.replace_many([*stuck, settled(9)])
    assert await store.stuck(NOON - timedelta(minutes=1), 100) == 0
    assert await store.stuck(NOON + timedelta(minutes=4), 100) == 5
    assert await store.stuck(NOON + timedelta(days=1), 100) == 9
    assert await store.stuck(NOON + timedelta(days=1), 3) == 3
    # What the plan says of the index ends where dates do, beyond those of Python.
    dates: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    plan = await database.command(
        {"explain": {"count": "orders", "query": {STUCK_SINCE: {"$lte": NOON}}}}, codec_options=dates
    )
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])


async def test_a_contradiction_is_kept_once(store: OrderStore, database: Database) -> None:
    """Also when it is sent a hundred times, and beside others."""

    def kept(name: str) -> Document:
        return {"_id": f"{order(1)['_id']}|PAID:1|{name}", "brand_id": BRAND, "body": name.encode()}

    await store.quarantine([kept("one")])
    await asyncio.gather(*(store.quarantine([kept("one"), kept("two")]) for _ in range(4)))
    assert await database["quarantine"].count_documents({}) == 2


async def test_an_orders_entries_are_read_in_the_order_of_its_revisions(
    store: OrderStore, database: Database
) -> None:
    """Only its own, and only its brand's."""
    for rev in (3, 1, 2):
        await database["journal"].insert_many(order(1, rev)["relay"]["entries"])
    await database["journal"].insert_many(order(2)["relay"]["entries"])
    assert [one["rev"] for one in await store.entries_of(BRAND, order(1)["_id"])] == [1, 2, 3]
    assert await store.entries_of("b" * 16, order(1)["_id"]) == []


def test_an_orders_key_begins_with_its_brand_and_spreads_its_orders() -> None:
    """A brand's big day must not write to one place; no two orders share a key."""
    keys = {order_key(BRAND, channel, str(number)) for channel in ("POS", "TMALL") for number in range(500)}
    assert len(keys) == 1000
    assert all(key.startswith(f"{BRAND}|") for key in keys)
    assert len({key.split("|")[1] for key in keys}) > 200
    assert order_key(BRAND, "POS", "1") != order_key(BRAND, "POS1", "")


class Unable:
    """Tries to settle or confirm and cannot: a brand is unknown, or an order outgrows its document."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    async def settle(self, orders: Sequence[Document]) -> None:
        self.tried += [found["_id"] for found in orders]

    async def rebook(self, orders: Sequence[Document], cause: str) -> set[str]:
        assert cause == "CONFIRMED"
        await self.settle(orders)
        return {found["_id"] for found in orders}


async def test_orders_that_cannot_be_settled_do_not_keep_others_waiting(
    store: OrderStore, database: Database
) -> None:
    """Each stands behind the others once it was tried, and is tried again later, not without pause."""
    stuck = [settled(number, parked={"retry_time": NOON, "reason": "X"}) for number in range(MOST)]
    other = settled(MOST, parked={"retry_time": NOON + timedelta(seconds=1), "reason": "X"})
    await store.replace_many([*stuck, other])
    booking, now = Unable(), NOON + timedelta(minutes=1)
    rounds = Rounds(store, FirstPurchaseStore(database), cast("Booking", booking), lambda: now)
    assert await rounds.settle()
    assert other["_id"] not in booking.tried
    assert not await rounds.settle()
    assert booking.tried[MOST:] == [other["_id"]]
    assert not await rounds.settle()
    assert len(booking.tried) == MOST + 1, "nothing is due before its time"
    assert len(await store.parked(now + RETRY_AFTER + timedelta(seconds=1), 1000)) == MOST + 1


async def test_orders_that_cannot_be_confirmed_do_not_keep_others_waiting(
    store: OrderStore, database: Database
) -> None:
    """They too stand behind the others once they were tried."""
    ends = NOON + timedelta(seconds=1)
    await store.replace_many([settled(number, confirm_due_time=NOON) for number in range(MOST)])
    await store.replace_many([settled(MOST, confirm_due_time=ends)])
    booking, now = Unable(), NOON + timedelta(minutes=1)
    rounds = Rounds(store, FirstPurchaseStore(database), cast("Booking", booking), lambda: now)
    assert await rounds.confirm()
    assert not await rounds.confirm()
    assert booking.tried[MOST:] == [settled(MOST)["_id"]]
    assert not await rounds.confirm()
    assert len(booking.tried) == MOST + 1
