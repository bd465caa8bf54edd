"""The commission service over the wire: events in any order, whose sale it is, and every fen explained."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, order_event_pb2, plan_pb2
from daogou.commission.v1.ledger_pb2 import ExplainOrderResponse, OwnerBasis
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import directory_pb2
from daogou.members.v1.directory_pb2 import BindingPolicy, ShopAccount
from tests.rpc.running import Running, eventually, refusal
from tests.rpc.world import (
    Order,
    World,
    a_world,
    line_of,
    plan_of,
    refund_of,
    request_id,
    rule_of,
    store_of,
)

APPLIED: Final = EventOutcome.EVENT_OUTCOME_APPLIED
DUPLICATE: Final = EventOutcome.EVENT_OUTCOME_DUPLICATE
PARKED: Final = EventOutcome.EVENT_OUTCOME_PARKED

TMALL: Final = Channel.CHANNEL_TMALL
POS: Final = Channel.CHANNEL_POS
CARD: Final = IdentityKind.IDENTITY_KIND_POS_CARD

COAT_MINOR, SCARF_MINOR = 59_900, 12_950
LINES: Final = (line_of("coat", COAT_MINOR), line_of("scarf", SCARF_MINOR))
EARNED_MINOR: Final = 1_797 + 389
"""3 % of each line; half a fen of the scarf's 388.5 counts up."""


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    """A brand with a plan of 3 % for the owner, whose orders of two hours ago fall under it."""
    return await a_world(running, plan=plan_of())


async def _buyer(world: World, guide: int = 0) -> tuple[str, Order]:
    """A customer who has been a guide's member for some hours, and an order of his on Tmall."""
    member_id, identity = await world.bound(guide)
    world.running.later(hours=3)
    return member_id, world.order(identity=identity)


def _credits(told: ExplainOrderResponse) -> dict[str, int]:
    """Sales credit by store, over all days."""
    found: Counter[str] = Counter()
    for one in told.sales_credits:
        found[one.store_id] += one.amount_minor
    return dict(found)


def _posted(told: ExplainOrderResponse) -> Counter[tuple[str, int, str, int, int]]:
    """What the entries sum to per line, account, payee and month."""
    sums: Counter[tuple[str, int, str, int, int]] = Counter()
    for entry in told.entries:
        assert sum(posting.amount_minor for posting in entry.postings) == 0, entry
        for posting in entry.postings:
            payee = posting.payee.guide_id or posting.payee.pool_store_id
            month = entry.posting_month
            sums[posting.line_id, posting.account, payee, month.year, month.month] += posting.amount_minor
    return Counter({key: amount for key, amount in sums.items() if amount})


# ---- one order, as it should go ---------------------------------------------------------------------


async def test_an_order_of_a_bound_customer_is_owed_to_his_guide_once(world: World) -> None:
    member_id, order = await _buyer(world)
    before = await world.owed(0)
    results = await world.ingest(order.placed(*LINES), order.paid(*LINES), order.shipped(), order.received())
    assert [result.outcome for result in results] == [APPLIED] * 4
    assert await world.owed(0) - before == EARNED_MINOR
    repeats = await world.ingest(order.received(), order.paid(*LINES), order.paid(*LINES))
    assert [result.outcome for result in repeats] == [DUPLICATE] * 3
    assert await world.owed(0) - before == EARNED_MINOR
    told = await world.explained(order)
    assert told.attribution.member_id == member_id
    assert told.attribution.owner.guide_id == world.guides[0]
    assert told.attribution.owner_basis == OwnerBasis.OWNER_BASIS_BINDING
    assert told.attribution.plan_id == world.plan_id
    assert told.books_agree


async def test_both_the_guides_store_and_the_flagship_are_credited_with_a_sale_on_tmall(
    world: World,
) -> None:
    _, order = await _buyer(world)
    await world.ingest(order.paid(*LINES))
    told = await world.explained(order)
    whole = COAT_MINOR + SCARF_MINOR
    assert _credits(told) == {world.flagship: whole, world.nanjing_road: whole}
    assert told.attribution.selling_store_id == world.flagship
    assert told.attribution.flagship_store_id == world.flagship
    assert told.attribution.owner_store_id == world.nanjing_road


