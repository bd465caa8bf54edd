"""What the commission service refuses: by item, with the exact reason and all fields, nothing written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.ids import new_id
from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, order_event_pb2, plan_pb2
from daogou.commission.v1.order_event_pb2 import (
    EventOutcome,
    OpenedShareLink,
    OrderEvent,
    OrderEventKind,
    OrderLine,
    RefundLine,
)
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from tests.rpc.running import Running, refusal
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION

APPLIED: Final = EventOutcome.EVENT_OUTCOME_APPLIED
DUPLICATE: Final = EventOutcome.EVENT_OUTCOME_DUPLICATE
REJECTED: Final = EventOutcome.EVENT_OUTCOME_REJECTED

PLACED: Final = OrderEventKind.ORDER_EVENT_KIND_PLACED
PAID: Final = OrderEventKind.ORDER_EVENT_KIND_PAID
SHIPPED: Final = OrderEventKind.ORDER_EVENT_KIND_SHIPPED
RECEIVED: Final = OrderEventKind.ORDER_EVENT_KIND_RECEIVED
REFUNDED: Final = OrderEventKind.ORDER_EVENT_KIND_REFUNDED
CLOSED: Final = OrderEventKind.ORDER_EVENT_KIND_CLOSED

NOBODY: Final = new_id()
NOW: Final = timedelta(0)


@pytest.fixture(scope="module")
async def own(running: Running) -> World:
    """The brand that the calls are about."""
    return await a_world(running, plan=plan_of())


@pytest.fixture(scope="module")
async def other(running: Running) -> World:
    """Another brand, with an order of its own."""
    return await a_world(running, plan=plan_of())


# ---- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadEvent:
    """An event that is refused, given an order of which nothing is known yet."""

    event: Callable[[World, Order], OrderEvent]
    reason: str
    fields: frozenset[str] = frozenset()


def invalid(event: Callable[[World, Order], OrderEvent], *fields: str) -> BadEvent:
    """Refused for these fields, and no others."""
    return BadEvent(event, "INVALID_FIELDS", frozenset(fields))


def misnamed(event_id: str, kind: OrderEventKind.ValueType, **more: Any) -> BadEvent:
    """An event whose id does not follow from what happened."""
    return BadEvent(lambda w, o: o.event(event_id, kind, after=NOW, **more), "EVENT_ID_MISMATCH")


def paid_with(**line: Any) -> Callable[[World, Order], OrderEvent]:
    """A payment of one line of which something is not as it should be."""
    return lambda w, o: o.paid(OrderLine(**{"line_id": "coat", "sku_id": "coat", "quantity": 1, **line}))


COAT: Final = line_of("coat", 100)
BAD_EVENTS: Final[Mapping[str, BadEvent]] = {
    "without anything": invalid(
        lambda w, o: OrderEvent(),
        "channel",
        "order_id",
        "event_id",
        "kind",
        "happened_time",
        "order_placed_time",
        "currency_code",
    ),
    "of which all is wrong": invalid(
        lambda w, o: OrderEvent(
            channel=99,  # type: ignore[arg-type]
            shop_id="a|b",
            order_id="o" * 65,
            event_id="PAID 1",
            kind=99,  # type: ignore[arg-type]
            happened_time=Timestamp(seconds=-1),
            order_placed_time=Timestamp(nanos=1_000_000_000),
            identity=Identity(value="x" * 129, app_id=" "),
            selling_store_id="a store",
            lines=[
                OrderLine(
                    line_id="",
                    sku_id="s\x00",
                    category_id="c c",
                    quantity=0,
                    list_minor=-1,
                    paid_minor=-1,
                    subsidy_minor=-1,
                )
            ],
            refund_lines=[RefundLine(line_id="|", refunded_minor=-1, quantity=-1)],
            goodwill_minor=-1,
            currency_code="RMB",
            serving_guide_id="a guide",
            share_link=OpenedShareLink(
                open_time=Timestamp(seconds=-1), maker_guide_id="x", parent_maker_guide_id="y|"
            ),
            campaign_id="c" * 65,
            member_tier="of gold",
        ),
        "channel",
        "shop_id",
        "order_id",
        "event_id",
        "kind",
        "happened_time",
        "order_placed_time",
        "identity.kind",
        "identity.value",
        "identity.app_id",
        "selling_store_id",
        "lines[0].line_id",
        "lines[0].sku_id",
        "lines[0].category_id",
        "lines[0].quantity",
        "lines[0].list_minor",
        "lines[0].paid_minor",
        "lines[0].subsidy_minor",
        "refund_lines[0].line_id",
        "refund_lines[0].refunded_minor",
        "refund_lines[0].quantity",
        "goodwill_minor",
        "currency_code",
        "serving_guide_id",
        "share_link.open_time",
        "share_link.maker_guide_id",
        "share_link.parent_maker_guide_id",
        "campaign_id",
        "member_tier",
    ),
    "with a share link that nobody opened": invalid(
        lambda w, o: o.paid(COAT, share_link=OpenedShareLink()), "share_link.open_time"
    ),
    "paid by the platform with more than there is money": invalid(
        paid_with(subsidy_minor=10**12 + 1), "lines[0].subsidy_minor"
    ),
    "of a member who is no id": invalid(lambda w, o: o.paid(COAT, member_id="x"), "member_id"),
    "paid less than nothing": invalid(paid_with(paid_minor=-1), "lines[0].paid_minor"),
    "paid the least number there is": invalid(paid_with(paid_minor=-(2**63)), "lines[0].paid_minor"),
    "paid more than there is money": invalid(paid_with(paid_minor=10**12 + 1), "lines[0].paid_minor"),
    "listed at the greatest number there is": invalid(paid_with(list_minor=2**63 - 1), "lines[0].list_minor"),
    "of no pieces": invalid(paid_with(quantity=0), "lines[0].quantity"),
    "of minus one piece": invalid(paid_with(quantity=-1), "lines[0].quantity"),
    "of a million and one pieces": invalid(paid_with(quantity=1_000_001), "lines[0].quantity"),
    "refunded less than nothing": invalid(
        lambda w, o: o.refunded(refund_of("coat", -1)), "refund_lines[0].refunded_minor"
    ),
    "refunded more than there is money": invalid(
        lambda w, o: o.refunded(refund_of("coat", 10**12 + 1), goodwill_minor=10**12 + 1),
        "refund_lines[0].refunded_minor",
        "goodwill_minor",
    ),
    "in a currency there is not": invalid(lambda w, o: o.paid(COAT, currency_code="XXL"), "currency_code"),
    "in small letters": invalid(lambda w, o: o.paid(COAT, currency_code="cny"), "currency_code"),
    "in another currency than the brand's": BadEvent(
        lambda w, o: o.paid(COAT, currency_code="USD"), "CURRENCY_NOT_OF_BRAND"
    ),
    "on Tmall in no shop": invalid(lambda w, o: o.paid(COAT, shop_id=""), "shop_id"),
    "at a till of no store": invalid(
        lambda w, o: o.paid(COAT, channel=Channel.CHANNEL_POS, shop_id=""), "selling_store_id"
    ),
    "with a line twice": invalid(
        lambda w, o: o.paid(COAT, line_of("scarf", 1), COAT, COAT), "lines[2].line_id", "lines[3].line_id"
    ),
    "with a refunded line twice": invalid(
        lambda w, o: o.refunded(refund_of("coat", 1), refund_of("coat", 1)), "refund_lines[1].line_id"
    ),
    "paid for nothing in particular": invalid(lambda w, o: o.paid(), "lines"),
    "sent with lines": invalid(lambda w, o: o.event("SHIPPED:1", SHIPPED, after=NOW, lines=[COAT]), "lines"),
    "paid with refunds": invalid(
        lambda w, o: o.paid(COAT, refund_lines=[refund_of("coat", 1)]), "refund_lines"
    ),
    "cancelled with goodwill": invalid(
        lambda w, o: o.event("CLOSED", CLOSED, after=NOW, goodwill_minor=1), "refund_lines"
    ),
    "on Tmall in no shop, sent with lines, one of them twice, and with a refund": invalid(
        lambda w, o: o.event(
            "SHIPPED:1", SHIPPED, after=NOW, shop_id="", lines=[COAT, COAT], goodwill_minor=1
        ),
        "shop_id",
        "lines",
        "lines[1].line_id",
        "refund_lines",
    ),
    "of 501 lines": invalid(lambda w, o: o.paid(*[line_of(f"l{index}", 1) for index in range(501)]), "lines"),
    "of 501 refunded lines": invalid(
        lambda w, o: o.refunded(*[refund_of(f"l{index}", 1) for index in range(501)]), "refund_lines"
    ),
    "paid without number": misnamed("PAID", PAID, lines=[COAT]),
    "paid with an empty number": misnamed("PAID:", PAID, lines=[COAT]),
    "paid under an invented name": misnamed("payment-1", PAID, lines=[COAT]),
    "placed in small letters": misnamed("placed", PLACED),
    "placed under a number": misnamed("PLACED:1", PLACED),
    "received under a number": misnamed("RECEIVED:1", RECEIVED),
    "sent under no parcel": misnamed("SHIPPED", SHIPPED),
    "refunded under its kind's name": misnamed("REFUNDED:1", REFUNDED),
    "cancelled as completed": misnamed("COMPLETED", CLOSED),
    "paid under the name of a refund": misnamed("REFUND:1", PAID, lines=[COAT]),
    "that happens in six minutes": BadEvent(
        lambda w, o: o.paid(COAT, after=timedelta(hours=2, minutes=6)), "EVENT_IN_FUTURE"
    ),
    "of an order that is placed tomorrow": BadEvent(
        lambda w, o: replace(o, placed_time=w.running.now() + timedelta(days=1)).placed(), "EVENT_IN_FUTURE"
    ),
    "at the end of time": BadEvent(
        lambda w, o: o.paid(COAT, happened_time=Timestamp(seconds=253_402_300_799)), "EVENT_IN_FUTURE"
    ),
    "beyond the end of time": invalid(
        lambda w, o: o.paid(COAT, happened_time=Timestamp(seconds=253_402_300_800)), "happened_time"
    ),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
async def test_an_event_is_refused(name: str, running: Running, own: World) -> None:
    bad, order = BAD_EVENTS[name], own.order()
    with running.nothing_written(own.brand_id):
        [result] = await own.ingest(bad.event(own, order))
    assert (result.outcome, result.error.reason) == (REJECTED, bad.reason), result
    assert {violation.field for violation in result.error.violations} == bad.fields, result
    assert result.error.message


async def test_bad_events_among_good_ones_are_refused_alone(own: World) -> None:
    """Each between two good ones of another order; the good ones are applied and counted."""
    before = await own.owed_to_pool(own.flagship)
    events: list[OrderEvent] = []
    for bad in BAD_EVENTS.values():
        events += [own.order().paid(line_of("coat", 1000)), bad.event(own, own.order())]
    events.append(own.order().paid(line_of("coat", 1000)))
    results = await own.ingest(*events)
    assert [result.outcome for result in results[::2]] == [APPLIED] * (len(BAD_EVENTS) + 1)
    assert [result.error.reason for result in results[1::2]] == [bad.reason for bad in BAD_EVENTS.values()]
    assert await own.owed_to_pool(own.flagship) - before == 30 * (len(BAD_EVENTS) + 1)
    assert (await own.trial_balance()).total_minor == 0


async def test_an_events_limits_and_rules_are_named_together(own: World) -> None:
    """Whoever mends what he was told of is not told of something else the next time."""
    event = own.order().paid(line_of("coat", 1, quantity=0), COAT, shop_id="")
    [result] = await own.ingest(event)
    assert {violation.field for violation in result.error.violations} == {
        "lines[0].quantity",
        "lines[1].line_id",
        "shop_id",
    }


async def test_events_of_an_unknown_brand_are_refused_one_by_one(running: Running, own: World) -> None:
    stranger = running.caller("CONNECTOR", brand=NOBODY)
    request = order_event_pb2.IngestOrderEventsRequest(
        brand_id=NOBODY, events=[own.order().paid(COAT), own.order().paid(COAT)]
    )
    with running.nothing_written(NOBODY):
        reply = await stranger.events.IngestOrderEvents(request)
    assert [(one.outcome, one.error.reason) for one in reply.results] == [(REJECTED, "BRAND_UNKNOWN")] * 2


async def test_a_call_without_events_is_refused(own: World) -> None:
    call = own.connector.events.IngestOrderEvents
    found = await refusal(call(order_event_pb2.IngestOrderEventsRequest(brand_id=own.brand_id)))
    assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_FIELDS", {"events"})


async def test_the_1001st_event_is_refused_and_the_rest_applied(own: World) -> None:
    before = await own.owed_to_pool(own.flagship)
    events = [own.order().paid(line_of("coat", 1000)) for _ in range(1000)]
    results = await own.ingest(*events, own.order().paid(COAT), own.order().paid(COAT))
    assert {result.outcome for result in results[:1000]} == {APPLIED}
    assert [(one.outcome, one.error.reason) for one in results[1000:]] == [(REJECTED, "TOO_MANY_EVENTS")] * 2
    assert await own.owed_to_pool(own.flagship) - before == 30_000


async def test_a_call_of_half_a_million_events_is_turned_away_at_once(running: Running, own: World) -> None:
    """An empty event takes two bytes. Answering each would take seconds, and a gigabyte."""
    request = order_event_pb2.IngestOrderEventsRequest(brand_id=own.brand_id, events=[OrderEvent()] * 500_000)
    begun = time.monotonic()
    found = await refusal(own.connector.events.IngestOrderEvents(request))
    assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_FIELDS", {"events"})
    assert time.monotonic() - begun < 2


async def test_an_order_takes_in_a_thousand_events_and_no_more(running: Running, own: World) -> None:
    order = own.order()
    parcels = [order.event(f"SHIPPED:{number}", SHIPPED, after=NOW) for number in range(999)]
    results = await own.ingest(order.paid(COAT), *parcels)
    assert {result.outcome for result in results} == {APPLIED}
    with running.nothing_written(own.brand_id):
        last, repeat = await own.ingest(order.event("SHIPPED:999", SHIPPED, after=NOW), parcels[0])
    assert (last.outcome, last.error.reason) == (REJECTED, "ORDER_TOO_LARGE")
    assert repeat.outcome == DUPLICATE
    assert (await own.explained(order)).books_agree


async def test_an_order_that_outgrows_its_document_is_refused_and_its_neighbours_are_not(
    running: Running, own: World
) -> None:
    """The database takes documents of 16 MiB; orders of that size are somebody's mistake, not ours."""
    order, neighbour = own.order(), own.order()
    lines = [
        line_of(f"{index:03d}" + "导" * 61, 1, sku_id="购" * 64, category_id="导" * 64)
        for index in range(500)
    ]
    payments = [order.paid(*lines, number=number, after=timedelta(minutes=1)) for number in range(48)]
    assert {one.outcome for one in await own.ingest(*payments[:24])} == {APPLIED}
    with running.nothing_written(own.brand_id):
        results = await own.ingest(*payments[24:])
    assert {(one.outcome, one.error.reason) for one in results} == {(REJECTED, "ORDER_TOO_LARGE")}
    *_, applied = await own.ingest(*payments[24:], neighbour.paid(COAT))
    assert applied.outcome == APPLIED
    assert (await own.explained(neighbour)).books_agree


