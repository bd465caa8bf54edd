"""kill -9 at every named crash point: nothing is lost, nothing is doubled, and the books come out even.

The points are asked of the service itself, so that a new one is tried from the day it is written. One that
the traffic below never comes by fails its test: the traffic is to be extended. Those of a month's close are
tried in test_crash_close.py, those of a reattribution in test_crash_reattribution.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import grpc
import pytest

from daogou.commission.v1 import ledger_pb2, plan_pb2
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1 import directory_pb2
from local.stack import ROOT, Stack
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

MEMBERS: Final = 4
TIMES: Final = 3
"""How often everything is sent again after the crash."""
TMALL: Final = Channel.CHANNEL_TMALL
HOLD: Final = plan_pb2.Hold(channel=TMALL, days=7)
FIRST: Final = plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)
APART: Final = ("close_", "payout_", "reattribution_")
"""Points that have tests of their own."""
UNSETTLED: Final = ("parked", "relay", "outbox", "confirm_due_time")
"""Of an order for as long as something of it is still to be done."""


@cache
def crash_points(module: str) -> list[str]:
    """The crash points that a service's process knows."""
    told = f"import {module}.__main__; from chassis import crash; print(*crash.known())"
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    ran = subprocess.run([sys.executable, "-c", told], env=paths, capture_output=True, text=True, check=True)
    return ran.stdout.split()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each point."""
    if "point" in metafunc.fixturenames:
        of_orders = [point for point in crash_points("svc_commission") if not point.startswith(APART)]
        metafunc.parametrize("point", of_orders)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with Stack(tmp_path_factory.mktemp("crash"), testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


# ---- what happens -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sales:
    """Two orders of each member, of which the earlier becomes known later, and one that has to wait."""

    late: list[Order]
    early: list[Order]
    waiting: Order

    @property
    def orders(self) -> list[Order]:
        return [*self.late, *self.early, self.waiting]

    def events(self) -> list[OrderEvent]:
        """All that is reported: of each order a payment of 100.00 and the receipt, of the early ones more."""
        found = [self.waiting.paid(line_of("coat", 10_000)), self.waiting.received()]
        for order in self.late:
            found += [order.placed(), order.paid(line_of("coat", 10_000)), order.received()]
        for order in self.early:
            found += [
                order.paid(line_of("coat", 8_000), line_of("scarf", 2_000)),
                order.received(),
                order.refunded(refund_of("coat", 2_500)),
            ]
        return found

    def contradiction(self) -> OrderEvent:
        """Of an event that is known, with another amount."""
        return self.late[0].paid(line_of("coat", 99))

    def owed_minor(self) -> int:
        """10 % of a first purchase, of which a quarter was refunded; 2 % of a repeat; the one that waited."""
        return len(self.early) * (1000 - 250) + len(self.late) * 200 + 1000


def order_of(world: World, identity: Identity, shop_id: str, hours: float) -> Order:
    """An order that was placed on Tmall so many hours ago."""
    placed = world.running.now() - timedelta(hours=hours)
    return Order(TMALL, f"order-{request_id()}", placed, {"shop_id": shop_id, "identity": identity})


async def sales_of(world: World) -> tuple[Sales, list[str]]:
    """The orders, and the ids of those who placed them."""
    bound = [await world.bound(0) for _ in range(MEMBERS + 1)]
    world.running.later(hours=30)
    buyers = [identity for _, identity in bound[:MEMBERS]]
    sales = Sales(
        late=[order_of(world, buyer, world.shop_id, 3) for buyer in buyers],
        early=[order_of(world, buyer, world.shop_id, 6) for buyer in buyers],
        waiting=order_of(world, bound[-1][1], f"new-{world.shop_id}", 4),
    )
    return sales, [member_id for member_id, _ in bound]


async def shop_is_opened(world: World) -> None:
    """The shop is known from now on whose order waits."""
    shop = directory_pb2.ShopAccount(channel=TMALL, shop_id=f"new-{world.shop_id}")
    store = directory_pb2.Store(display_name="Second", kind=directory_pb2.STORE_KIND_FLAGSHIP, shops=[shop])
    request = directory_pb2.CreateStoreRequest(brand_id=world.brand_id, request_id=request_id(), store=store)
    await world.admin.directory.CreateStore(request)


def calls(draw: random.Random, events: Sequence[OrderEvent]) -> list[list[OrderEvent]]:
    """The events in calls of any size, each event of an order after the one before or not."""
    shuffled = draw.sample(events, len(events))
    found = []
    while shuffled:
        size = draw.randint(1, 8)
        found.append(shuffled[:size])
        shuffled = shuffled[size:]
    return found


async def until_it_dies(world: World, sales: Sales, draw: random.Random) -> None:
    """Reports until the service ends: what is late, what is early, then lets the days pass."""

    async def dead() -> bool:
        world.running.later(seconds=5)
        return world.running.stack.pid("commission") is None

    with contextlib.suppress(grpc.aio.AioRpcError):
        late = {order.order_id for order in sales.late}
        events = sales.events()
        for part in (
            [event for event in events if event.order_id in late],
            [event for event in events if event.order_id not in late],
            [sales.contradiction()],
        ):
            for call in calls(draw, part):
                await world.ingest(*call)
        await shop_is_opened(world)
        world.running.later(days=9)
    await eventually(dead, "the traffic comes by the point", within_s=12)


async def until_answered(world: World, *events: OrderEvent) -> None:
    """Reports events, again after every failure, as a feed does. What contradicts is kept apart each time."""
    for _ in range(100):
        with contextlib.suppress(grpc.aio.AioRpcError):
            outcomes = {result.outcome for result in await world.ingest(*events)}
            if EventOutcome.EVENT_OUTCOME_REJECTED not in outcomes:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("not taken in")


# ---- what must have come of it ----------------------------------------------------------------------


def orders_of(world: World) -> list[dict[str, Any]]:
    return world.running.documents("commission", "orders", {"brand_id": world.brand_id})


async def is_settled(world: World) -> bool:
    """Whether the rounds have done all there is to do. Time flies meanwhile."""
    world.running.later(seconds=5)
    unsettled = [order for order in orders_of(world) if any(name in order for name in UNSETTLED)]
    firsts = {"_id": {"$regex": f"^{world.brand_id}"}, "retry_time": {"$exists": True}}
    return not unsettled and not world.running.documents("commission", "first_purchases", firsts)


def latest_purchases(world: World, sales: Sales, member_ids: Sequence[str]) -> dict[str, datetime]:
    """When each member bought last, by what was reported."""
    orders = [*sales.late, sales.waiting]
    paid = [order.placed_time + timedelta(minutes=1) for order in orders]
    return dict(zip(member_ids, paid, strict=True))


async def check(world: World, sales: Sales, member_ids: Sequence[str]) -> None:
    """Nothing lost, nothing doubled, books zero, everybody told."""
    stored = Counter(
        (order["order_id"], one["event_id"]) for order in orders_of(world) for one in order["events"]
    )
    sent = [(event.order_id, event.event_id) for event in sales.events()]
    assert stored == dict.fromkeys(sent, 1)
    request = ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    owed = await world.admin.ledger.GetBalance(request)
    assert (owed.payable_minor, owed.held_minor) == (sales.owed_minor(), 0)
    assert (await world.trial_balance()).total_minor == 0
    for order in sales.orders:
        told = await world.explained(order)
        assert told.books_agree, order.order_id
        assert told.credits_agree, order.order_id
        assert told.first_purchase == (order not in sales.late)
    members = world.running.documents("members", "members", {"member_id": {"$in": list(member_ids)}})
    told_of = {one["member_id"]: one["last_purchase_time"].replace(tzinfo=UTC) for one in members}
    assert told_of == latest_purchases(world, sales, member_ids)
    kept = world.running.documents("commission", "quarantine", {"brand_id": world.brand_id})
    assert len(kept) == 1, "the contradiction is kept once"


async def test_killed_at_a_point_and_sent_again_everything_comes_out_even(
    running: Running, point: str
) -> None:
    """Whoever reports need only send again what was not answered; all of it thrice does no harm."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    plan = plan_of(rule_of("first", 1000, match=FIRST), rule_of("repeat", 200), holds=[HOLD])
    world = await a_world(running, plan=plan, member=False)
    sales, member_ids = await sales_of(world)
    await running.stack.kill("commission")
    await running.stack.start_service("commission", {"DAOGOU_CRASH_AT": point})
    # Armed, it would die again and again if it were started again by itself.
    await running.stack._processes["commission"].stop_watching()
    try:
        await until_it_dies(world, sales, draw)
    finally:
        await running.stack.kill("commission")
        await running.stack.start_service("commission")
    with contextlib.suppress(grpc.aio.AioRpcError):
        await shop_is_opened(world)
    for call in calls(draw, sales.events() * TIMES):
        await until_answered(world, *call)
    await until_answered(world, *[sales.contradiction()] * TIMES)
    running.later(days=9)
    await eventually(lambda: is_settled(world), "all is settled")
    await check(world, sales, member_ids)


def test_there_are_points_between_all_steps_of_an_order() -> None:
    """Else the test above would hold of nothing."""
    points = crash_points("svc_commission")
    assert {"events_admitted", "orders_written", "entries_journalled", "outbox_delivered"} <= set(points)