async def test_a_sale_in_the_guides_own_store_is_credited_once(world: World) -> None:
    _, identity = await world.bound(0)
    world.running.later(hours=3)
    order = world.order(POS, identity=identity)
    await world.ingest(order.paid(*LINES))
    assert _credits(await world.explained(order)) == {world.nanjing_road: COAT_MINOR + SCARF_MINOR}


async def test_a_sale_in_another_store_is_credited_to_both_and_owed_to_the_guide(world: World) -> None:
    _, identity = await world.bound(2)
    world.running.later(hours=3)
    order = world.order(POS, identity=identity)
    before, pool = await world.owed(2), await world.owed_to_pool(world.nanjing_road)
    await world.ingest(order.paid(*LINES))
    whole = COAT_MINOR + SCARF_MINOR
    assert _credits(await world.explained(order)) == {world.nanjing_road: whole, world.xintiandi: whole}
    assert await world.owed(2) - before == EARNED_MINOR
    assert await world.owed_to_pool(world.nanjing_road) == pool


async def test_a_stranger_and_a_buyer_without_a_name_are_the_selling_stores(world: World) -> None:
    for more in ({"identity": world.identity()}, {"member_id": "a" * 16}, {}):
        before = await world.owed_to_pool(world.nanjing_road)
        order = world.order(POS, **more)
        assert [one.outcome for one in await world.ingest(order.paid(*LINES))] == [APPLIED]
        assert await world.owed_to_pool(world.nanjing_road) - before == EARNED_MINOR, more
        told = await world.explained(order)
        assert told.attribution.owner.pool_store_id == world.nanjing_road
        assert told.attribution.owner_basis == OwnerBasis.OWNER_BASIS_STORE_POOL
        assert told.attribution.member_id == ""
        assert _credits(told) == {world.nanjing_road: COAT_MINOR + SCARF_MINOR}


async def test_a_member_who_is_nobodys_is_known_but_the_pools(world: World) -> None:
    order = world.order(member_id=world.member_id)
    await world.ingest(order.paid(*LINES))
    told = await world.explained(order)
    assert told.attribution.member_id == world.member_id
    assert told.attribution.owner.pool_store_id == world.flagship


async def test_an_order_before_the_scan_is_not_the_guides(world: World) -> None:
    """Whose he was when he ordered counts, not whose he is when it becomes known."""
    customer = world.identity()
    order = world.order(identity=customer)
    await world.scan(await world.code(0), customer)
    await world.ingest(order.paid(*LINES))
    assert (await world.explained(order)).attribution.owner.pool_store_id == world.flagship


async def test_attribution_is_frozen_whoever_he_goes_to_later(running: Running) -> None:
    policy = BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS)
    world = await a_world(running, plan=plan_of(), policy=policy)
    _, identity = await world.bound(0)
    running.later(hours=3)
    order = world.order(identity=identity)
    await world.ingest(order.placed(*LINES))
    await world.scan(await world.code(1), identity)
    running.later(hours=1)
    await world.ingest(order.paid(*LINES))
    assert [await world.owed(index) for index in (0, 1)] == [EARNED_MINOR, 0]
    told = await world.explained(order)
    assert told.attribution.owner.guide_id == world.guides[0]
    assert told.books_agree


async def test_an_order_placed_before_any_plan_earns_nothing_and_is_credited(running: Running) -> None:
    world = await a_world(running)
    order = world.order()
    await world.ingest(order.paid(*LINES))
    told = await world.explained(order)
    assert not told.entries
    assert told.attribution.plan_id == ""
    assert told.books_agree
    assert _credits(told) == {world.flagship: COAT_MINOR + SCARF_MINOR}
    assert (await world.trial_balance()).entry_count == 0


# ---- refunds ----------------------------------------------------------------------------------------