async def test_an_order_of_very_many_payments_does_not_hold_up_the_others(own: World) -> None:
    """Its books are computed anew with every event: that must not take its events times its lines."""
    order = own.order()
    payments = [
        order.paid(*[line_of(f"l{number}-{index}", 100) for index in range(5)], number=number, after=NOW)
        for number in range(600)
    ]
    begun = time.monotonic()
    assert {one.outcome for one in await own.ingest(*payments)} == {APPLIED}
    assert time.monotonic() - begun < 5, "it took 10 s and more when every line was computed at every event"
    told = await own.explained(order)
    assert told.books_agree
    assert sum(line.earned_minor for line in told.lines) == 3 * 3000


async def test_the_refusals_of_many_bad_lines_do_not_crowd_out_the_good_events(own: World) -> None:
    """Six violations a line, 500 lines an event, a thousand events would make a reply too large to send."""
    bad = [own.order().paid(*[OrderLine()] * 500) for _ in range(200)]
    results = await own.ingest(*bad, own.order().paid(COAT))
    assert results[-1].outcome == APPLIED
    [*named, last] = results[0].error.violations
    assert len(named) == 50
    assert last.description.startswith("and ")


async def test_an_order_is_placed_once(running: Running, own: World) -> None:
    order = own.order()
    await own.ingest(order.placed(COAT))
    later = replace(order, placed_time=order.placed_time + timedelta(seconds=1))
    with running.nothing_written(own.brand_id):
        [result] = await own.ingest(later.paid(COAT))
    assert (result.outcome, result.error.reason) == (REJECTED, "PLACED_TIME_CHANGED")


