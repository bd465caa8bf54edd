"""kill -9 while a reattribution is carried out: each order is reattributed once, and the books agree."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.commission.v1 import plan_pb2, reattribution_pb2
from daogou.commission.v1.reattribution_pb2 import (
    REATTRIBUTION_STATE_DONE,
    NamedOrders,
    OrderName,
    Reattribution,
)
from daogou.commission.v1.reattribution_pb2_grpc import ReattributionServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import binding_pb2, member_pb2, merge_pb2
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from local.stack import Stack
from tests.faults.test_crash_points import crash_points
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, line_of, plan_of, request_id, rule_of

POS: Final = Channel.CHANNEL_POS
COAT: Final = line_of("coat", 10_000)
FIRST: Final = plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)
ORDERS: Final = 250
"""More than are written at once, so that some are done and some are not."""
OF_ORDERS: Final = ("first_purchases_noted", "orders_written", "entries_journalled", "orders_relayed")


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with Stack(tmp_path_factory.mktemp("crash"), testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each point that carrying out comes by."""
    if "point" in metafunc.fixturenames:
        own = [point for point in crash_points("svc_commission") if point.startswith("reattribution_")]
        metafunc.parametrize("point", [*own, *OF_ORDERS])


async def parted(world: World) -> list[Order]:
    """Two orders of a member: the first by somebody who was he for a while and is not any more."""
    card = world.identity(IdentityKind.IDENTITY_KIND_POS_CARD)
    other = (await world.scan(await world.code(0), card)).member_id
    world.running.later(hours=3)
    linked = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=world.member_id, identity=card)
    )
    orders = []
    for member_id in (other, world.member_id):
        world.running.later(hours=3)
        orders.append(world.order(POS, member_id=member_id))
        await world.ingest(orders[-1].paid(COAT))
    undo = merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=linked.merge.merge_id)
    await MergeServiceStub(world.admin.channel("members")).UndoMerge(undo)
    return orders


async def corrected(world: World, member_id: str, since: datetime) -> None:
    """He was Bea's since then."""
    await world.admin.bindings.CorrectBinding(
        binding_pb2.CorrectBindingRequest(
            brand_id=world.brand_id,
            member_id=member_id,
            valid_from_time=to_timestamp(since),
            guide_id=world.guides[1],
            reason="asked in the shop",
            request_id=request_id(),
        )
    )


async def proposed(world: World, orders: Sequence[Order]) -> Reattribution:
    """What would change."""
    names = [OrderName(channel=POS, order_id=order.order_id) for order in orders]
    request = reattribution_pb2.ProposeReattributionRequest(
        brand_id=world.brand_id, request_id=request_id(), reason="test", named=NamedOrders(orders=names)
    )
    stub = ReattributionServiceStub(world.admin.channel("commission"))
    return (await stub.ProposeReattribution(request)).reattribution


async def approved_until_it_dies(world: World, proposal: Reattribution, point: str) -> None:
    """A second person agrees, the service ends at the point while carrying it out, and is back."""
    stack = world.running.stack
    await stack.kill("commission")
    await stack.start_service("commission", {"DAOGOU_CRASH_AT": point})
    # Armed, it would die again and again if it were started again by itself.
    await stack._processes["commission"].stop_watching()
    second = world.running.caller("BRAND_ADMIN", brand=world.brand_id, subject="the second")
    approve = reattribution_pb2.ApproveReattributionRequest(
        brand_id=world.brand_id, reattribution_id=proposal.reattribution_id, request_id=request_id()
    )

    async def dead() -> bool:
        return stack.pid("commission") is None

    try:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await ReattributionServiceStub(second.channel("commission")).ApproveReattribution(approve)
        await eventually(dead, "carrying out comes by the point", within_s=12)
    finally:
        await stack.kill("commission")
        await stack.start_service("commission")


async def until_it_is_done(world: World, proposal: Reattribution) -> None:
    """Waits until it is carried out, and members have their first purchases."""
    request = reattribution_pb2.GetReattributionRequest(
        brand_id=world.brand_id, reattribution_id=proposal.reattribution_id
    )
    stub = ReattributionServiceStub(world.admin.channel("commission"))
    firsts = {"_id": {"$regex": f"^{world.brand_id}"}, "retry_time": {"$exists": True}}

    async def is_done() -> bool:
        world.running.later(seconds=5)
        found = (await stub.GetReattribution(request)).reattribution
        waiting = world.running.documents("commission", "first_purchases", firsts)
        return found.state == REATTRIBUTION_STATE_DONE and not waiting

    await eventually(is_done, "it is carried out")


async def firsts_of(world: World, *orders: Order) -> list[bool]:
    """Which of the orders are first purchases. Books agree of all."""
    told = [await world.explained(order) for order in orders]
    assert all(one.books_agree and one.credits_agree for one in told)
    return [one.first_purchase for one in told]


async def test_killed_in_between_each_order_is_reattributed_once(running: Running, point: str) -> None:
    """250 orders of 100.00 were Ann's and are Bea's: 10 % of a first purchase, 2 % of all others."""
    plan = plan_of(rule_of("first", 1000, match=FIRST), rule_of("repeat", 200))
    world = await a_world(running, plan=plan)
    others, his = await parted(world)
    assert await firsts_of(world, others, his) == [True, False]
    member_id, identity = await world.bound(0)
    running.later(hours=3)
    orders = [world.order(POS, identity=identity) for _ in range(ORDERS)]
    await world.ingest(*[order.paid(COAT) for order in orders])
    await corrected(world, member_id, orders[0].placed_time - timedelta(hours=1))
    ann, bea = await world.owed(0), await world.owed(1)
    proposal = await proposed(world, [*orders, others])
    assert proposal.changed_count == ORDERS + 1
    await approved_until_it_dies(world, proposal, point)
    await until_it_is_done(world, proposal)
    moved, promoted = 1000 + (ORDERS - 1) * 200, 1000 - 200
    assert [await world.owed(0), await world.owed(1)] == [ann - moved + promoted, bea + moved]
    stored = running.documents("commission", "orders", {"brand_id": world.brand_id})
    formers = {order["order_id"]: len(order.get("former_attributions", ())) for order in stored}
    assert formers.pop(his.order_id) == 0
    assert set(formers.values()) == {1}
    assert await firsts_of(world, others, his) == [True, True], "his next is his first by now"
    assert sum(await firsts_of(world, *orders[::10])) <= 1
    assert (await world.trial_balance()).total_minor == 0