async def test_a_returned_item_takes_its_commission_back_to_the_fen(world: World) -> None:
    _, order = await _buyer(world)
    before = await world.owed(0)
    await world.ingest(order.paid(*LINES))
    await world.ingest(order.refunded(refund_of("scarf", SCARF_MINOR)))
    assert await world.owed(0) - before == 1_797
    told = await world.explained(order)
    coat, scarf = told.lines
    assert (coat.paid_minor, coat.refunded_minor, coat.earned_minor, coat.reversed_minor) == (
        COAT_MINOR,
        0,
        1_797,
        0,
    )
    assert (scarf.paid_minor, scarf.refunded_minor, scarf.earned_minor, scarf.reversed_minor) == (
        SCARF_MINOR,
        SCARF_MINOR,
        389,
        389,
    )
    assert _credits(told) == {world.flagship: COAT_MINOR, world.nanjing_road: COAT_MINOR}
    assert told.books_agree


async def test_many_small_refunds_take_back_what_one_takes(world: World) -> None:
    _, order = await _buyer(world)
    before = await world.owed(0)
    await world.ingest(order.paid(*LINES))
    parts = [1, 2, 3, 4_999, 7, 2_938, 5_000]
    assert sum(parts) == SCARF_MINOR
    for number, part in enumerate(parts, 1):
        await world.ingest(order.refunded(refund_of("scarf", part), number=number))
    assert await world.owed(0) - before == 1_797
    assert (await world.explained(order)).books_agree


async def test_goodwill_is_spread_over_what_remains_paid_whichever_refund_came_first(
    running: Running,
) -> None:
    """A paid 100.00 at 10 %, B 100.00 at nothing; then 60.00 back for A, and 50.00 for the whole order."""
    rules = [
        rule_of("a", 1000, match=plan_pb2.Match(sku_ids=["A"])),
        rule_of("rest", 0),
    ]
    world = await a_world(running, plan=plan_of(*rules))
    lines = [line_of("A", 10_000), line_of("B", 10_000)]
    for first in ("line", "goodwill"):
        order = world.order()
        numbers = {"line": 1, "goodwill": 2} if first == "line" else {"line": 2, "goodwill": 1}
        on_a = order.refunded(refund_of("A", 6_000), number=numbers["line"])
        goodwill = order.refunded(number=numbers["goodwill"], goodwill_minor=5_000)
        before = await world.owed_to_pool(world.flagship)
        for event in (order.paid(*lines), *((on_a, goodwill) if first == "line" else (goodwill, on_a))):
            await world.ingest(event)
        assert await world.owed_to_pool(world.flagship) - before == 1_000 - 743, first
        assert (await world.explained(order)).books_agree


async def test_what_is_refunded_beyond_the_payment_is_told_and_posts_nothing(world: World) -> None:
    _, order = await _buyer(world)
    before = await world.owed(0)
    await world.ingest(order.refunded(refund_of("coat", COAT_MINOR + 100), goodwill_minor=SCARF_MINOR + 11))
    await world.ingest(order.paid(*LINES))
    told = await world.explained(order)
    assert told.refund_excess_minor == 111
    assert await world.owed(0) == before
    assert not any(_credits(told).values())
    assert told.books_agree


async def test_a_cancelled_order_earns_nothing(world: World) -> None:
    _, order = await _buyer(world)
    before = await world.owed(0)
    await world.ingest(order.paid(*LINES), order.refunded(refund_of("scarf", 5_000)))
    await world.ingest(order.closed())
    assert await world.owed(0) == before
    assert (await world.explained(order)).books_agree


async def test_instalments_add_up_before_they_are_rounded(world: World) -> None:
    """A presale: a deposit of 10 fen and a rest of 7. 3 % of each alone would be nothing."""
    _, order = await _buyer(world)
    before = await world.owed(0)
    await world.ingest(order.paid(line_of("coat", 10), number=1))
    assert await world.owed(0) == before
    await world.ingest(order.paid(line_of("coat", 7), number=2))
    assert await world.owed(0) - before == 1
    [line] = (await world.explained(order)).lines
    assert (line.paid_minor, line.earned_minor) == (17, 1)


# ---- any order, any grouping, any number of times ---------------------------------------------------


def _history(order: Order) -> list[OrderEvent]:
    """A sale with two payments, three refunds and some news."""
    return [
        order.placed(*LINES),
        order.paid(line_of("coat", 30_001), number=1),
        order.paid(line_of("coat", 29_899), line_of("scarf", SCARF_MINOR), number=2),
        order.shipped(),
        order.received(),
        order.refunded(refund_of("scarf", 333), number=1),
        order.refunded(refund_of("coat", 10_007), number=2),
        order.refunded(number=3, goodwill_minor=1_111),
    ]