async def test_a_known_event_with_another_body_is_kept_aside(own: World) -> None:
    order = own.order()
    await own.ingest(order.paid(line_of("coat", 10_000)))
    before = await own.explained(order)
    changed = order.paid(line_of("coat", 99_999))
    for _ in range(2):
        [result] = await own.ingest(changed)
        assert result.outcome == EventOutcome.EVENT_OUTCOME_QUARANTINED
        assert result.error.reason == "EVENT_BODY_CHANGED"
    assert await own.explained(order) == before, "the first stays in force"
    kept = own.running.documents("commission", "quarantine", {"order_key": {"$regex": order.order_id}})
    assert len(kept) == 1, "the other is kept, once"
    [same] = await own.ingest(order.paid(line_of("coat", 10_000)))
    assert same.outcome == DUPLICATE


# ---- plans ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadPlan:
    """A plan that is refused, given when it might begin."""

    plan: Callable[[World], plan_pb2.Plan | None]
    code: grpc.StatusCode
    reason: str
    fields: frozenset[str] = frozenset()


def invalid_plan(plan: Callable[[World], plan_pb2.Plan | None], *fields: str) -> BadPlan:
    """Refused for these fields, and no others."""
    return BadPlan(plan, INVALID, "INVALID_FIELDS", frozenset(fields))


