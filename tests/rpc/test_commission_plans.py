"""What plans promise, over the wire: who had a part in a sale, when it is payable, what comes first."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from prometheus_client.parser import text_string_to_metric_families

from chassis.ids import derived_id
from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, plan_pb2
from daogou.commission.v1.ledger_pb2 import ExplainOrderResponse, OwnerBasis
from daogou.commission.v1.order_event_pb2 import (
    EventOutcome,
    OpenedShareLink,
    OrderEvent,
    OrderEventKind,
    RefundLine,
)
from daogou.commission.v1.plan_pb2 import (
    ABSENT_ROLE_KEEP,
    ABSENT_ROLE_OWNER,
    ABSENT_ROLE_STORE_POOL,
    PAYEE_ROLE_OWNER,
    PAYEE_ROLE_REFERRER_1,
    PAYEE_ROLE_REFERRER_2,
    PAYEE_ROLE_SERVING,
    PAYEE_ROLE_STORE_MANAGER,
    PayeeRole,
)
from daogou.common.v1.channel_pb2 import Channel
from daogou.members.v1 import directory_pb2, handover_pb2
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from tests.rpc.running import Running, eventually
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

APPLIED: Final = EventOutcome.EVENT_OUTCOME_APPLIED
PARKED: Final = EventOutcome.EVENT_OUTCOME_PARKED
TMALL, POS = Channel.CHANNEL_TMALL, Channel.CHANNEL_POS
RECEIVED: Final = OrderEventKind.ORDER_EVENT_KIND_RECEIVED
SHIPPED: Final = OrderEventKind.ORDER_EVENT_KIND_SHIPPED
REFUNDED: Final = OrderEventKind.ORDER_EVENT_KIND_REFUNDED

COAT: Final = line_of("coat", 10_000)
OWNER, SERVES, SHARES, PARENT = 0, 1, 2, 3
"""Guides by what they do here: the first two stand in Nanjing Road, the others in Xintiandi."""


def share(role: PayeeRole.ValueType, share_bp: int, absent: int = 0) -> plan_pb2.Share:
    return plan_pb2.Share(role=role, share_bp=share_bp, absent=absent)  # type: ignore[arg-type]


FIVE_ROLES: Final = (
    share(PAYEE_ROLE_OWNER, 4000),
    share(PAYEE_ROLE_SERVING, 2000),
    share(PAYEE_ROLE_REFERRER_1, 2000),
    share(PAYEE_ROLE_REFERRER_2, 1000),
    share(PAYEE_ROLE_STORE_MANAGER, 1000),
)


def shared_by(*shares: plan_pb2.Share, rate_bp: int = 1000, **more: Any) -> plan_pb2.Rule:
    """A rule of 10 % that is shared out so."""
    return plan_pb2.Rule(rule_id="all", rate_bp=rate_bp, shares=shares, **more)


def opened(world: World, order: Order, hours: float, maker: int | None, parent: int | None = None) -> Any:
    """A share link that the buyer opened so many hours before he ordered."""
    return OpenedShareLink(
        open_time=to_timestamp(order.placed_time - timedelta(hours=hours)),
        maker_guide_id="" if maker is None else world.guides[maker],
        parent_maker_guide_id="" if parent is None else world.guides[parent],
    )


async def named_manager(world: World, store_id: str, guide: int) -> None:
    """A guide becomes the manager of a store."""
    await world.admin.directory.UpdateStore(
        directory_pb2.UpdateStoreRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            store_id=store_id,
            store=directory_pb2.Store(manager_guide_id=world.guides[guide]),
            update_mask=FieldMask(paths=["manager_guide_id"]),
        )
    )


async def an_order(world: World, guide: int | None = OWNER, channel: Any = POS, **more: Any) -> Order:
    """An order of a guide's member, or of somebody unknown, of two hours ago."""
    if guide is None:
        return world.order(channel, **more)
    _, identity = await world.bound(guide)
    world.running.later(hours=3)
    return world.order(channel, identity=identity, **more)


async def taken_in(world: World, *events: OrderEvent) -> None:
    """Reports events, which are applied."""
    assert {(one.outcome, one.error.reason) for one in await world.ingest(*events)} == {(APPLIED, "")}


