"""For whom a sale is counted: worked by hand, and what is told when it turns out to be another's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from svc_commission.order import sales
from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.sales_credit import (
    BRAND,
    Amounts,
    Change,
    Role,
    SalesCredits,
    Subject,
    changes,
    subjects_of,
)

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
TENTH, ELEVENTH = date(2026, 3, 10), date(2026, 3, 11)
EAST, WEST = Subject(Role.STORE, "east"), Subject(Role.STORE, "west")
SALE = Attribution(
    member_id="member",
    binding_id="member.1",
    owner="guide:ann",
    owner_basis=OwnerBasis.BINDING,
    selling_store_id="west",
    owner_store_id="east",
    flagship_store_id="",
    as_of_time=NOON,
    known_at_time=NOON,
    plan_id="",
    time_zone="Asia/Shanghai",
    serving="guide:bea",
)
PAID = Event("PAID:1", Kind.PAID, NOON, lines=(Line("A", "sku-A", "shoes", 1, 20_000, 20_000),))
BACK = Event("REFUND:1", Kind.REFUNDED, NOON + timedelta(days=1), refund_lines=(RefundLine("A", 5_000, 0),))


def credited(*events: Event, sale: Attribution = SALE) -> SalesCredits:
    """What the events count for whom."""
    return order.fold(events, "POS", sale, None).sales_credits


def test_a_sale_is_counted_for_both_stores_for_owner_and_server_and_for_the_brand() -> None:
    """200.00 sold on the tenth, 50.00 back on the eleventh; one order, on the day it was paid."""
    found = credited(PAID, BACK)
    assert found.subjects == {BRAND, EAST, WEST, Subject(Role.OWNER, "ann"), Subject(Role.SERVING, "bea")}
    assert found.days == {TENTH: Amounts(20_000, 0, 1), ELEVENTH: Amounts(0, 5_000, 0)}


def test_who_owns_and_serves_has_the_sale_once() -> None:
    """In a role of its own, so that neither adding up the roles nor leaving one out counts it twice."""
    found = subjects_of(replace(SALE, serving="guide:ann"))
    assert found == {BRAND, EAST, WEST, Subject(Role.OWNER_AND_SERVING, "ann")}


def test_a_pool_is_nobodys_performance_and_its_store_is_counted_once() -> None:
    """Nobody recruited him, and nobody served him."""
    found = subjects_of(replace(SALE, owner="pool:west", owner_store_id="west", serving=""))
    assert found == {BRAND, WEST}


def test_two_payments_are_one_order_on_the_day_of_the_first() -> None:
    """Also when the first becomes known last: the order moves to its day."""
    deposit = Event("PAID:2", Kind.PAID, NOON - timedelta(days=1), lines=PAID.lines)
    before, after = credited(PAID), credited(PAID, deposit)
    assert after.days == {date(2026, 3, 9): Amounts(20_000, 0, 1), TENTH: Amounts(20_000, 0, 0)}
    moved = {change.date: change.amounts for change in changes(after, before)}
    assert moved == {date(2026, 3, 9): Amounts(20_000, 0, 1), TENTH: Amounts(0, 0, -1)}


def test_a_gift_is_an_order_of_nothing() -> None:
    """Paid 0: it is counted, and adds nothing to what was sold."""
    gift = replace(PAID, lines=(replace(PAID.lines[0], paid_minor=0),))
    assert credited(gift).days == {TENTH: Amounts(0, 0, 1)}


def test_before_anything_is_paid_nothing_is_counted() -> None:
    """Not an order that was placed, and not a refund of nothing."""
    placed = Event("PLACED", Kind.PLACED, NOON, lines=PAID.lines)
    assert credited(placed, BACK).days == {}
    assert changes(credited(placed, BACK), SalesCredits()) == []


def test_a_cancelled_order_stays_an_order_of_which_all_came_back() -> None:
    """Sold on the tenth, all of it back on the eleventh."""
    closed = Event("CLOSED", Kind.CLOSED, NOON + timedelta(days=1))
    assert credited(PAID, closed).days == {TENTH: Amounts(20_000, 0, 1), ELEVENTH: Amounts(0, 20_000, 0)}


def test_the_first_that_is_told_is_one_change_a_day_and_then_only_what_is_new() -> None:
    """One document holds a day's change for all of them."""
    first, then = credited(PAID), credited(PAID, BACK)
    everybody = tuple(sorted(first.subjects))
    assert changes(first, SalesCredits()) == [Change(TENTH, everybody, Amounts(20_000, 0, 1))]
    assert changes(then, first) == [Change(ELEVENTH, everybody, Amounts(0, 5_000, 0))]
    assert changes(then, then) == []


def test_a_sale_that_turns_out_to_be_beas_too_is_taken_from_ann() -> None:
    """Bea served, and owns it now: Ann and her store give it back, day by day, and the brand sees nothing."""
    before = credited(PAID, BACK)
    after = credited(PAID, BACK, sale=replace(SALE, owner="guide:bea", owner_store_id="west"))
    gone = (EAST, Subject(Role.OWNER, "ann"), Subject(Role.SERVING, "bea"))
    new = (Subject(Role.OWNER_AND_SERVING, "bea"),)
    assert changes(after, before) == [
        Change(TENTH, new, Amounts(20_000, 0, 1)),
        Change(ELEVENTH, new, Amounts(0, 5_000, 0)),
        Change(TENTH, tuple(sorted(gone)), Amounts(-20_000, 0, -1)),
        Change(ELEVENTH, tuple(sorted(gone)), Amounts(0, -5_000, 0)),
    ]


def test_an_order_remembers_what_was_told_of_it() -> None:
    """As a document, so that nobody has to sum up the past to know what is new."""
    document = {"_id": "brand|00|POS|1", "brand_id": "brand", "rev": 1, "currency_code": "CNY"}
    [told] = sales.tell(document, credited(PAID), NOON)
    assert sales.told_of(document) == credited(PAID)
    assert (told["whole"], told["stores"], told["guides"]) == (
        True,
        ["east", "west"],
        ["ann|OWNER", "bea|SERVING"],
    )
    assert sales.tell({**document, "rev": 2}, credited(PAID), NOON) == []