def owner(share_bp: int) -> plan_pb2.Share:
    return plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=share_bp)


def in_days(world: World, begin: float, end: float | None = None) -> dict[str, Timestamp]:
    """An interval that begins, and may end, so many days from now."""
    now = world.running.now()
    interval = {"effective_from_time": to_timestamp(now + timedelta(days=begin))}
    if end is not None:
        interval["effective_to_time"] = to_timestamp(now + timedelta(days=end))
    return interval


def matching(**match: Any) -> Callable[[World], plan_pb2.Plan]:
    """A plan with one rule that matches so."""
    return lambda w: plan_of(rule_of(match=plan_pb2.Match(**match)))


BAD_PLANS: Final[Mapping[str, BadPlan]] = {
    "no plan": invalid_plan(lambda w: None, "plan"),
    "a plan without anything": invalid_plan(lambda w: plan_pb2.Plan(), "plan.display_name", "plan.rules"),
    "a plan of which all is wrong": invalid_plan(
        lambda w: plan_pb2.Plan(
            plan_id="x",
            display_name="x" * 101,
            effective_from_time=Timestamp(seconds=-1),
            effective_to_time=Timestamp(seconds=253_402_300_800),
            rules=[
                plan_pb2.Rule(
                    rule_id="a rule",
                    match=plan_pb2.Match(
                        channels=[99],  # type: ignore[list-item]
                        category_ids=[""],
                        sku_ids=["ok", "a|b"],
                        store_ids=["x"],
                        member_tiers=[" "],
                        campaign_ids=["ok", "a|b"],
                        purchase=9,  # type: ignore[arg-type]
                    ),
                    rate_bp=10_001,
                    shares=[plan_pb2.Share(role=9, share_bp=10_001, absent=9)],  # type: ignore[arg-type]
                    base=9,  # type: ignore[arg-type]
                    cost_bearer=9,  # type: ignore[arg-type]
                ),
                plan_pb2.Rule(
                    rule_id="b", rate_bp=-1, per_unit_minor=-1, floor_minor=-1, cap_minor=10**12 + 1
                ),
            ],
            holds=[plan_pb2.Hold(days=-1), plan_pb2.Hold(channel=99, days=366)],  # type: ignore[arg-type]
            share_link_hours=721,
        ),
        "plan.plan_id",
        "plan.display_name",
        "plan.effective_from_time",
        "plan.effective_to_time",
        "plan.rules[0].rule_id",
        "plan.rules[0].match.channels[0]",
        "plan.rules[0].match.category_ids[0]",
        "plan.rules[0].match.sku_ids[1]",
        "plan.rules[0].match.store_ids[0]",
        "plan.rules[0].rate_bp",
        "plan.rules[0].shares[0].role",
        "plan.rules[0].shares[0].share_bp",
        "plan.rules[0].match.member_tiers[0]",
        "plan.rules[0].match.campaign_ids[1]",
        "plan.rules[0].match.purchase",
        "plan.rules[0].shares[0].absent",
        "plan.rules[0].base",
        "plan.rules[0].cost_bearer",
        "plan.rules[1].rate_bp",
        "plan.rules[1].shares",
        "plan.rules[1].per_unit_minor",
        "plan.rules[1].floor_minor",
        "plan.rules[1].cap_minor",
        "plan.holds[0].channel",
        "plan.holds[0].days",
        "plan.holds[1].channel",
        "plan.holds[1].days",
        "plan.share_link_hours",
    ),
    "one that contradicts itself wherever it can, beside a limit": invalid_plan(
        lambda w: plan_of(
            rule_of(rate_bp=1, per_unit_minor=1, floor_minor=2, cap_minor=1),
            plan_pb2.Rule(rule_id="all", rate_bp=10_001, shares=[owner(6000), owner(4001)]),
            holds=[plan_pb2.Hold(channel=Channel.CHANNEL_POS)] * 2,
            **in_days(w, 2, 1),
        ),
        "plan.rules[0].per_unit_minor",
        "plan.rules[0].cap_minor",
        "plan.rules[1].rule_id",
        "plan.rules[1].rate_bp",
        "plan.rules[1].shares",
        "plan.holds[1].channel",
        "plan.effective_to_time",
    ),
    "one that begins now and has ended": invalid_plan(
        lambda w: plan_of(effective_to_time=to_timestamp(w.running.now() - timedelta(days=1))),
        "plan.effective_to_time",
    ),
    "a billion fen and one a piece": invalid_plan(
        lambda w: plan_of(rule_of(rate_bp=0, per_unit_minor=10**9 + 1)), "plan.rules[0].per_unit_minor"
    ),
    "1,001 campaigns and 101 tiers": invalid_plan(
        matching(
            campaign_ids=[f"c{index}" for index in range(1001)],
            member_tiers=[f"t{index}" for index in range(101)],
        ),
        "plan.rules[0].match.campaign_ids",
        "plan.rules[0].match.member_tiers",
    ),
    "21 holds": invalid_plan(
        lambda w: plan_of(holds=[plan_pb2.Hold(channel=Channel.CHANNEL_POS)] * 21), "plan.holds"
    ),
    "a share of nothing": invalid_plan(
        lambda w: plan_of(rule_of(share_bp=0)), "plan.rules[0].shares[0].share_bp"
    ),
    "shares of more than everything, one role twice, one rule twice": invalid_plan(
        lambda w: plan_of(
            rule_of(),
            plan_pb2.Rule(rule_id="all", rate_bp=1, shares=[owner(6000), owner(4001)]),
        ),
        "plan.rules[1].rule_id",
        "plan.rules[1].shares",
    ),
    "a plan that ends before it begins, with two rules of one name": invalid_plan(
        lambda w: plan_of(rule_of(), rule_of(), **in_days(w, 2, 1)),
        "plan.effective_to_time",
        "plan.rules[1].rule_id",
    ),
    "a plan that ends when it begins": invalid_plan(
        lambda w: plan_of(**in_days(w, 2, 2)), "plan.effective_to_time"
    ),
    "201 rules": invalid_plan(
        lambda w: plan_of(*[rule_of(f"r{index}") for index in range(201)]), "plan.rules"
    ),
    "1,001 articles": invalid_plan(
        matching(sku_ids=[f"s{index}" for index in range(1001)]), "plan.rules[0].match.sku_ids"
    ),
    "a channel that is none": invalid_plan(
        matching(channels=[Channel.CHANNEL_UNSPECIFIED, Channel.CHANNEL_POS]),
        "plan.rules[0].match.channels[0]",
    ),
    "a plan of last week": BadPlan(lambda w: plan_of(**in_days(w, -7, -1)), REFUSED, "PLAN_STARTS_IN_PAST"),
    "a plan since a second ago": BadPlan(
        lambda w: plan_of(**in_days(w, -1 / 86_400)), REFUSED, "PLAN_STARTS_IN_PAST"
    ),
}