async def test_any_order_repetition_and_grouping_of_events_gives_the_same_books(
    running: Running, world: World
) -> None:
    seed = random.SystemRandom().randrange(10**9)
    draw = random.Random(seed)
    expected: Counter[tuple[str, int, str, int, int]] | None = None
    _, identity = await world.bound(0)
    running.later(hours=3)
    for _ in range(12):
        order = world.order(identity=identity)
        events = _history(order)
        events += draw.choices(events, k=draw.randint(0, 8))
        draw.shuffle(events)
        while events:
            size = draw.randint(1, len(events))
            results = await world.ingest(*events[:size])
            assert {result.outcome for result in results} <= {APPLIED, DUPLICATE}, f"seed {seed}"
            events = events[size:]
        told = await world.explained(order)
        assert told.books_agree, f"seed {seed}"
        assert len(told.events) == 8
        expected = expected or _posted(told)
        assert _posted(told) == expected, f"seed {seed}"
    assert (await world.trial_balance()).total_minor == 0


async def test_events_of_one_order_that_come_at_once_are_all_counted_once(world: World) -> None:
    _, order = await _buyer(world)
    before = await world.owed(0)
    events = _history(order)

    async def told_until_taken(event: OrderEvent) -> None:
        for _ in range(20):
            [result] = await world.ingest(event)
            if result.error.reason != "ORDER_CHANGED":
                assert result.outcome in {APPLIED, DUPLICATE}
                return

    await asyncio.gather(*[told_until_taken(event) for event in events * 3])
    told = await world.explained(order)
    assert told.books_agree
    assert len(told.events) == 8
    earned = sum(line.earned_minor - line.reversed_minor for line in told.lines)
    assert await world.owed(0) - before == earned
    assert (await world.trial_balance()).total_minor == 0


async def test_two_orders_of_one_number_on_two_channels_are_two(world: World) -> None:
    on_tmall = world.order()
    at_the_till = Order(POS, on_tmall.order_id, on_tmall.placed_time, {"selling_store_id": world.xintiandi})
    before = await world.owed_to_pool(world.xintiandi)
    await world.ingest(on_tmall.paid(line_of("coat", 10_000)), at_the_till.paid(line_of("coat", 20_000)))
    assert [line.paid_minor for line in (await world.explained(on_tmall)).lines] == [10_000]
    assert await world.owed_to_pool(world.xintiandi) - before == 600


# ---- parked, then settled ---------------------------------------------------------------------------


async def test_an_order_of_a_shop_that_nobody_has_waits_until_somebody_has_it(running: Running) -> None:
    world = await a_world(running, plan=plan_of())
    _, identity = await world.bound(0)
    running.later(hours=3)
    order = world.order(identity=identity, shop_id=f"new-{world.shop_id}")
    results = await world.ingest(order.placed(*LINES), order.paid(*LINES))
    assert {(one.outcome, one.error.reason) for one in results} == {(PARKED, "SHOP_UNKNOWN")}
    told = await world.explained(order)
    assert not told.HasField("attribution")
    assert not told.entries
    [repeat] = await world.ingest(order.paid(*LINES))
    assert repeat.outcome == DUPLICATE, "it need not be sent again"
    shop = ShopAccount(channel=TMALL, shop_id=f"new-{world.shop_id}")
    store = directory_pb2.Store(
        display_name="Second flagship", kind=directory_pb2.STORE_KIND_FLAGSHIP, shops=[shop]
    )
    opened = await world.admin.directory.CreateStore(
        directory_pb2.CreateStoreRequest(brand_id=world.brand_id, request_id=request_id(), store=store)
    )
    running.later(seconds=20)

    async def settled() -> bool:
        return (await world.explained(order)).HasField("attribution")

    await eventually(settled, "the parked order is attributed")
    told = await world.explained(order)
    assert told.attribution.owner.guide_id == world.guides[0]
    assert told.attribution.flagship_store_id == opened.store.store_id
    assert told.books_agree
    assert await world.owed(0) == EARNED_MINOR
    assert (await world.trial_balance()).total_minor == 0


