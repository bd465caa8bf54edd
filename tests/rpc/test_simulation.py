"""What a plan would have paid: real orders replayed through a draft, before anyone publishes it."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.order_event_pb2 import EventOutcome
from daogou.common.v1.channel_pb2 import Channel
from tests.rpc.replaying import simulated, simulating, simulation_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, rule_of

POS: Final = Channel.CHANNEL_POS
PARKED: Final = EventOutcome.EVENT_OUTCOME_PARKED
COAT: Final = line_of("coat", 10_000)
SCARF: Final = line_of("scarf", 3_350)
SPLIT: Final = (
    plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=8_000),
    plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_SERVING, share_bp=2_000, absent=plan_pb2.ABSENT_ROLE_STORE_POOL),
)


@pytest.fixture
async def world(running: Running) -> World:
    """A brand with a plan of 3 % for the owner, at the brand's cost."""
    return await a_world(running, plan=plan_of())


async def an_order(world: World, guide: int = 0, channel: Any = POS, **more: Any) -> Order:
    """An order of a guide's member, of two hours ago."""
    _, identity = await world.bound(guide)
    world.running.later(hours=3)
    return world.order(channel, identity=identity, **more)


def draft_of(**rule: Any) -> plan_pb2.Plan:
    """A draft of 5 %, four fifths for the owner and a fifth for who served, borne by the selling store."""
    bearer = plan_pb2.COST_BEARER_SELLING_STORE
    made = plan_pb2.Rule(**{"rule_id": "all", "rate_bp": 500, "shares": SPLIT, "cost_bearer": bearer, **rule})
    return plan_of(made)


async def test_the_differences_are_those_that_a_person_computes(world: World) -> None:
    """Two guides, two stores; a scarf goes back.

    Nanjing Road sells coat and scarf to Ann's customer, served by Bea: 3 % of 100.00 and of 33.50 was 3.00
    and 1.01; the scarf went back, so 3.00 remain. The draft gives 5 % of 100.00: 4.00 to Ann, 1.00 to Bea.
    Xintiandi sells a coat to Cat's customer, and nobody serves: 3.00; by the draft 4.00 to her, 1.00 to the
    pool.
    """
    served = await an_order(world, serving_guide_id=world.guides[1])
    await world.ingest(served.paid(COAT, SCARF), served.refunded(refund_of("scarf", 3_350)))
    alone = await an_order(world, guide=2, selling_store_id=world.xintiandi)
    await world.ingest(alone.paid(COAT))
    found = await simulated(world, draft_of())
    ann, bea, cat = world.guides
    assert found.earned() == {ann: (300, 400), bea: (0, 100), cat: (300, 400), world.xintiandi: (0, 100)}
    assert {row.difference_minor for row in found.payees.values()} == {100}
    assert {row.order_count for row in found.payees.values()} == {1}
    for store_id in (world.nanjing_road, world.xintiandi):
        store = found.stores[store_id]
        assert (store.sold_minor, store.current_minor, store.draft_minor) == (10_000, 300, 500)
        assert (store.borne_current_minor, store.borne_draft_minor) == (0, 500), "the draft's stores pay"
        assert (store.difference_minor, store.order_count) == (200, 1)
    totals = found.totals
    assert (totals.order_count, totals.differing_order_count, totals.pending_order_count) == (2, 2, 0)
    assert (totals.sold_minor, totals.current_minor, totals.draft_minor) == (20_000, 600, 1_000)
    assert (totals.brand_current_minor, totals.brand_draft_minor, totals.difference_minor) == (600, 0, 400)
    assert (totals.differing_payee_count, totals.differing_store_count) == (4, 2)
    assert totals.currency_code == "CNY"
    last = found.progress[-1]
    assert (last.orders_done, last.orders_total) == (2, 2)


