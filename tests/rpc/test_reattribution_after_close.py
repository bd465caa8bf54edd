"""Reattributions of orders whose month is closed: statements stand, and the difference is posted now."""

from __future__ import annotations

from datetime import timedelta

from daogou.commission.v1 import ledger_pb2, plan_pb2
from tests.rpc.running import Running, eventually
from tests.rpc.test_months import after_month, close, mid_month, sold, statement, tiers
from tests.rpc.test_reattribution import carried_out, corrected, owed, proposed
from tests.rpc.world import a_world, plan_of, rule_of


async def test_what_belongs_to_a_closed_month_moves_in_the_open_one(running: Running) -> None:
    """3.00 were Ann's by her statement, and are Bea's: the next statements say so."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    order = await sold(world, 10_000)
    member_id = (await world.explained(order)).attribution.member_id
    after_month(running, month)
    await close(world, month)
    await corrected(world, member_id, 1, order.placed_time - timedelta(hours=1))
    await carried_out(world, await proposed(world, order))
    assert await owed(world) == [0, 300, 0]
    assert (await statement(world, month, 0)).closing_payable_minor == 300
    told = await world.explained(order)
    assert told.books_agree
    closed, opened = told.entries
    assert closed.posting_month.month == month.month != opened.posting_month.month
    assert {one.origin_month.month for one in opened.postings} == {month.month}
    moved = {
        one.payee.guide_id: -one.amount_minor
        for one in opened.postings
        if one.account == ledger_pb2.ACCOUNT_PAYABLE
    }
    assert moved == {world.guides[0]: -300, world.guides[1]: 300}
    assert (await world.trial_balance()).total_minor == 0


async def test_the_tier_of_the_former_owner_goes_with_her(running: Running) -> None:
    """10,000.00 took Ann to 5 %. Bea had sold nothing in the month, and it is frozen: she has 3 %."""
    month = mid_month(running)
    tiered = rule_of(tiers=tiers((500_000, 500), mode=plan_pb2.TIER_MODE_WHOLE))
    world = await a_world(running, plan=plan_of(tiered))
    order = await sold(world, 1_000_000)
    member_id = (await world.explained(order)).attribution.member_id
    after_month(running, month)
    await close(world, month)
    assert await owed(world) == [50_000, 0, 0]
    await corrected(world, member_id, 1, order.placed_time - timedelta(hours=1))
    await carried_out(world, await proposed(world, order))

    async def is_rated() -> bool:
        running.later(seconds=5)
        waiting = {"brand_id": world.brand_id, "late_sales": {"$exists": True}}
        return not running.documents("commission", "orders", waiting)

    await eventually(is_rated, "the order is rated")
    assert await owed(world) == [0, 30_000, 0]
    assert (await world.explained(order)).books_agree
    assert (await world.trial_balance()).total_minor == 0
