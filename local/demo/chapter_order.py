"""Chapters 5 and 6: an online order, reported out of order and twice, owes commission once; a return."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, order_event_pb2
from daogou.commission.v1.order_event_pb2 import (
    EventOutcome,
    OrderEvent,
    OrderEventKind,
    OrderLine,
    RefundLine,
)
from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceStub
from daogou.common.v1.channel_pb2 import Channel
from local.demo.books import explain, ledger_of, owed_to, show_trial_balance, show_why
from local.demo.cast import TMALL_SHOP, Cast
from local.demo.stage import Stage, money

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceAsyncStub

COAT_MINOR, SCARF_MINOR = 59_900, 12_950
COMMISSION_MINOR = 2_186  # 17.97 for the coat, and 3.885 for the scarf, of which half a fen counts up
SCARF_COMMISSION_MINOR = 389
HAT_MINOR, HAT_COMMISSION_MINOR = 20_000, 600


async def customer_buys_on_tmall(stage: Stage, cast: Cast) -> None:
    """Chapter 5: an online order, reported out of order and twice, owes commission once."""
    stage.later(days=7)
    stage.chapter(5, "A week later the same customer buys on the Tmall flagship shop")
    cast.order_id = f"{secrets.randbelow(10**18):018d}"
    placed = stage.now() - timedelta(hours=3)
    lines = [_line("coat", COAT_MINOR), _line("scarf", SCARF_MINOR)]
    events = [
        _event(cast, placed, timedelta(0), "PLACED", OrderEventKind.ORDER_EVENT_KIND_PLACED, lines=lines),
        _event(
            cast, placed, timedelta(minutes=2), "PAID:1", OrderEventKind.ORDER_EVENT_KIND_PAID, lines=lines
        ),
        _event(cast, placed, timedelta(hours=1), "SHIPPED:SF1", OrderEventKind.ORDER_EVENT_KIND_SHIPPED),
        _event(cast, placed, timedelta(hours=2), "RECEIVED", OrderEventKind.ORDER_EVENT_KIND_RECEIVED),
    ]
    stage.say(f"A coat for {money(COAT_MINOR)} and a scarf for {money(SCARF_MINOR)}.")
    stage.say("The connector reports placed, paid, shipped, received: shuffled, and twice over.")
    for _ in range(2):
        secrets.SystemRandom().shuffle(events)
        for event in events:
            await _ingest(stage, cast, [event])
    told = await explain(stage, cast)
    named = {store_id: name for name, store_id in cast.stores.items()}
    credited = {named[one.store_id]: one.amount_minor for one in told.sales_credits}
    whole = COAT_MINOR + SCARF_MINOR
    stage.holds(
        f"both her store and the flagship are credited with the sale of {money(whole)}",
        credited,
        {"Aurora Nanjing Road": whole, "Aurora Tmall flagship": whole},
    )
    owed = await owed_to(stage, cast, "Lin Mei")
    stage.holds(f"Lin Mei is owed commission once: {money(owed)}", owed, COMMISSION_MINOR)
    stage.holds("Chen Yu is owed nothing", await owed_to(stage, cast, "Chen Yu"), 0)
    show_why(stage, told)
    stage.holds("computed afresh from the events, the books agree", told.books_agree, True)


def _line(sku_id: str, paid_minor: int) -> OrderLine:
    return OrderLine(line_id=sku_id, sku_id=sku_id, quantity=1, list_minor=paid_minor, paid_minor=paid_minor)


def _event(
    cast: Cast, placed: datetime, after: timedelta, event_id: str, kind: OrderEventKind.ValueType, **more: Any
) -> OrderEvent:
    return OrderEvent(
        channel=Channel.CHANNEL_TMALL,
        shop_id=TMALL_SHOP,
        order_id=cast.order_id,
        event_id=event_id,
        kind=kind,
        happened_time=to_timestamp(placed + after),
        order_placed_time=to_timestamp(placed),
        identity=cast.buyer,
        currency_code="CNY",
        **more,
    )


async def _ingest(stage: Stage, cast: Cast, events: list[OrderEvent]) -> None:
    sync: OrderEventServiceAsyncStub = OrderEventServiceStub(
        stage.channel("commission", "CONNECTOR", brand=cast.brand_id)
    )
    request = order_event_pb2.IngestOrderEventsRequest(brand_id=cast.brand_id, events=events)
    reply = await stage.call(sync.IngestOrderEvents, request)
    taken = {
        EventOutcome.EVENT_OUTCOME_APPLIED,
        EventOutcome.EVENT_OUTCOME_DUPLICATE,
        EventOutcome.EVENT_OUTCOME_PARKED,
    }
    refused = [result for result in reply.results if result.outcome not in taken]
    if refused:
        stage.holds(f"the events are taken in: {refused[0].error.message}", len(refused), 0)


async def one_item_comes_back(stage: Stage, cast: Cast) -> None:
    """Chapter 6: the commission on the returned item is taken back to the fen."""
    stage.later(days=2)
    stage.chapter(6, "She returns the scarf")
    told = await explain(stage, cast)
    placed = told.attribution.as_of_time.ToDatetime(tzinfo=stage.now().tzinfo)
    refund = _event(
        cast,
        placed,
        timedelta(days=2),
        "REFUND:1",
        OrderEventKind.ORDER_EVENT_KIND_REFUNDED,
        refund_lines=[RefundLine(line_id="scarf", refunded_minor=SCARF_MINOR, quantity=1)],
    )
    await _ingest(stage, cast, [refund, refund])
    told = await explain(stage, cast)
    owed = await owed_to(stage, cast, "Lin Mei")
    stage.holds(
        f"{money(SCARF_COMMISSION_MINOR)} is taken back; she is owed {money(owed)}",
        owed,
        COMMISSION_MINOR - SCARF_COMMISSION_MINOR,
    )
    show_why(stage, told)
    stage.holds("the books agree", told.books_agree, True)


async def buys_a_hat(stage: Stage, cast: Cast) -> int:
    """Another order on Tmall, placed a moment ago. The commission that is owed for it, in fen."""
    cast.order_id = f"{secrets.randbelow(10**18):018d}"
    placed = stage.now() - timedelta(minutes=5)
    event = _event(
        cast,
        placed,
        timedelta(minutes=1),
        "PAID:1",
        OrderEventKind.ORDER_EVENT_KIND_PAID,
        lines=[_line("hat", HAT_MINOR)],
    )
    await _ingest(stage, cast, [event])
    return HAT_COMMISSION_MINOR


async def returns_the_hat(stage: Stage, cast: Cast) -> None:
    """The last order comes back whole, a moment ago."""
    told = await explain(stage, cast)
    placed = told.attribution.as_of_time.ToDatetime(tzinfo=stage.now().tzinfo)
    refund = _event(
        cast,
        placed,
        stage.now() - placed - timedelta(minutes=1),
        "REFUND:1",
        OrderEventKind.ORDER_EVENT_KIND_REFUNDED,
        refund_lines=[RefundLine(line_id="hat", refunded_minor=HAT_MINOR, quantity=1)],
    )
    await _ingest(stage, cast, [refund])


async def month_so_far(stage: Stage, cast: Cast) -> None:
    """The trial balance, at the end."""
    stage.console.print()
    balance = await stage.call(
        ledger_of(stage, cast).GetTrialBalance, ledger_pb2.GetTrialBalanceRequest(brand_id=cast.brand_id)
    )
    show_trial_balance(stage, balance)
    stage.holds("debits and credits sum to zero", balance.total_minor, 0)