async def balance(world: World, guide: int) -> tuple[int, int]:
    """What a guide has held and what is payable to her, in fen."""
    request = ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=world.guides[guide])
    found = await world.admin.ledger.GetBalance(request)
    return found.held_minor, found.payable_minor


def parts(world: World, told: ExplainOrderResponse) -> dict[str, int]:
    """What each payee has earned of an order, guides by their number."""
    found: Counter[str] = Counter()
    for line in told.lines:
        for part in line.shared:
            guide_id = part.payee.guide_id
            name = str(world.guides.index(guide_id)) if guide_id else f"pool {part.payee.pool_store_id}"
            found[name] += part.earned_minor
    return dict(found)


# ---- roles ------------------------------------------------------------------------------------------


async def test_everybody_who_had_a_part_in_the_sale_is_paid_for_it(running: Running) -> None:
    """100.00 at 10 %: 40 for the owner, 20 for who served, 20 and 10 for the links, 10 for the manager."""
    world = await a_world(running, guides=4, plan=plan_of(shared_by(*FIVE_ROLES)))
    await named_manager(world, world.nanjing_road, OWNER)
    order = await an_order(world, serving_guide_id=world.guides[SERVES])
    link = opened(world, order, 5, SHARES, PARENT)
    await taken_in(world, order.paid(COAT, share_link=link, campaign_id="spring", member_tier="gold"))
    assert [await balance(world, guide) for guide in range(4)] == [(0, 500), (0, 200), (0, 200), (0, 100)]
    told = await world.explained(order)
    assert told.attribution.owner_basis == OwnerBasis.OWNER_BASIS_BINDING
    frozen = told.attribution
    named = (frozen.owner, frozen.serving, frozen.referrer_1, frozen.referrer_2, frozen.store_manager)
    assert [world.guides.index(payee.guide_id) for payee in named] == [0, 1, 2, 3, 0]
    assert (frozen.campaign_id, frozen.member_tier) == ("spring", "gold")
    [line] = told.lines
    roles = {part.payee.guide_id: (list(part.roles), part.share_bp) for part in line.shared}
    assert roles[world.guides[OWNER]] == ([PAYEE_ROLE_OWNER, PAYEE_ROLE_STORE_MANAGER], 5000)
    assert told.books_agree
    assert (await world.trial_balance()).total_minor == 0


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        (ABSENT_ROLE_KEEP, {"0": 166, "1": 100}),
        (ABSENT_ROLE_OWNER, {"0": 233, "1": 100}),
        (ABSENT_ROLE_STORE_POOL, {"0": 166, "1": 100, "pool": 67}),
    ],
)
async def test_the_share_of_nobody_goes_where_the_plan_says(
    running: Running, absent: int, expected: dict[str, int]
) -> None:
    """33.30 at 10 % in 50, 30 and 20, and nobody shared a link. The pool is that of the store that sold."""
    split = (share(PAYEE_ROLE_OWNER, 5000), share(PAYEE_ROLE_SERVING, 3000))
    plan = plan_of(shared_by(*split, share(PAYEE_ROLE_REFERRER_1, 2000, absent)))
    world = await a_world(running, plan=plan)
    order = await an_order(world, selling_store_id=world.xintiandi, serving_guide_id=world.guides[SERVES])
    await taken_in(world, order.paid(line_of("coat", 3330)))
    told = await world.explained(order)
    pool = f"pool {world.xintiandi}"
    assert parts(world, told) == {pool if name == "pool" else name: part for name, part in expected.items()}
    assert told.lines[0].distributable_minor == sum(expected.values())
    assert await world.owed_to_pool(world.xintiandi) == expected.get("pool", 0)
    assert told.books_agree