def publish(world: World, plan: plan_pb2.Plan | None, **more: Any) -> Awaitable[plan_pb2.PublishPlanResponse]:
    request = {"brand_id": world.brand_id, "request_id": request_id(), "plan": plan, **more}
    return world.admin.plans.PublishPlan(plan_pb2.PublishPlanRequest(**request))


@pytest.mark.parametrize("name", BAD_PLANS)
async def test_a_plan_is_refused(name: str, running: Running, planless: World) -> None:
    bad = BAD_PLANS[name]
    with running.nothing_written(planless.brand_id):
        found = await refusal(publish(planless, bad.plan(planless)))
    assert (found.code, found.reason) == (bad.code, bad.reason), found
    assert found.fields == bad.fields, found.violations


@pytest.fixture(scope="module")
async def planless(running: Running) -> World:
    """A brand without a plan."""
    return await a_world(running)


async def test_plans_may_touch_but_not_overlap(running: Running) -> None:
    world = await a_world(running)
    running.later(seconds=1)
    begin = world.running.now() + timedelta(days=10)

    def from_to(begins: float, ends: float | None) -> plan_pb2.Plan:
        interval = {"effective_from_time": to_timestamp(begin + timedelta(days=begins))}
        if ends is not None:
            interval["effective_to_time"] = to_timestamp(begin + timedelta(days=ends))
        return plan_of(**interval)

    await publish(world, from_to(0, 10))
    for interval in ((0, 10), (3, 4), (-5, 20), (-1, 1), (9, 11), (9.99999, None), (-3, None)):
        with running.nothing_written(world.brand_id):
            found = await refusal(publish(world, from_to(*interval)))
        assert (found.code, found.reason) == (REFUSED, "PLAN_OVERLAPS"), interval
    await publish(world, from_to(-5, 0))
    await publish(world, from_to(10, None))
    found = await refusal(publish(world, from_to(1000, 1001)))
    assert found.reason == "PLAN_OVERLAPS", "the last has no end"


