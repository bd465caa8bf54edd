"""Orders and entries read page by page, each once; and computed again without holding up anybody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import Overloaded
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from chassis.times import to_timestamp
from daogou.commission.v1 import plan_pb2, simulation_pb2, verification_pb2
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.month.store_month import MonthStore
from svc_commission.month.store_statement import StatementStore
from svc_commission.order import store_order, store_replay
from svc_commission.order.replay import REPLAYS_MAX, Replays
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.order.store_replay import PAGE_ORDERS, ReplayStore
from svc_commission.plan.store_plan import PlanStore
from svc_commission.simulation.servicer_simulation import SimulationServicer
from svc_commission.verification.servicer_verification import VerificationServicer

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
BLOCKED_S_MAX = 0.02


def order(
    number: int, *, minutes: int = 0, brand_id: str = BRAND, lines: int = 2, events: int = 1
) -> Document:
    """An order of Ann's, paid in so many payments of so many lines."""
    payment = {
        "kind": "PAID",
        "recorded_time": NOON,
        "rev": 1,
        "body_hash": b"x",
        "buyer": {"identity": b"sealed"},
        "lines": [
            {
                "line_id": f"{line:04d}",
                "sku_id": "coat",
                "category_id": "",
                "quantity": 1,
                "list_minor": 100,
                "paid_minor": 100,
                "subsidy_minor": 0,
            }
            for line in range(lines)
        ],
        "refund_lines": [],
        "goodwill_minor": 0,
    }
    placed = NOON + timedelta(minutes=minutes)
    return {
        "_id": order_key(brand_id, "POS", f"order-{number}"),
        "brand_id": brand_id,
        "channel": "POS",
        "order_id": f"order-{number}",
        "rev": 1,
        "placed_time": placed,
        "currency_code": "CNY",
        "events": [
            {**payment, "event_id": f"PAID:{event}", "happened_time": placed + timedelta(seconds=event)}
            for event in range(events)
        ],
        "attribution": {
            "member_id": "",
            "binding_id": "",
            "owner": "guide:ann",
            "owner_basis": "BINDING",
            "selling_store_id": "east",
            "owner_store_id": "east",
            "flagship_store_id": "",
            "as_of_time": placed,
            "known_at_time": placed,
            "plan_id": "",
            "time_zone": "Asia/Shanghai",
        },
        "target": [],
        "refund_excess_minor": 0,
    }


@pytest.fixture
async def store(database: Database) -> ReplayStore:
    await schema.migrate(database, Schema(1, [*store_order.INDEXES, *store_replay.INDEXES]))
    return ReplayStore(database)


async def placed(
    store: ReplayStore, begin: datetime, end: datetime, brand_id: str = BRAND
) -> list[list[str]]:
    """The ids of the orders of each page."""
    return [[one["order_id"] for one in page] async for page in store.placed(brand_id, begin, end)]