@pytest.mark.parametrize(
    ("claims", "owner", "basis", "manager"),
    [
        ({"link": 1, "serving": SERVES}, SHARES, OwnerBasis.OWNER_BASIS_SHARE_LINK, "xintiandi"),
        ({"link": 24, "serving": SERVES}, SHARES, OwnerBasis.OWNER_BASIS_SHARE_LINK, "xintiandi"),
        ({"link": 24.01, "serving": SERVES}, SERVES, OwnerBasis.OWNER_BASIS_SERVING_GUIDE, "nanjing_road"),
        ({"link": -0.01, "serving": SERVES}, SERVES, OwnerBasis.OWNER_BASIS_SERVING_GUIDE, "nanjing_road"),
        ({"link": 1, "maker": None}, None, OwnerBasis.OWNER_BASIS_STORE_POOL, "flagship"),
        ({"serving": SERVES}, SERVES, OwnerBasis.OWNER_BASIS_SERVING_GUIDE, "nanjing_road"),
        ({}, None, OwnerBasis.OWNER_BASIS_STORE_POOL, "flagship"),
    ],
    ids=["link", "link of a day", "too old", "after the order", "a member's link", "served", "nobody"],
)
async def test_who_has_the_strongest_claim_owns_what_nobody_is_bound_to(
    managed: World, claims: dict[str, Any], owner: int | None, basis: int, manager: str
) -> None:
    """The manager of where the owner stood has a part in it; a link counts for 24 hours by this plan."""
    world = managed
    order = world.order(TMALL)
    fields: dict[str, Any] = {}
    if "link" in claims:
        fields["share_link"] = opened(world, order, claims["link"], claims.get("maker", SHARES))
    if "serving" in claims:
        fields["serving_guide_id"] = world.guides[claims["serving"]]
    await taken_in(world, order.paid(COAT, **fields))
    told = await world.explained(order)
    assert told.attribution.owner_basis == basis
    if owner is None:
        assert told.attribution.owner.pool_store_id == world.flagship
    else:
        assert told.attribution.owner.guide_id == world.guides[owner]
    assert told.attribution.owner_store_id == "", "a link or a service adds no store"
    assert {one.store_id for one in told.sales_credits} == {world.flagship}
    managers = {"nanjing_road": 3, "xintiandi": 4, "flagship": 5}
    assert told.attribution.store_manager.guide_id == world.guides[managers[manager]]
    assert told.books_agree


@pytest.fixture(scope="module")
async def managed(running: Running) -> World:
    """A brand whose three stores have a manager each; links count for a day."""
    world = await a_world(running, guides=6, plan=plan_of(shared_by(*FIVE_ROLES), share_link_hours=24))
    stores = (world.nanjing_road, world.xintiandi, world.flagship)
    for guide, store_id in enumerate(stores, start=3):
        await named_manager(world, store_id, guide)
    return world


async def test_every_order_of_a_store_is_managed_by_its_manager(managed: World) -> None:
    """Not only the first for which the directory was asked."""
    for _ in range(3):
        order = managed.order(TMALL)
        await taken_in(managed, order.paid(COAT))
        told = await managed.explained(order)
        assert told.attribution.store_manager.guide_id == managed.guides[5]


async def test_a_manager_who_has_left_has_no_part_in_what_is_ordered_afterwards(running: Running) -> None:
    """What was ordered before she left is hers, though it is reported later; she stays named meanwhile."""
    world = await a_world(running, guides=4, plan=plan_of(shared_by(share(PAYEE_ROLE_STORE_MANAGER, 10_000))))
    await named_manager(world, world.nanjing_road, 3)
    before = world.order(POS)
    handovers = HandoverServiceStub(world.admin.channel("members"))
    resigned = handover_pb2.ResignGuideRequest(
        brand_id=world.brand_id, request_id=request_id(), guide_id=world.guides[3]
    )
    await handovers.ResignGuide(resigned)
    running.later(hours=3)
    after = world.order(POS)
    await taken_in(world, before.paid(COAT), after.paid(COAT))
    assert (await world.explained(before)).attribution.store_manager.guide_id == world.guides[3]
    assert not (await world.explained(after)).attribution.HasField("store_manager")
    assert await balance(world, 3) == (0, 1000)