async def test_a_parked_order_is_attributed_as_known_when_it_came(running: Running) -> None:
    """Who takes the customer over while the order waits gets nothing of it."""
    policy = BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS)
    world = await a_world(running, plan=plan_of(), policy=policy)
    other = await a_world(running, member=False)
    _, identity = await world.bound(0)
    running.later(hours=3)
    order = world.order(POS, identity=identity, selling_store_id=other.nanjing_road)
    [result] = await world.ingest(order.paid(*LINES))
    assert (result.outcome, result.error.reason) == (PARKED, "STORE_UNKNOWN"), "another brand's store"
    shop = f"late-{world.shop_id}"
    waiting = world.order(identity=identity, shop_id=shop)
    [result] = await world.ingest(waiting.paid(*LINES))
    assert result.outcome == PARKED
    running.later(seconds=1)
    # Reported late: he had scanned before he ordered.
    scanned = to_timestamp(waiting.placed_time - timedelta(minutes=1))
    await world.scan(await world.code(1), identity, scanned_time=scanned)
    await world.admin.directory.CreateStore(
        directory_pb2.CreateStoreRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            store=store_of("Late", shops=[ShopAccount(channel=TMALL, shop_id=shop)]),
        )
    )
    running.later(seconds=20)

    async def settled() -> bool:
        return (await world.explained(waiting)).HasField("attribution")

    await eventually(settled, "the parked order is attributed")
    told = await world.explained(waiting)
    assert told.attribution.owner.guide_id == world.guides[0]
    # To the hundredth of a second: whoever reads the log and the reply should find one time.
    stored = min(event.recorded_time.ToDatetime() for event in told.events)
    assert told.attribution.known_at_time.ToDatetime() == stored


async def test_no_order_is_lost_while_the_members_service_is_away(running: Running) -> None:
    world = await a_world(running, plan=plan_of())
    _, identity = await world.bound(0)
    running.later(hours=3)
    # The first order makes commission acquainted with the brand.
    await world.ingest(world.order().paid(line_of("coat", 100)))
    await running.stack.terminate("members")
    try:
        order = world.order(identity=identity)
        results = await world.ingest(order.placed(*LINES), order.paid(*LINES))
        assert {(one.outcome, one.error.reason) for one in results} == {(PARKED, "ATTRIBUTION_PENDING")}
    finally:
        await running.stack.start_service("members")
    running.later(seconds=20)

    async def settled() -> bool:
        return (await world.explained(order)).HasField("attribution")

    await eventually(settled, "the parked order is attributed")
    assert await world.owed(0) == EARNED_MINOR
    assert (await world.explained(order)).books_agree


# ---- plans ------------------------------------------------------------------------------------------


async def test_the_first_rule_that_matches_decides(running: Running) -> None:
    rules = [
        rule_of("till", 100, match=plan_pb2.Match(channels=[POS])),
        rule_of("shoes", 200, match=plan_pb2.Match(category_ids=["shoes"], channels=[TMALL])),
        rule_of("one-coat", 500, 5_000, match=plan_pb2.Match(sku_ids=["coat"])),
        rule_of("never", 900, match=plan_pb2.Match(sku_ids=["coat"])),
    ]
    world = await a_world(running, plan=plan_of(*rules))
    order = world.order()
    lines = [
        line_of("boots", 10_000, category_id="shoes"),
        line_of("coat", 10_000),
        line_of("scarf", 10_000),
    ]
    await world.ingest(order.paid(*lines))
    told = await world.explained(order)
    assert [
        (one.line_id, one.rule_id, one.rate_bp, one.earned_minor, one.distributable_minor)
        for one in told.lines
    ] == [
        ("boots", "shoes", 200, 200, 200),
        ("coat", "one-coat", 500, 500, 250),
        ("scarf", "", 0, 0, 0),
    ]
    assert await world.owed_to_pool(world.flagship) == 450
    at_the_till = world.order(POS)
    await world.ingest(at_the_till.paid(*lines))
    assert {one.rule_id for one in (await world.explained(at_the_till)).lines} == {"till"}
    assert await world.owed_to_pool(world.nanjing_road) == 300
    assert (await world.trial_balance()).total_minor == 0