@pytest.mark.both_drivers
async def test_every_order_of_a_period_is_read_once_by_when_it_was_placed(
    database: Database, store: ReplayStore
) -> None:
    """Also of many that were placed at the same moment, at the border of two pages."""
    count = 2 * PAGE_ORDERS + 50
    orders = [order(number, minutes=number // 170) for number in range(count)]
    await database["orders"].insert_many([*orders, order(1, brand_id=OTHER), order(-1, minutes=-1)])
    pages = await placed(store, NOON, NOON + HOUR)
    assert [len(page) for page in pages] == [PAGE_ORDERS, PAGE_ORDERS, 50]
    found = [order_id for page in pages for order_id in page]
    assert sorted(found) == sorted(one["order_id"] for one in orders)
    minutes = {one["order_id"]: one["placed_time"] for one in orders}
    assert [minutes[order_id] for order_id in found] == sorted(minutes[order_id] for order_id in found)
    assert await store.placed_count(BRAND, NOON, NOON + HOUR) == count
    first = [one["order_id"] for one in orders if one["placed_time"] == NOON]
    [*_, last] = await placed(store, NOON, NOON + timedelta(minutes=1))
    assert set(last) <= set(first)
    assert await placed(store, NOON, NOON) == []
    assert await placed(store, NOON, NOON + HOUR, OTHER) == [["order-1"]]


async def test_what_buyers_are_known_by_is_not_even_read(database: Database, store: ReplayStore) -> None:
    await database["orders"].insert_one(order(1))
    [[found]] = [page async for page in store.placed(BRAND, NOON, NOON + HOUR)]
    assert "sealed" not in str(found)


async def test_a_page_of_large_orders_is_a_short_one(database: Database, store: ReplayStore) -> None:
    """All of a page is held at once."""
    await database["orders"].insert_many([order(number, lines=1_000, events=9) for number in range(5)])
    assert [len(page) for page in await placed(store, NOON, NOON + HOUR)] == [3, 2]
    pages = [page async for page, _ in store.of_brand(BRAND)]
    assert [len(page) for page in pages] == [3, 2, 0]


@pytest.mark.both_drivers
async def test_all_orders_of_a_brand_are_read_with_their_entries(
    database: Database, store: ReplayStore
) -> None:
    """And the entries of orders that are not there, each once; not those of another brand."""
    orders = [order(number) for number in range(PAGE_ORDERS + 20)]
    await database["orders"].insert_many([*orders, order(1, brand_id=OTHER)])
    keys = [*(one["_id"] for one in orders), f"{BRAND}|00|POS|gone", f"{BRAND}|ff|POS|gone", "!", "~"]
    entries = [{"_id": f"{key}|1", "brand_id": BRAND, "order_key": key} for key in keys]
    others = [{"_id": "x", "brand_id": OTHER, "order_key": keys[0]}, {"_id": "loose", "brand_id": BRAND}]
    await database["journal"].insert_many([*entries, *others])
    pages = [page async for page in store.of_brand(BRAND)]
    assert [one["_id"] for page, _ in pages for one in page] == sorted(one["_id"] for one in orders)
    assert sorted(one["_id"] for _, found in pages for one in found) == sorted(one["_id"] for one in entries)
    for page, found in pages[:-1]:
        known = {one["_id"] for one in page}
        strays = [one["order_key"] for one in found if one["order_key"] not in known]
        assert set(strays) <= set(keys[-4:])
    assert await store.count_of_brand(BRAND) == len(orders)


async def test_pages_are_read_by_an_index_and_never_sorted_in_memory(
    database: Database, store: ReplayStore
) -> None:
    """A sort of all that remains, for each page, would make a year's orders take for ever."""
    await database["orders"].insert_many([order(number, minutes=number) for number in range(300)])
    await database["journal"].insert_many(
        [
            {
                "_id": f"{BRAND}|{number:03d}",
                "brand_id": BRAND,
                "order_key": f"{BRAND}|{number:03d}",
                "posting_month": "2026-03",
                "recorded_time": NOON + timedelta(minutes=number),
                "postings": [{"payee": "guide:ann"}, {"payee": ""}],
            }
            for number in range(300)
        ]
    )
    await database.command("profile", 2)
    await placed(store, NOON, NOON + timedelta(days=1))
    after = NOON + timedelta(minutes=200), f"{BRAND}|200"
    found = await JournalStore(database).page(BRAND, "guide:ann", None, after, 10)
    assert [entry["_id"] for entry in found] == [f"{BRAND}|{number}" for number in range(199, 189, -1)]
    _ = [page async for page in store.of_brand(BRAND)]
    await database.command("profile", 0)
    finds = [one async for one in database["system.profile"].find({"op": "query", "nreturned": {"$gt": 0}})]
    assert len(finds) >= 6
    for one in finds:
        assert "IXSCAN" in one["planSummary"], one
        assert not one.get("hasSortStage"), one["command"]
        assert one["docsExamined"] <= one["nreturned"] + 1, one["command"]


# ---- computed beside others -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def beside(seen: list[float]) -> AsyncIterator[None]:
    """Notes how long the event loop works between two turns of somebody else, in seconds of its own.

    Without the collector of garbage, which stops everybody now and then whatever is computed.
    """

    async def beat() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            seen.append(time.thread_time() - before)

    task = asyncio.create_task(beat())
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def draft() -> plan_pb2.Plan:
    """5 % for the owner."""
    share = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=10_000)
    rule = plan_pb2.Rule(rule_id="all", rate_bp=500, shares=[share])
    return plan_pb2.Plan(display_name="a draft", rules=[rule])


def simulation(brand_id: str = BRAND) -> simulation_pb2.SimulatePlanRequest:
    """A simulation of a day."""
    return simulation_pb2.SimulatePlanRequest(
        brand_id=brand_id,
        draft=draft(),
        from_time=to_timestamp(NOON - HOUR),
        to_time=to_timestamp(NOON + timedelta(days=1)),
    )


async def test_others_have_their_turn_while_thousands_of_orders_are_computed(
    database: Database, store: ReplayStore
) -> None:
    """Small orders by the thousand, some large ones, and tens of thousands of payees to be ranked."""
    small = [order(number, minutes=number % 60) for number in range(2_000)]
    large = [order(number, lines=100, events=10) for number in range(2_000, 2_005)]
    for number, one in enumerate(small):
        one["attribution"]["owner"] = f"guide:{number}"
    await database["orders"].insert_many([*small, *large])
    servicer = SimulationServicer(store, PlanStore(database), Replays(), lambda: NOON)
    seen: list[float] = []
    async with beside(seen):
        replies = [reply async for reply in servicer.SimulatePlan(simulation(), None)]
    totals = replies[-1].totals
    assert (totals.order_count, totals.differing_order_count) == (2_005, 2_005)
    assert totals.differing_payee_count == 2_001
    assert sum(len(reply.payees.payees) for reply in replies) == 2_001
    assert len(seen) > 100
    assert max(seen) < BLOCKED_S_MAX, f"the longest block took {max(seen) * 1000:.1f} ms"
    verification = VerificationServicer(
        OrderStore(database),
        JournalStore(database),
        PlanStore(database),
        store,
        MonthStore(database),
        StatementStore(database),
        Replays(),
    )
    seen.clear()
    async with beside(seen):
        request = verification_pb2.VerifyBooksRequest(brand_id=BRAND)
        *_, last = [reply async for reply in verification.VerifyBooks(request, None)]
    assert last.verdict.agrees
    assert last.verdict.order_count == 2_005
    assert max(seen) < BLOCKED_S_MAX, f"the longest block took {max(seen) * 1000:.1f} ms"


async def test_a_simulation_that_is_given_up_reads_no_further(database: Database, store: ReplayStore) -> None:
    await database["orders"].insert_many([order(number) for number in range(20 * PAGE_ORDERS)])
    replays = Replays()
    servicer = SimulationServicer(store, PlanStore(database), replays, lambda: NOON)
    await database.command("profile", 2)
    replies = servicer.SimulatePlan(simulation(), None)
    first = await anext(replies)
    assert first.progress.orders_done < 20 * PAGE_ORDERS
    await replies.aclose()
    pages = await database["system.profile"].count_documents({"op": "query", "ns": f"{database.name}.orders"})
    await asyncio.sleep(0.1)
    await database.command("profile", 0)
    query = {"op": "query", "ns": f"{database.name}.orders"}
    assert await database["system.profile"].count_documents(query) == pages < 5


async def test_beyond_a_few_replays_at_once_the_next_is_refused() -> None:
    replays = Replays()
    with contextlib.ExitStack() as running:
        for _ in range(REPLAYS_MAX):
            running.enter_context(replays.admitted())
        with pytest.raises(Overloaded, match="TOO_MANY_REPLAYS") as raised, replays.admitted():
            pass
        assert raised.value.retry_after_s
    with replays.admitted():
        pass
