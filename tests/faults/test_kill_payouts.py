"""kill -9 while a large batch is paid: it goes on by itself, and everybody is paid once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from chassis.ids import derived_id
from daogou.commission.v1 import ledger_pb2, payout_pb2
from daogou.commission.v1.payout_pb2_grpc import PayoutServiceStub
from daogou.common.v1.date_pb2 import Date
from local.stack import Stack
from tests.rpc.running import Running, eventually
from tests.rpc.world import World, a_world, plan_of

PAYEES: Final = 71_388
"""As many guides as there are in the largest deployment, in one brand."""
KILLS: Final = 3
MONTH: Final = date(2026, 3, 1)
NEXT: Final = "2026-04"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with Stack(tmp_path, testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


def amount_of(number: int) -> int:
    """What a statement ends with as payable: every tenth with nothing."""
    return number % 10 * 100


def closed_month(world: World) -> int:
    """Puts a closed month with its statements into the database; what is payable of them in sum."""
    database = world.running.database("commission")
    statements: list[dict[str, Any]] = []
    for number in range(PAYEES):
        payee = f"guide:{derived_id(world.brand_id, str(number))}"
        statements.append(
            {
                "_id": f"{world.brand_id}|{MONTH:%Y-%m}|{payee}",
                "brand_id": world.brand_id,
                "month": f"{MONTH:%Y-%m}",
                "payee": payee,
                "closing_payable_minor": amount_of(number),
                "currency_code": "CNY",
            }
        )
    database["statements"].insert_many(statements)
    closed = {"_id": f"{world.brand_id}|{MONTH:%Y-%m}", "brand_id": world.brand_id, "state": "CLOSED"}
    database["closes"].insert_one({**closed, "month": f"{MONTH:%Y-%m}"})
    database["months"].insert_one({"_id": world.brand_id, "first_open": NEXT})
    return sum(amount_of(number) for number in range(PAYEES))


async def kill_now_and_then(stack: Stack, draw: random.Random) -> None:
    """Kills the service a little after it has come up, again and again."""

    async def is_up() -> bool:
        return stack.pid("commission") is not None

    for _ in range(KILLS):
        await eventually(is_up, "the service was started again")
        await asyncio.sleep(draw.uniform(0.5, 2))
        pid = stack.pid("commission")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)


async def marked(world: World) -> payout_pb2.Payout | None:
    """The batch as it stands; None where nobody answers."""
    stub: Any = PayoutServiceStub(world.admin.channel("commission"))
    month = Date(year=MONTH.year, month=MONTH.month)
    request = payout_pb2.MarkPaidRequest(brand_id=world.brand_id, batch_id="run", month=month)
    with contextlib.suppress(grpc.aio.AioRpcError):
        payout: payout_pb2.Payout = (await stub.MarkPaid(request)).payout
        return payout
    return None


async def test_a_batch_that_is_killed_again_and_again_pays_everybody_once(running: Running) -> None:
    world = await a_world(running, plan=plan_of(), member=False)
    payable = closed_month(world)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    killer = kill_now_and_then(running.stack, random.Random(seed))
    await asyncio.gather(killer, marked(world))
    # Whoever was killed is taken to be at it for a while: that while passes.
    running.later(minutes=1)

    async def is_done() -> bool:
        stored = running.documents("commission", "payouts", {"brand_id": world.brand_id})
        return bool(stored) and stored[0]["state"] == "DONE"

    await eventually(is_done, "the batch goes on without anybody calling", within_s=60)
    payout = await marked(world)
    assert payout is not None
    paid_count = sum(1 for number in range(PAYEES) if amount_of(number))
    assert (payout.paid_count, payout.paid_minor, payout.refused_count) == (paid_count, payable, 0)
    told = await world.trial_balance()
    sums = {one.account: one.amount_minor for one in told.accounts}
    assert sums == {ledger_pb2.ACCOUNT_PAYABLE: payable, ledger_pb2.ACCOUNT_PAID: -payable}
    assert told.entry_count == paid_count