@pytest.mark.parametrize("bearer", plan_pb2.CostBearer.values())
async def test_the_cost_is_borne_by_whom_the_plan_says(running: Running, bearer: int) -> None:
    """A sale in Xintiandi to a member of Nanjing Road."""
    rule = shared_by(share(PAYEE_ROLE_OWNER, 10_000), cost_bearer=bearer)
    world = await a_world(running, plan=plan_of(rule))
    order = await an_order(world, selling_store_id=world.xintiandi)
    await taken_in(world, order.paid(COAT), order.refunded(refund_of("coat", 4000)))
    told = await world.explained(order)
    borne: Counter[str] = Counter()
    for entry in told.entries:
        for posting in entry.postings:
            if posting.account == ledger_pb2.ACCOUNT_EXPENSE:
                assert posting.payee.WhichOneof("payee") in (None, "bearing_store_id")
                borne[posting.payee.bearing_store_id] += posting.amount_minor
    expected = {
        plan_pb2.COST_BEARER_SELLING_STORE: world.xintiandi,
        plan_pb2.COST_BEARER_RECRUITING_STORE: world.nanjing_road,
    }
    assert borne == {expected.get(bearer, ""): 600}  # type: ignore[call-overload]
    assert told.books_agree


async def test_a_guide_of_the_sale_who_is_not_in_the_directory_is_waited_for(running: Running) -> None:
    """The till knows her before the directory does. When she is hired it is settled, and she is paid."""
    world = await a_world(running, plan=plan_of(shared_by(share(PAYEE_ROLE_SERVING, 10_000))))
    hired = request_id()
    # A guide's id follows from the request that hires her.
    guide_id = derived_id("guide", world.brand_id, hired, "0")
    orders = [world.order(POS) for _ in range(4)]
    maker = OpenedShareLink(open_time=to_timestamp(orders[0].placed_time), maker_guide_id=guide_id)
    parent = OpenedShareLink(open_time=to_timestamp(orders[0].placed_time), parent_maker_guide_id=guide_id)
    stale = OpenedShareLink(open_time=to_timestamp(running.now()), maker_guide_id=guide_id)
    results = await world.ingest(
        orders[0].paid(COAT, serving_guide_id=guide_id),
        orders[1].paid(COAT, share_link=maker),
        orders[2].paid(COAT, share_link=parent),
        orders[3].paid(COAT, share_link=stale),
    )
    assert [(one.outcome, one.error.reason) for one in results] == [
        *[(PARKED, "GUIDE_UNKNOWN")] * 3,
        (APPLIED, ""),
    ], "a link that was opened after the order says nothing, and is not waited for"
    assert not (await world.explained(orders[0])).HasField("attribution")
    await world.admin.directory.CreateGuide(
        directory_pb2.CreateGuideRequest(
            brand_id=world.brand_id,
            request_id=hired,
            guide=directory_pb2.Guide(store_id=world.xintiandi, display_name="Eve"),
        )
    )
    running.later(seconds=20)

    async def settled() -> bool:
        return all([(await world.explained(order)).HasField("attribution") for order in orders])

    await eventually(settled, "the parked orders are attributed")
    told = await world.explained(orders[0])
    assert told.attribution.serving.guide_id == guide_id
    assert told.attribution.known_at_time == told.events[0].recorded_time
    request = ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=guide_id)
    assert (await world.admin.ledger.GetBalance(request)).payable_minor == 1000
    assert told.books_agree


# ---- what a line earns ------------------------------------------------------------------------------


async def test_pieces_caps_tiers_and_the_platforms_part_are_told_as_they_were_counted(
    running: Running,
) -> None:
    """Three hats at 0.50 of which one comes back; shoes capped at 3.00; gold of 80.00 and 20.00 at 5 %."""
    matches = [plan_pb2.Match(category_ids=[name]) for name in ("hats", "shoes")]
    world = await a_world(
        running,
        plan=plan_of(
            rule_of("by-piece", 0, per_unit_minor=50, match=matches[0]),
            rule_of("capped", 1000, cap_minor=300, floor_minor=100, match=matches[1]),
            rule_of(
                "gold",
                500,
                base=plan_pb2.COMMISSION_BASE_PAID_PLUS_SUBSIDY,
                match=plan_pb2.Match(member_tiers=["gold"], campaign_ids=["spring"]),
            ),
        ),
    )
    order = world.order(POS, member_tier="gold", campaign_id="spring")
    lines = [
        line_of("hat", 3000, quantity=3, category_id="hats"),
        line_of("shoe", 10_000, category_id="shoes"),
        line_of("gift", 0, category_id="shoes"),
        line_of("coat", 8000, subsidy_minor=2000),
    ]
    await taken_in(
        world, order.paid(*lines), order.refunded(refund_of("hat", 1), refund_of("shoe", 5000), number=1)
    )
    told = await world.explained(order)
    assert [
        (one.line_id, one.rule_id, one.earned_minor, one.returned_quantity, one.reversed_minor)
        for one in told.lines
    ] == [
        ("coat", "gold", 500, 0, 0),
        ("gift", "capped", 0, 0, 0),
        ("hat", "by-piece", 150, 1, 50),
        ("shoe", "capped", 300, 1, 150),
    ]
    assert {one.line_id: one.per_unit_minor for one in told.lines}["hat"] == 50
    assert await world.owed_to_pool(world.nanjing_road) == 500 + 100 + 150
    assert told.books_agree