async def test_the_plan_in_force_when_the_order_was_placed_counts(running: Running) -> None:
    world = await a_world(running)
    now = running.now()
    change = now + timedelta(days=1)
    for plan in (
        plan_of(rule_of("old", 300), effective_to_time=to_timestamp(change)),
        plan_of(rule_of("new", 400), effective_from_time=to_timestamp(change)),
    ):
        await world.admin.plans.PublishPlan(
            plan_pb2.PublishPlanRequest(brand_id=world.brand_id, request_id=request_id(), plan=plan)
        )
    running.later(days=2)
    moment = timedelta(milliseconds=1)
    for placed_time, rule in ((change - moment, "old"), (change, "new"), (now - timedelta(days=9), "")):
        order = Order(TMALL, f"order-{rule}-{request_id()}", placed_time, {"shop_id": world.shop_id})
        await world.ingest(order.paid(line_of("coat", 10_000)))
        [line] = (await world.explained(order)).lines
        assert line.rule_id == rule
    listed = await world.connector.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=world.brand_id))
    assert [plan.rules[0].rule_id for plan in listed.plans] == ["old", "new"]


async def test_publishing_a_plan_is_recorded_and_a_repeat_publishes_nothing(running: Running) -> None:
    world = await a_world(running)
    request = plan_pb2.PublishPlanRequest(brand_id=world.brand_id, request_id=request_id(), plan=plan_of())
    first = await world.admin.plans.PublishPlan(request)
    with running.nothing_written(world.brand_id):
        assert await world.admin.plans.PublishPlan(request) == first
    [record] = running.documents("commission", "audit", {"brand_id": world.brand_id})
    assert (record["action"], record["subject"]["plan_id"]) == ("PublishPlan", first.plan.plan_id)


# ---- the ledger -------------------------------------------------------------------------------------


async def test_a_guide_reads_her_own_balance_and_nobody_elses(world: World) -> None:
    _, order = await _buyer(world, 1)
    await world.ingest(order.paid(*LINES))
    own = ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=world.guides[1])
    reply = await world.guide(1).ledger.GetBalance(own)
    assert reply.payable_minor == await world.owed(1) >= EARNED_MINOR
    assert reply.currency_code == "CNY"
    for asked in (own, ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, pool_store_id=world.flagship)):
        found = await refusal(world.guide(0).ledger.GetBalance(asked))
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOURS")


async def test_who_has_earned_nothing_is_owed_nothing(running: Running) -> None:
    world = await a_world(running)
    reply = await world.guide().ledger.GetBalance(
        ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    )
    assert (reply.payable_minor, reply.currency_code) == (0, "")


async def test_balances_and_the_trial_balance_are_as_of_a_moment(running: Running) -> None:
    world = await a_world(running, plan=plan_of())
    order = world.order()
    await world.ingest(order.paid(*LINES))
    running.later(seconds=5)
    between = to_timestamp(running.now())
    running.later(seconds=5)
    await world.ingest(order.refunded(refund_of("scarf", SCARF_MINOR)))
    for as_of, owed, entries in ((between, EARNED_MINOR, 1), (None, 1_797, 2)):
        balance = await world.admin.ledger.GetBalance(
            ledger_pb2.GetBalanceRequest(
                brand_id=world.brand_id, pool_store_id=world.flagship, as_of_time=as_of
            )
        )
        assert balance.payable_minor == owed
        trial = await world.admin.ledger.GetTrialBalance(
            ledger_pb2.GetTrialBalanceRequest(brand_id=world.brand_id, as_of_time=as_of)
        )
        assert {one.account: one.amount_minor for one in trial.accounts} == {
            ledger_pb2.ACCOUNT_EXPENSE: owed,
            ledger_pb2.ACCOUNT_PAYABLE: -owed,
        }
        assert (trial.total_minor, trial.entry_count, trial.currency_code) == (0, entries, "CNY")


