"""kill -9 between any two steps of adjustments, opening balances and payouts: each is posted once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import date
from typing import Any, Final

import grpc
import pytest

from daogou.commission.v1 import adjustment_pb2, ledger_pb2, payout_pb2
from daogou.commission.v1.adjustment_pb2 import OpeningBalance
from local.stack import Stack
from tests.faults.test_crash_points import crash_points
from tests.rpc.running import Running, eventually
from tests.rpc.test_adjustments import adjustments, approval, proposed, second
from tests.rpc.test_months import after_month, close, message_of, mid_month, sold
from tests.rpc.test_payouts import payouts
from tests.rpc.world import World, a_world, plan_of

PAYABLE: Final = 300
"""What the first guide's statement ends with; she is then adjusted by 50, and owed 20 by another system."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each point."""
    if "point" in metafunc.fixturenames:
        own = [point for point in crash_points("svc_commission") if point.startswith("payout_")]
        metafunc.parametrize("point", own)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with Stack(tmp_path_factory.mktemp("payouts"), testing=True) as stack:
        found = Running(stack)
        yield found
        await found.close()


class Requests:
    """What head office asks for, word for word the same each time."""

    def __init__(self, world: World, month: date, adjustment: adjustment_pb2.Adjustment) -> None:
        self._world = world
        first = world.guides[0]
        open_month = date(month.year + month.month // 12, month.month % 12 + 1, 1)
        self._approval = approval(adjustment, world)
        self._import = adjustment_pb2.ImportOpeningBalancesRequest(
            brand_id=world.brand_id,
            month=message_of(open_month),
            balances=[OpeningBalance(guide_id=first, payable_minor=20)],
        )
        self._batch = payout_pb2.MarkPaidRequest(
            brand_id=world.brand_id, batch_id="run", month=message_of(month), guide_ids=[first]
        )

    async def sent(self) -> payout_pb2.Payout:
        """All of them; the payout. Raises: grpc.aio.AioRpcError."""
        head_office: Any = adjustments(self._world.admin)
        await second(self._world).ApproveAdjustment(self._approval)
        await head_office.ImportOpeningBalances(self._import)
        return (await payouts(self._world).MarkPaid(self._batch)).payout


async def test_killed_at_a_step_and_asked_again_everything_is_posted_once(
    running: Running, point: str
) -> None:
    """Whoever asked need only ask again; what nobody asks for again is done by itself."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    after_month(running, month)
    await close(world, month)
    requests = Requests(world, month, await proposed(world, 50))
    await running.stack.kill("commission")
    await running.stack.start_service("commission", {"DAOGOU_CRASH_AT": point})
    await running.stack._processes["commission"].stop_watching()

    async def dead() -> bool:
        return running.stack.pid("commission") is None

    try:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await requests.sent()
        await eventually(dead, "the requests come by the point")
    finally:
        await running.stack.kill("commission")
        await running.stack.start_service("commission")
    running.later(minutes=1)
    query = {"brand_id": world.brand_id, "$or": [{"post_time": {"$exists": True}}, {"state": "RUNNING"}]}

    async def settled() -> bool:
        waiting = [running.documents("commission", name, query) for name in ("adjustments", "payouts")]
        return waiting == [[], []]

    await eventually(settled, "what was begun is finished by itself")
    for _ in range(2):
        payout = await requests.sent()
        assert (payout.state, payout.paid_minor) == (payout_pb2.PAYOUT_STATE_DONE, PAYABLE)
    told = await world.trial_balance()
    assert {one.account: one.amount_minor for one in told.accounts} == {
        ledger_pb2.ACCOUNT_PAYABLE: -70,
        ledger_pb2.ACCOUNT_EXPENSE: PAYABLE + 50,
        ledger_pb2.ACCOUNT_PAID: -PAYABLE,
        ledger_pb2.ACCOUNT_CLEARING: 20,
    }
    assert (told.total_minor, told.entry_count) == (0, 4)


def test_there_is_a_point_between_every_two_writes() -> None:
    """Else the test above would hold of nothing."""
    assert set(crash_points("svc_commission")) >= {
        "payout_adjustment_approved",
        "payout_adjustment_posted",
        "payout_balances_taken_over",
        "payout_recorded",
        "payout_posted",
    }