# ---- holds ------------------------------------------------------------------------------------------

DAYS: Final = 7
ON_TMALL: Final = plan_pb2.Hold(channel=TMALL, days=DAYS)


def received(order: Order, **after: float) -> OrderEvent:
    return order.event("RECEIVED", RECEIVED, after=timedelta(**after))


def back(order: Order, number: int, refunded_minor: int, **after: float) -> OrderEvent:
    lines = [RefundLine(line_id="coat", refunded_minor=refunded_minor)]
    return order.event(f"REFUND:{number}", REFUNDED, after=timedelta(**after), refund_lines=lines)


async def becomes(world: World, guide: int, expected: tuple[int, int]) -> None:
    """Waits until the sweeper has come by, and looks again a little later."""

    async def so() -> bool:
        return await balance(world, guide) == expected

    await eventually(so, f"{expected} are held and payable")
    await asyncio.sleep(1.5)
    assert await balance(world, guide) == expected


async def test_what_is_held_becomes_payable_once_and_a_refund_takes_from_where_it_stands(
    running: Running,
) -> None:
    """10.00 held; 2.00 taken back; 8.00 payable a week after receipt; 3.00 taken back of those.

    Then a refund becomes known that happened before: 1.00 less was to be confirmed.
    """
    world = await a_world(running, plan=plan_of(rule_of(rate_bp=1000), holds=[ON_TMALL]))
    order = await an_order(world, channel=TMALL)
    await taken_in(world, order.paid(COAT), received(order, hours=1))
    assert await balance(world, OWNER) == (1000, 0)
    told = await world.explained(order)
    ready = order.placed_time + timedelta(hours=1, days=DAYS)
    assert told.confirm_time == to_timestamp(ready)
    await taken_in(world, back(order, 1, 2000, hours=1, minutes=30))
    assert await balance(world, OWNER) == (800, 0)
    running.later(days=DAYS - 1)
    await asyncio.sleep(2.5)
    assert await balance(world, OWNER) == (800, 0), "a day too early"
    running.later(days=1)
    await becomes(world, OWNER, (0, 800))
    await taken_in(world, back(order, 2, 3000, days=DAYS, hours=1, minutes=30))
    assert await balance(world, OWNER) == (0, 500)
    await taken_in(world, back(order, 3, 1000, days=2))
    await becomes(world, OWNER, (0, 400))
    told = await world.explained(order)
    assert told.books_agree
    assert [list(entry.cause_event_ids) for entry in told.entries].count(["CONFIRMED"]) == 1
    months = {
        (entry.posting_month.year, entry.posting_month.month)
        for entry in told.entries
        if list(entry.cause_event_ids) == ["CONFIRMED"]
    }
    local: datetime = ready.astimezone(ZoneInfo("Asia/Shanghai"))
    assert months == {(local.year, local.month)}
    trial = await world.trial_balance()
    sums = {one.account: one.amount_minor for one in trial.accounts}
    assert sums == {
        ledger_pb2.ACCOUNT_EXPENSE: 400,
        ledger_pb2.ACCOUNT_HELD: 0,
        ledger_pb2.ACCOUNT_PAYABLE: -400,
    }