async def test_every_entry_sums_to_zero_and_names_its_cause(world: World) -> None:
    _, order = await _buyer(world)
    for event in _history(order):
        await world.ingest(event)
    told = await world.explained(order)
    assert told.books_agree
    assert [event.event_id for event in told.events] == [
        "PLACED",
        "PAID:1",
        "PAID:2",
        "SHIPPED:SF1",
        "RECEIVED",
        "REFUND:1",
        "REFUND:2",
        "REFUND:3",
    ]
    causes = [list(entry.cause_event_ids) for entry in told.entries]
    assert causes == [["PAID:1"], ["PAID:2"], ["REFUND:1"], ["REFUND:2"], ["REFUND:3"]]
    for entry in told.entries:
        assert sum(posting.amount_minor for posting in entry.postings) == 0
        assert entry.postings
    recorded = [entry.recorded_time.ToDatetime() for entry in told.entries]
    assert recorded == sorted(recorded)
    shared = [part for line in told.lines for part in line.shared]
    assert {part.payee.guide_id for part in shared} == {world.guides[0]}
    for line, part in zip(told.lines, shared, strict=True):
        assert (part.earned_minor, part.reversed_minor) == (line.distributable_minor, line.reversed_minor)
    postings = [posting for entry in told.entries for posting in entry.postings]
    owed = sum(line.distributable_minor - line.reversed_minor for line in told.lines)
    by_account: Counter[int] = Counter()
    for posting in postings:
        by_account[posting.account] += posting.amount_minor
    assert by_account == {ledger_pb2.ACCOUNT_EXPENSE: owed, ledger_pb2.ACCOUNT_PAYABLE: -owed}


async def test_books_that_somebody_has_changed_no_longer_agree(running: Running, world: World) -> None:
    """`books_agree` looks: one fen moved in the database, and it says so."""
    order = world.order()
    await world.ingest(order.paid(*LINES))
    assert (await world.explained(order)).books_agree
    journal = running.database("commission")["journal"]
    entry = journal.find_one({"order_key": {"$regex": order.order_id}})
    assert entry is not None
    journal.update_one({"_id": entry["_id"]}, {"$inc": {"postings.0.amount_minor": 1}})
    assert not (await world.explained(order)).books_agree
    assert (await world.trial_balance()).total_minor == 1
    journal.replace_one({"_id": entry["_id"]}, entry)
    assert (await world.explained(order)).books_agree


@pytest.mark.parametrize(
    ("time_zone", "utc", "day"),
    [
        ("Asia/Shanghai", "2026-10-31T15:59:59", (2026, 10, 31)),
        ("Asia/Shanghai", "2026-10-31T16:00:00", (2026, 11, 1)),
        ("America/New_York", "2026-11-01T03:59:59", (2026, 10, 31)),
        ("America/New_York", "2026-11-01T04:00:00", (2026, 11, 1)),
    ],
)
async def test_days_and_months_begin_at_the_brands_midnight(
    running: Running, time_zone: str, utc: str, day: tuple[int, int, int]
) -> None:
    world = await a_world(running, time_zone=time_zone)
    paid = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    # The plans' times are of the running clock; this order lies where the calendar is tested.
    assert paid < running.now()
    order = Order(TMALL, f"order-{request_id()}", paid, {"shop_id": world.shop_id})
    await world.ingest(order.paid(line_of("coat", 100), after=timedelta(0)))
    [credit] = (await world.explained(order)).sales_credits
    assert (credit.date.year, credit.date.month, credit.date.day) == day
    assert paid.astimezone(ZoneInfo(time_zone)).day == day[2]


async def test_a_refund_of_next_month_is_posted_in_its_own(running: Running) -> None:
    world = await a_world(running, plan=plan_of())
    # Far enough ahead of the plan that the order of last month still falls under it.
    running.later(days=70)
    now = running.now()
    month_begins = now.astimezone(ZoneInfo("Asia/Shanghai")).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    order = Order(
        TMALL, f"order-{request_id()}", month_begins - timedelta(minutes=30), {"shop_id": world.shop_id}
    )
    await world.ingest(
        order.paid(*LINES),
        order.refunded(refund_of("coat", COAT_MINOR)),  # an hour later
    )
    told = await world.explained(order)
    last = (month_begins - timedelta(days=1)).date()
    months = {(entry.posting_month.year, entry.posting_month.month) for entry in told.entries}
    assert months == {(last.year, last.month), (month_begins.year, month_begins.month)}
    assert all(entry.posting_month.day == 0 for entry in told.entries)
    by_day = {_date(one.date): one.amount_minor for one in told.sales_credits}
    assert by_day == {
        (last.year, last.month, last.day): COAT_MINOR + SCARF_MINOR,
        (month_begins.year, month_begins.month, 1): -COAT_MINOR,
    }
    assert told.books_agree


