"""kill -9 at every step of a month's close: it is closed all the same, once, with the same statements."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import date
from typing import Final

import grpc
import pytest

from daogou.commission.v1 import month_pb2, plan_pb2
from local.stack import Stack
from tests.faults.test_crash_points import crash_points
from tests.rpc.running import Running, eventually
from tests.rpc.test_months import POS, after_month, close, message_of, mid_month, months_of, sold, tiers
from tests.rpc.world import World, a_world, line_of, plan_of, rule_of

AMOUNTS: Final = ("earned_minor", "confirmed_minor", "pool_shared_minor", "closing_payable_minor")
EXPECTED: Final = [
    # The first guide: 100.00 at 3 %, confirmed within the month; to the 5 % of her tier, payable at once; and
    # half of the pool.
    (500, 300, 151, 651),
    # The second: the other half. The pool: 100.33 of nobody's at 3 %.
    (0, 0, 150, 150),
    (301, 301, -301, 0),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each point of a close."""
    if "point" in metafunc.fixturenames:
        of_closes = [point for point in crash_points("svc_commission") if point.startswith("close_")]
        metafunc.parametrize("point", of_closes)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with Stack(tmp_path_factory.mktemp("close"), testing=True) as stack:
        found = Running(stack)
        yield found
        await found.close()


async def a_month_of_sales(running: Running) -> tuple[World, date]:
    """A month over, with something to do for every step: held, under a tier, and in a pool."""
    month = mid_month(running)
    plan = plan_of(
        rule_of(
            tiers=tiers((5_000, 500), mode=plan_pb2.TIER_MODE_WHOLE), match=plan_pb2.Match(sku_ids=["coat"])
        ),
        rule_of("other"),
        holds=[plan_pb2.Hold(channel=POS, days=5, from_payment=True)],
        pool_sharing=plan_pb2.POOL_SHARING_EQUALLY,
    )
    world = await a_world(running, guides=2, plan=plan)
    await sold(world, 10_000)
    await world.ingest(world.order(POS).paid(line_of("hat", 10_033)))
    return world, month


async def amounts(world: World, month: date) -> list[tuple[int, ...]]:
    """What the statements of the guides and of the pool say."""
    request = month_pb2.ListStatementsRequest(brand_id=world.brand_id, month=message_of(month))
    made = {
        one.payee.guide_id or one.payee.pool_store_id: one
        for one in (await months_of(world).ListStatements(request)).statements
    }
    payees = [*world.guides, world.nanjing_road]
    assert set(made) == set(payees)
    return [tuple(getattr(made[payee], name) for name in AMOUNTS) for payee in payees]


async def test_killed_at_a_step_the_month_is_closed_all_the_same(running: Running, point: str) -> None:
    """Whoever is started next goes on with it, or whoever asks for it again."""
    world, month = await a_month_of_sales(running)
    await running.stack.kill("commission")
    await running.stack.start_service("commission", {"DAOGOU_CRASH_AT": point})
    await running.stack._processes["commission"].stop_watching()
    after_month(running, month)

    async def dead() -> bool:
        return running.stack.pid("commission") is None

    try:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await close(world, month)
        await eventually(dead, "the close comes by the point")
    finally:
        await running.stack.kill("commission")
        await running.stack.start_service("commission")

    async def is_closed() -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            return (await close(world, month))[-1].report.state == month_pb2.MONTH_STATE_CLOSED
        return False

    await eventually(is_closed, "the month is closed")
    found = await amounts(world, month)
    # Which guide gets the odd fen of the pool follows from their ids.
    assert sorted(found) in (sorted(EXPECTED), sorted([(500, 300, 150, 650), (0, 0, 151, 151), EXPECTED[2]]))
    assert (await world.trial_balance()).total_minor == 0
    [report] = [(await close(world, month))[-1].report]
    assert (report.statement_count, report.earned_minor, report.closing_minor) == (3, 801, 801)


def test_there_is_a_point_after_each_step_that_writes() -> None:
    """Else the test above would hold of nothing."""
    points = crash_points("svc_commission")
    assert {"close_confirmed", "close_rated", "close_moved", "close_stated", "close_finished"} <= set(points)