async def test_without_news_of_receipt_the_last_parcel_tells(running: Running) -> None:
    """Payable 15 days and a week after it; when it turns out to have come sooner, at once."""
    world = await a_world(running, plan=plan_of(rule_of(rate_bp=1000), holds=[ON_TMALL]))
    order, other = await an_order(world, channel=TMALL), await an_order(world, 1, channel=TMALL)
    for one in (order, other):
        parcels = [
            one.event(f"SHIPPED:{number}", SHIPPED, after=timedelta(minutes=number)) for number in (1, 9)
        ]
        await taken_in(world, one.paid(COAT), *parcels)
    told = await world.explained(order)
    assert told.confirm_time == to_timestamp(order.placed_time + timedelta(minutes=9, days=15 + DAYS))
    running.later(days=DAYS + 1)
    await taken_in(world, received(order, hours=3))
    await becomes(world, 0, (0, 1000))
    assert await balance(world, 1) == (1000, 0)
    running.later(days=14)
    await becomes(world, 1, (0, 1000))
    for one in (order, other):
        assert (await world.explained(one)).books_agree


async def test_a_channel_without_news_counts_from_payment_and_one_without_hold_holds_nothing(
    running: Running,
) -> None:
    """A till tells of payments alone; the mini-program's plan holds nothing."""
    holds = [plan_pb2.Hold(channel=POS, days=3, from_payment=True)]
    world = await a_world(running, plan=plan_of(rule_of(rate_bp=1000), holds=holds))
    at_the_till = await an_order(world, 0)
    online = await an_order(world, 1, channel=Channel.CHANNEL_MINI_PROGRAM)
    await taken_in(world, at_the_till.paid(COAT), online.paid(COAT))
    assert [await balance(world, guide) for guide in (0, 1)] == [(1000, 0), (0, 1000)]
    assert not (await world.explained(online)).HasField("confirm_time")
    running.later(days=3)
    await becomes(world, 0, (0, 1000))


async def test_any_order_of_arrival_around_the_confirmation_gives_the_same_books(running: Running) -> None:
    """Payment, parcel, receipt and two refunds, of which some come weeks after they happened."""
    world = await a_world(running, plan=plan_of(rule_of(rate_bp=1000), holds=[ON_TMALL]))
    running.later(days=60)
    identity = (await world.bound(OWNER))[1]
    running.later(days=40)
    placed = running.now() - timedelta(days=35)

    def events_of(order: Order) -> list[OrderEvent]:
        return [
            order.paid(COAT),
            order.event("SHIPPED:1", SHIPPED, after=timedelta(days=1)),
            received(order, days=3),
            back(order, 1, 2000, days=9),
            back(order, 2, 3000, days=12),
        ]

    arrivals = [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (0, 3, 4, 2, 1), (2, 0, 4, 1, 3)]
    found = []
    for number, arrival in enumerate(arrivals):
        fields = {"shop_id": world.shop_id, "identity": identity}
        order = Order(TMALL, f"order-{number}-{request_id()}", placed, fields)
        events = events_of(order)
        await taken_in(world, *[events[one] for one in arrival[:2]])
        await asyncio.sleep(1.2)
        for one in arrival[2:]:
            await taken_in(world, events[one])
        found.append(order)
    await becomes(world, OWNER, (0, 4 * 500))
    sums = [_sums(await world.explained(order)) for order in found]
    assert sums.count(sums[0]) == len(sums), sums
    assert all([(await world.explained(order)).books_agree for order in found])


def _sums(told: ExplainOrderResponse) -> Counter[tuple[int, int, int]]:
    """What an order's entries sum to by account and month."""
    sums: Counter[tuple[int, int, int]] = Counter()
    for entry in told.entries:
        for one in entry.postings:
            sums[one.account, entry.posting_month.year, entry.posting_month.month] += one.amount_minor
    return Counter({key: amount for key, amount in sums.items() if amount})


def stuck(running: Running) -> float:
    """How many orders the service says are stuck."""
    with urllib.request.urlopen(running.stack.metrics_urls["commission"], timeout=5) as reply:
        text = reply.read().decode()
    [found] = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "daogou_commission_hold_stuck_orders"
    ]
    return found


