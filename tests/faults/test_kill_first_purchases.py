"""kill -9 while earlier orders displace first purchases: each member ends with one, to the fen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest

from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity
from local.stack import Stack
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, line_of, plan_of, request_id, rule_of

MEMBERS: Final = 40
KILLS: Final = 3
"""The supervisor starts a process again that often and more."""
COAT: Final = line_of("coat", 10_000)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with Stack(tmp_path, testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


async def taken_in(world: World, *events: OrderEvent) -> None:
    """Reports events, again after every failure, as a feed does."""
    for _ in range(200):
        with contextlib.suppress(grpc.aio.AioRpcError):
            outcomes = {result.outcome for result in await world.ingest(*events)}
            assert EventOutcome.EVENT_OUTCOME_QUARANTINED not in outcomes
            if EventOutcome.EVENT_OUTCOME_REJECTED not in outcomes:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("not taken in")


async def kill_now_and_then(stack: Stack, draw: random.Random) -> None:
    """Kills the service a little after it has come up, again and again."""

    async def is_up() -> bool:
        return stack.pid("commission") is not None

    for _ in range(KILLS):
        await eventually(is_up, "the service was started again")
        await asyncio.sleep(draw.uniform(0.01, 0.3))
        pid = stack.pid("commission")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(draw.uniform(0.5, 1))


def orders_of(world: World, identities: Sequence[Identity], placed: datetime, name: str) -> list[Order]:
    """One order of each member."""
    return [
        Order(
            Channel.CHANNEL_TMALL,
            f"{name}-{request_id()}",
            placed,
            {"shop_id": world.shop_id, "identity": identity},
        )
        for identity in identities
    ]


async def test_first_purchases_displaced_under_kill_9_end_with_one_first_each(running: Running) -> None:
    """100.00 each, 10 % for a first purchase and 2 % for a repeat: 12.00 for each member, to the fen."""
    first = plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)
    plan = plan_of(rule_of("first", 1000, match=first), rule_of("repeat", 200))
    world = await a_world(running, plan=plan)
    identities = [(await world.bound(0))[1] for _ in range(MEMBERS)]
    running.later(hours=30)
    late = orders_of(world, identities, running.now() - timedelta(hours=2), "late")
    early = orders_of(world, identities, running.now() - timedelta(hours=5), "early")
    await taken_in(world, *[order.paid(COAT) for order in late])
    assert await world.owed(0) == MEMBERS * 1000
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    killer = kill_now_and_then(running.stack, random.Random(seed))
    await asyncio.gather(killer, *[taken_in(world, order.paid(COAT)) for order in early])
    # What was parked or displaced while the service was away is tried again some seconds later.
    running.later(minutes=5)

    async def even() -> bool:
        try:
            return await world.owed(0) == MEMBERS * 1200
        except grpc.aio.AioRpcError:
            return False

    await eventually(even, "one first purchase and one repeat of each member", within_s=30)
    for orders, expected in ((early, True), (late, False)):
        for order in orders:
            told = await world.explained(order)
            assert (told.first_purchase, told.books_agree) == (expected, True)
    assert (await world.trial_balance()).total_minor == 0
