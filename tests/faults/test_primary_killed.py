"""kill -9 of the primary of a replica set of three, again and again while events come in: each counts once.

Without --soak 2,000 events and four kills; with it 10,000 and twenty, each event reported three times.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest

from chassis.rpc.status import from_rpc_error
from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from daogou.common.v1.channel_pb2 import Channel
from local.stack import Stack
from tests.faults.replica_set import ReplicaSet
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

TMALL: Final = Channel.CHANNEL_TMALL
FIRST: Final = plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)
COAT: Final = line_of("coat", 10_000)
BUYERS: Final = 50
EVENTS_OF_ORDER: Final = 4
TIMES: Final = 3
"""How often each event is reported."""
CALLERS: Final = 4
AT_ONCE: Final = 40
"""Events of one call."""
MEANT: Final = {"STORAGE_UNAVAILABLE", "STORAGE_TOO_SLOW", "MEMBERS_UNAVAILABLE"}
"""What a caller may hear while the database is between two primaries."""


@dataclass(frozen=True)
class Size:
    """How much happens, and how often the primary is killed meanwhile."""

    events: int
    kills: int


@pytest.fixture
def replica_set(tmp_path: Path) -> Iterator[ReplicaSet]:
    if os.environ.get("MONGODB_URI"):
        pytest.skip("MONGODB_URI is set, and that server is not ours to kill")
    three = ReplicaSet(tmp_path / "three")
    try:
        three.start()
        yield three
    finally:
        three.stop()


@pytest.fixture
async def running(
    tmp_path: Path, replica_set: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setenv("MONGODB_URI", replica_set.uri)
    async with Stack(tmp_path, testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


@dataclass
class Feed:
    """Reports events, each call again until it is answered."""

    world: World
    heard: Counter[str] = field(default_factory=Counter)
    """Reasons of refused calls."""
    outcomes: Counter[str] = field(default_factory=Counter)

    async def report(self, calls: Sequence[Sequence[OrderEvent]]) -> None:
        """The calls one after the other."""
        for call in calls:
            await self._answered(call)

    async def _answered(self, events: Sequence[OrderEvent]) -> None:
        for _ in range(200):
            try:
                results = await self.world.ingest(*events)
            except grpc.aio.AioRpcError as error:
                said = from_rpc_error(error)
                self.heard[said.reason if said else str(error)] += 1
            else:
                # Of what is rejected others wrote the same order, for longer than a call tries.
                rejected = {
                    one.error.reason for one in results if one.outcome == EventOutcome.EVENT_OUTCOME_REJECTED
                }
                assert rejected <= {"ORDER_CHANGED"}
                if not rejected:
                    self.outcomes.update(EventOutcome.Name(one.outcome) for one in results)
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not answered; heard {self.heard}")


async def orders_of(world: World, count: int) -> list[Order]:
    """Orders of some members, one after the other."""
    bound = await asyncio.gather(*(world.bound(0) for _ in range(BUYERS)))
    world.running.later(hours=30)
    first = world.running.now() - timedelta(hours=20)
    return [
        Order(
            TMALL,
            f"order-{request_id()}",
            first + timedelta(seconds=number),
            {"shop_id": world.shop_id, "identity": bound[number % BUYERS][1]},
        )
        for number in range(count)
    ]


def events_of(order: Order) -> list[OrderEvent]:
    """Placed, paid, received, and a quarter of it paid back."""
    return [
        order.placed(COAT),
        order.paid(COAT),
        order.received(),
        order.refunded(refund_of("coat", 2_500)),
    ]


def calls_of(draw: random.Random, events: Sequence[OrderEvent]) -> list[list[list[OrderEvent]]]:
    """Each event thrice, shuffled, in calls, shared out among the callers."""
    shuffled = [event for _ in range(TIMES) for event in draw.sample(events, len(events))]
    calls = [shuffled[start : start + AT_ONCE] for start in range(0, len(shuffled), AT_ONCE)]
    return [calls[caller::CALLERS] for caller in range(CALLERS)]


@pytest.mark.timeout(600)
async def test_no_event_is_lost_or_doubled_however_often_the_primary_is_killed(
    running: Running, replica_set: ReplicaSet, soak: bool
) -> None:
    """10 % of each member's first purchase and 2 % of the others, less a quarter, to the fen."""
    size = Size(10_000, 20) if soak else Size(2_000, 4)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    plan = plan_of(rule_of("first", 1000, match=FIRST), rule_of("repeat", 200))
    world = await a_world(running, plan=plan, member=False)
    orders = await orders_of(world, size.events // EVENTS_OF_ORDER)
    events = [event for order in orders for event in events_of(order)]
    draw.shuffle(events)
    feed = Feed(world)
    disturbed = 0
    for kill in range(size.kills):
        # Events that are new, so that every kill may hit their first writes.
        reporting = asyncio.gather(
            *(feed.report(calls) for calls in calls_of(draw, events[kill :: size.kills]))
        )
        await asyncio.sleep(draw.uniform(0, 0.3))
        disturbed += not reporting.done()
        await asyncio.to_thread(replica_set.kill_primary)
        await reporting
    print(f"disturbed {disturbed} times of {size.kills}; heard {feed.heard}; {feed.outcomes}")
    assert disturbed >= size.kills // 2, "the primary was killed while nothing was written"
    assert feed.heard.keys() <= MEANT
    await check(world, orders, events)


async def check(world: World, orders: Sequence[Order], events: Sequence[OrderEvent]) -> None:
    """Each event is stored once, and the books are those of all of them."""
    expected = BUYERS * 750 + (len(orders) - BUYERS) * 150

    async def even() -> bool:
        world.running.later(seconds=5)
        return await world.owed(0) == expected

    await eventually(even, f"{expected} are owed", within_s=30)
    stored = Counter(
        (order["order_id"], one["event_id"])
        for order in world.running.documents("commission", "orders", {"brand_id": world.brand_id})
        for one in order["events"]
    )
    assert stored == dict.fromkeys(((event.order_id, event.event_id) for event in events), 1)
    trial = await world.trial_balance()
    assert trial.total_minor == 0
    for order in orders:
        assert (await world.explained(order)).books_agree