async def test_of_plans_that_overlap_and_come_at_once_one_is_published(running: Running) -> None:
    world = await a_world(running)
    outcomes = await asyncio.gather(
        *[publish(world, plan_of(rule_of(rate_bp=rate))) for rate in range(100, 1300, 100)],
        return_exceptions=True,
    )
    published = [one for one in outcomes if isinstance(one, plan_pb2.PublishPlanResponse)]
    assert len(published) == 1
    reply = await world.admin.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=world.brand_id))
    assert list(reply.plans) == [published[0].plan]


async def test_a_plans_request_id_is_not_good_for_another_body(running: Running) -> None:
    world = await a_world(running)
    name = request_id()
    first = await publish(world, plan_of(), request_id=name)
    with running.nothing_written(world.brand_id):
        found = await refusal(publish(world, plan_of(rule_of(rate_bp=301)), request_id=name))
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert await publish(world, plan_of(), request_id=name) == first


async def test_a_plan_that_outgrows_its_document_is_refused(running: Running, planless: World) -> None:
    rules = [
        rule_of(
            f"r{rule}",
            match=plan_pb2.Match(sku_ids=[f"{rule:03d}{index:03d}" + "x" * 58 for index in range(600)]),
        )
        for rule in range(200)
    ]
    with running.nothing_written(planless.brand_id):
        found = await refusal(publish(planless, plan_of(*rules)))
    assert (found.code, found.reason) == (REFUSED, "TOO_MANY_PLANS")