async def test_what_is_earned_now_is_what_the_books_say(world: World) -> None:
    """Were it not, the difference to it would say nothing."""
    for guide in (0, 1, 0):
        order = await an_order(world, guide=guide)
        await world.ingest(order.paid(COAT, SCARF), order.refunded(goodwill_minor=777))
    found = await simulated(world, draft_of())
    for guide in (0, 1):
        assert found.payees[world.guides[guide]].current_minor == await world.owed(guide)
    assert found.payees[world.guides[0]].order_count == 2


async def test_a_draft_equal_to_the_plan_differs_in_nothing(running: Running) -> None:
    seed = random.SystemRandom().randrange(10**9)
    draw = random.Random(seed)
    rules = [
        rule_of("first", 1_500, match=plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)),
        rule_of("scarfs", 0, per_unit_minor=77, match=plan_pb2.Match(sku_ids=["scarf"])),
        plan_pb2.Rule(rule_id="rest", rate_bp=333, shares=SPLIT, floor_minor=5, cap_minor=250),
    ]
    plan = plan_of(*rules, holds=[plan_pb2.Hold(channel=POS, days=1)])
    world = await a_world(running, plan=plan)
    buyers = [(await world.bound(guide))[1] for guide in (0, 1, 2)]
    running.later(hours=3)
    for _ in range(25):
        order = world.order(draw.choice([POS, Channel.CHANNEL_TMALL]), identity=draw.choice(buyers))
        lines = [line_of(name, draw.randint(0, 50_000)) for name in ("coat", "scarf") if draw.random() < 0.8]
        events = [order.paid(*(lines or [COAT])), order.received(), order.closed()]
        events.insert(1, order.refunded(refund_of("coat", draw.randint(0, 9_000)), goodwill_minor=11))
        await world.ingest(*events[: draw.choice([1, 1, 2, 3, 4])])
    found = await simulated(world, plan)
    assert not found.payees, f"seed {seed}"
    assert not found.stores, f"seed {seed}"
    totals = found.totals
    assert (totals.order_count, totals.differing_order_count) == (25, 0), f"seed {seed}"
    assert totals.current_minor == totals.draft_minor > 0, f"seed {seed}"
    other = await simulated(world, plan_of(*rules[1:]))
    assert other.payees, "and one of other rules does differ"
    assert sum(row.difference_minor for row in other.payees.values()) == other.totals.difference_minor
    sizes = [abs(row.difference_minor) for row in other.payees.values()]
    assert sizes == sorted(sizes, reverse=True), "the largest comes first"


async def test_orders_count_by_when_they_were_placed(world: World) -> None:
    """From the first moment of the period on, up to its last and without it."""
    order = await an_order(world)
    await world.ingest(order.paid(COAT))
    placed, moment = order.placed_time, timedelta(milliseconds=1)
    for begin, end, count in (
        (placed, placed + moment, 1),
        (placed - moment, placed, 0),
        (placed + moment, placed + 2 * moment, 0),
    ):
        found = await simulated(world, draft_of(), begin, end)
        assert found.totals.order_count == count
        assert found.totals.currency_code == ("CNY" if count else "")
        assert bool(found.payees) == bool(count)


async def test_an_order_placed_before_any_plan_would_earn_something(running: Running) -> None:
    world = await a_world(running)
    order = await an_order(world)
    await world.ingest(order.paid(COAT))
    assert (await simulated(world, plan_of())).earned() == {world.guides[0]: (0, 300)}


async def test_neither_the_draft_s_interval_nor_its_share_links_matter(world: World) -> None:
    order = await an_order(world)
    await world.ingest(order.paid(COAT))
    later = to_timestamp(world.running.now() + timedelta(days=30))
    draft = plan_of(rule_of(rate_bp=500), effective_from_time=later, share_link_hours=1)
    assert (await simulated(world, draft)).earned() == {world.guides[0]: (300, 500)}


async def test_an_order_whose_sale_nobody_knows_is_left_out_and_counted(world: World) -> None:
    order = world.order(POS, selling_store_id="a" * 16)
    [result] = await world.ingest(order.paid(COAT))
    assert result.outcome == PARKED
    found = await simulated(world, draft_of())
    assert (found.totals.pending_order_count, found.totals.order_count) == (1, 0)