async def test_orders_of_which_nothing_is_heard_for_60_days_are_counted_for_the_operator(
    running: Running,
) -> None:
    """Until something is heard of them, and be it that they were cancelled."""
    world = await a_world(running, plan=plan_of(rule_of(rate_bp=1000), holds=[ON_TMALL]))
    kept, cancelled = world.order(TMALL), world.order(TMALL)
    await taken_in(world, kept.paid(COAT), cancelled.paid(COAT))
    before = stuck(running)
    running.later(days=61)

    async def counted(least: float, most: float) -> bool:
        return least <= stuck(running) <= most

    # Orders of other tests may have got stuck in the meantime.
    await eventually(lambda: counted(before + 2, 10_000), "both are stuck")
    with_both = stuck(running)
    await taken_in(world, received(kept, days=3))
    await eventually(lambda: counted(with_both - 1, with_both - 1), "one is stuck")
    await taken_in(world, cancelled.closed())
    await eventually(lambda: counted(with_both - 2, with_both - 2), "neither is any more")


# ---- first purchases --------------------------------------------------------------------------------


async def test_an_earlier_order_that_is_reported_late_takes_the_first_purchase_over(running: Running) -> None:
    """100.00 each: 10.00 for the first, 2.00 for a repeat; the displaced order gives 8.00 back."""
    first, repeat = (
        plan_pb2.Match(purchase=condition)
        for condition in (plan_pb2.PURCHASE_CONDITION_FIRST, plan_pb2.PURCHASE_CONDITION_REPEAT)
    )
    rules = [rule_of("first", 1000, match=first), rule_of("repeat", 200, match=repeat)]
    world = await a_world(running, plan=plan_of(*rules))
    _, identity = await world.bound(OWNER)
    running.later(hours=6)

    def order_of(hours: float) -> Order:
        fields = {"shop_id": world.shop_id, "identity": identity}
        return Order(TMALL, f"order-{request_id()}", running.now() - timedelta(hours=hours), fields)

    early, late, stranger = order_of(5), order_of(3), world.order(TMALL)
    await taken_in(world, late.placed(COAT), early.placed(COAT), late.paid(COAT))
    await taken_in(world, stranger.paid(COAT))
    assert await balance(world, OWNER) == (0, 1000)
    told = await world.explained(late)
    assert (told.first_purchase, told.lines[0].rule_id) == (True, "first")
    told = await world.explained(stranger)
    assert (told.first_purchase, told.lines[0].rule_id) == (False, "repeat"), "who is no member repeats"
    await taken_in(world, early.paid(COAT))
    await becomes(world, OWNER, (0, 1200))
    told = await world.explained(late)
    assert (told.first_purchase, told.lines[0].rule_id) == (False, "repeat")
    assert [list(entry.cause_event_ids) for entry in told.entries] == [
        ["PLACED", "PAID:1"],
        ["NOT_FIRST_PURCHASE"],
    ]
    assert told.books_agree
    told = await world.explained(early)
    assert (told.first_purchase, told.lines[0].rule_id) == (True, "first")
    await taken_in(world, early.closed())
    await becomes(world, OWNER, (0, 200))
    assert not (await world.explained(late)).first_purchase, "what is cancelled promotes nothing"


async def test_of_first_orders_that_come_at_once_one_is_the_first(running: Running) -> None:
    """Each in a call of its own, and some in one."""
    rules = [
        rule_of("first", 1000, match=plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)),
        rule_of("repeat", 200),
    ]
    world = await a_world(running, plan=plan_of(*rules))
    _, identity = await world.bound(OWNER)
    running.later(hours=30)
    now = running.now()
    orders = [
        Order(
            TMALL,
            f"order-{number}-{request_id()}",
            now - timedelta(hours=2 + number * 7 % 11),
            {"shop_id": world.shop_id, "identity": identity},
        )
        for number in range(10)
    ]
    calls = [[order] for order in orders[:6]] + [orders[6:]]
    await asyncio.gather(*[taken_in(world, *[order.paid(COAT) for order in call]) for call in calls])
    running.later(seconds=10)
    await becomes(world, OWNER, (0, 1000 + 9 * 200))
    told = [await world.explained(order) for order in orders]
    assert all(one.books_agree for one in told)
    [first] = [order for order, one in zip(orders, told, strict=True) if one.first_purchase]
    assert first.placed_time == min(order.placed_time for order in orders)