# ---- the ledger -------------------------------------------------------------------------------------

LEDGER: Final[
    Mapping[str, tuple[Callable[[World, World], Awaitable[object]], grpc.StatusCode, str, set[str]]]
] = {
    "the balance of nobody": (
        lambda w, o: w.admin.ledger.GetBalance(ledger_pb2.GetBalanceRequest(brand_id=w.brand_id)),
        INVALID,
        "INVALID_FIELDS",
        {"payee"},
    ),
    "the balance of what is no id, before there was time": (
        lambda w, o: w.admin.ledger.GetBalance(
            ledger_pb2.GetBalanceRequest(
                brand_id=w.brand_id, pool_store_id="x", as_of_time=Timestamp(seconds=-1)
            )
        ),
        INVALID,
        "INVALID_FIELDS",
        {"pool_store_id", "as_of_time"},
    ),
    "the trial balance of a time that is none": (
        lambda w, o: w.admin.ledger.GetTrialBalance(
            ledger_pb2.GetTrialBalanceRequest(brand_id=w.brand_id, as_of_time=Timestamp(nanos=-1))
        ),
        INVALID,
        "INVALID_FIELDS",
        {"as_of_time"},
    ),
    "an order of no channel": (
        lambda w, o: w.admin.ledger.ExplainOrder(ledger_pb2.ExplainOrderRequest(brand_id=w.brand_id)),
        INVALID,
        "INVALID_FIELDS",
        {"channel", "order_id"},
    ),
    "an unknown order": (
        lambda w, o: w.explained(w.order()),
        NOT_FOUND,
        "ORDER_UNKNOWN",
        set(),
    ),
    "another brand's order": (
        lambda w, o: w.explained(ORDERS[o.brand_id]),
        NOT_FOUND,
        "ORDER_UNKNOWN",
        set(),
    ),
}
ORDERS: dict[str, Order] = {}
"""An order by brand."""