async def test_a_draft_with_tiers_is_tried_as_though_every_month_had_ended(world: World) -> None:
    """Ann sells 100.00, 100.00 and 50.00 in a month, and 50.00 of it comes back: 200.00 count.

    From 150.00 on 5 %, of what is above: 150.00 × 3 % + 50.00 × 5 % = 7.00, which is 3.5 % of 200.00. Each
    line earns that: 3.50, 3.50 and 1.75, of which the last is taken back.
    """
    orders = [await an_order(world) for _ in range(3)]
    # All of one day, and so of one month, as the brand's calendar has it.
    day = max(order.placed_time for order in orders)
    for order, paid in zip(orders, (10_000, 10_000, 5_000), strict=True):
        same_day = Order(order.channel, order.order_id, day, order.fields)
        await world.ingest(same_day.paid(line_of("coat", paid)))
        if paid == 5_000:
            await world.ingest(same_day.refunded(refund_of("coat", 5_000)))
    tiers = plan_pb2.Tiers(tiers=[plan_pb2.Tier(from_minor=15_000, rate_bp=500)])
    found = await simulated(world, plan_of(rule_of(tiers=tiers)))
    assert found.earned() == {world.guides[0]: (600, 700)}
    assert found.payees[world.guides[0]].order_count == 2, "of the third nothing remains either way"
    last = found.progress[-1]
    assert (last.orders_done, last.orders_total) == (6, 6), "each is looked at twice"


async def test_nothing_of_another_brand_is_replayed(running: Running, world: World) -> None:
    other = await a_world(running, plan=plan_of())
    order = await an_order(other)
    await other.ingest(order.paid(COAT))
    found = await simulated(world, draft_of())
    assert found.totals.order_count == 0
    assert not found.stores


async def test_nothing_is_stored(running: Running, world: World) -> None:
    order = await an_order(world)
    await world.ingest(order.paid(COAT))
    with running.nothing_written(world.brand_id):
        assert (await simulated(world, draft_of())).payees
    listed = await world.admin.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=world.brand_id))
    assert [plan.plan_id for plan in listed.plans] == [world.plan_id]


async def test_a_cancelled_simulation_leaves_room_for_others(world: World) -> None:
    """A few may run at once; were those that were given up still counted, the last would be refused."""
    order = await an_order(world)
    await world.ingest(order.paid(COAT))
    for _ in range(12):
        call = simulating(world, simulation_of(world, draft_of()))
        await call.read()
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.sleep(0.2)
    assert (await simulated(world, draft_of())).totals.order_count == 1


@pytest.mark.parametrize(
    ("draft", "days", "fields"),
    [
        (None, 1, {"draft"}),
        (plan_pb2.Plan(), 1, {"draft.display_name", "draft.rules"}),
        (
            plan_of(
                rule_of(rate_bp=10_001),
                plan_pb2.Rule(rule_id="all", rate_bp=1, per_unit_minor=1, shares=[*SPLIT, *SPLIT]),
            ),
            1,
            {"draft.rules[0].rate_bp"}
            | {f"draft.rules[1].{name}" for name in ("rule_id", "shares", "per_unit_minor")},
        ),
        (plan_of(), 0, {"to_time"}),
        (plan_of(), -1, {"to_time"}),
        (plan_of(), 400.001, {"to_time"}),
        (
            plan_of(rule_of(share_bp=10_001)),
            -1,
            {"draft.rules[0].shares[0].share_bp", "draft.rules[0].shares"},
        ),
    ],
)
async def test_what_could_not_be_published_is_not_simulated(
    world: World, draft: plan_pb2.Plan | None, days: float, fields: set[str]
) -> None:
    end = world.running.now()
    request = simulation_of(world, draft, end - timedelta(days=days), end)
    found = await refusal(simulating(world, request).read())
    assert (found.code, found.reason, found.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
        fields,
    )


async def test_a_period_of_400_days_is_taken(world: World) -> None:
    end = world.running.now()
    assert (await simulated(world, plan_of(), end - timedelta(days=400), end)).totals.order_count == 0