def _date(date: Date) -> tuple[int, int, int]:
    return date.year, date.month, date.day


async def test_a_thousand_orders_in_one_call_keep_the_books_in_balance(running: Running) -> None:
    world = await a_world(running, plan=plan_of())
    buyers = [(await world.bound(index))[1] for index in range(3)]
    running.later(hours=3)
    orders = [world.order(identity=buyers[index % 3]) for index in range(500)]
    events = list(
        itertools.chain.from_iterable((order.placed(*LINES), order.paid(*LINES)) for order in orders)
    )
    results = await world.ingest(*events)
    assert Counter(result.outcome for result in results) == {APPLIED: 1000}
    owed = [await world.owed(index) for index in range(3)]
    assert owed == [167 * EARNED_MINOR, 167 * EARNED_MINOR, 166 * EARNED_MINOR]
    trial = await world.trial_balance()
    assert (trial.total_minor, trial.entry_count) == (0, 500)
    repeats = await world.ingest(*events)
    assert Counter(result.outcome for result in repeats) == {DUPLICATE: 1000}
    assert await world.trial_balance() == trial


async def test_a_connector_may_report_for_its_brand_alone(world: World, running: Running) -> None:
    stranger = running.caller("CONNECTOR", brand="b" * 16)
    request = order_event_pb2.IngestOrderEventsRequest(
        brand_id=world.brand_id, events=[world.order().paid(*LINES)]
    )
    with running.nothing_written(world.brand_id):
        found = await refusal(stranger.events.IngestOrderEvents(request))
    assert found.reason == "NOT_YOUR_BRAND"


async def test_members_hears_of_what_was_bought_and_of_nothing_else(world: World) -> None:
    """The latest payment of each member, also of one who was known to the order by his identity alone."""
    member_id, buyer = await world.bound(0)
    idle_id, _ = await world.bound(1)
    world.running.later(hours=3)
    order = world.order(identity=buyer)
    await world.ingest(order.paid(line_of("coat", 10_000)), order.paid(line_of("scarf", 100), number=2))

    async def told() -> bool:
        query = {"brand_id": world.brand_id, "member_id": member_id}
        [member] = world.running.documents("members", "members", query)
        latest = member.get("last_purchase_time")
        return latest is not None and latest.replace(tzinfo=UTC) == order.placed_time + timedelta(minutes=2)

    await eventually(told, "members knows of the purchase")
    [idle] = world.running.documents("members", "members", {"member_id": idle_id})
    assert "last_purchase_time" not in idle

    async def nothing_left() -> bool:
        waiting = {"brand_id": world.brand_id, "outbox": {"$exists": True}}
        return not world.running.documents("commission", "orders", waiting)

    await eventually(nothing_left, "the outbox is empty")
    await world.ingest(order.refunded(refund_of("coat", 5_000)))
    assert await nothing_left(), "a refund is no purchase"


async def test_an_order_that_others_are_writing_is_explained_as_of_one_moment(running: Running) -> None:
    """What is posted while it is being read is left to the next who asks, and is no difference."""
    world = await a_world(running, plan=plan_of())
    _, order = await _buyer(world)
    await world.ingest(order.paid(*LINES))
    refunds = [order.refunded(refund_of("coat", 100), number=number) for number in range(1, 60)]

    async def report() -> None:
        for refund in refunds:
            await world.ingest(refund)

    reporting = asyncio.create_task(report())
    while not reporting.done():
        for told in await asyncio.gather(*(world.explained(order) for _ in range(4))):
            assert (told.books_agree, told.credits_agree) == (True, True)
    await reporting
    assert len((await world.explained(order)).events) == 60