@pytest.mark.parametrize("name", LEDGER)
async def test_a_question_to_the_ledger_is_refused(name: str, own: World, other: World) -> None:
    if other.brand_id not in ORDERS:
        ORDERS[other.brand_id] = other.order()
        await other.ingest(ORDERS[other.brand_id].paid(COAT))
    call, code, reason, fields = LEDGER[name]
    found = await refusal(call(own, other))
    assert (found.code, found.reason, found.fields) == (code, reason, fields)


async def test_payees_of_other_brands_are_owed_nothing_here(own: World, other: World) -> None:
    _, buyer = await other.bound()
    other.running.later(hours=3)
    await other.ingest(other.order(identity=buyer).paid(line_of("coat", 10_000)))
    assert await other.owed(0) == 300
    for request in (
        ledger_pb2.GetBalanceRequest(brand_id=own.brand_id, guide_id=other.guides[0]),
        ledger_pb2.GetBalanceRequest(brand_id=own.brand_id, pool_store_id=other.flagship),
    ):
        reply = await own.admin.ledger.GetBalance(request)
        assert (reply.payable_minor, reply.currency_code) == (0, "")


async def test_a_buyer_whose_number_is_none_is_nobody(own: World) -> None:
    """A till that types nonsense sells all the same; the store's pool has earned it."""
    order = own.order(
        Channel.CHANNEL_POS, identity=Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value="n/a")
    )
    [result] = await own.ingest(order.paid(line_of("coat", 10_000)))
    assert result.outcome == APPLIED
    told = await own.explained(order)
    assert told.attribution.member_id == ""
    assert told.attribution.owner.pool_store_id == own.nanjing_road
