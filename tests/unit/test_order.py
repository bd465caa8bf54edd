"""An order's books: the same set of events gives the same fen, and the fen that a person would compute."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.line import LineBooks, Totals
from svc_commission.rules.order import Account, Books, Target
from svc_commission.rules.plan import Match, PayeeRole, Plan, Rule, Share
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.sales_credit import BRAND, Amounts, Role, Subject
from tests.strategies import History, arrivals, held_histories, histories, paid_histories, times
from tests.unit import order_laws as laws


@given(st.data(), st.one_of(paid_histories(), held_histories()))
def test_any_arrival_gives_the_same_books(data: st.DataObject, history: History) -> None:
    """The heart of the service: whatever the networks do to the events, everybody is owed the same."""
    laws.any_arrival_gives_the_same_books(history, data.draw(arrivals(history.events)))


@given(paid_histories())
def test_every_month_balances(history: History) -> None:
    """An entry that did not sum to zero would make money."""
    laws.every_month_balances(history)


@given(paid_histories())
def test_a_month_holds_what_happened_in_it(history: History) -> None:
    """By the brand's calendar: in Shanghai a month begins while UTC still counts the last one."""
    laws.a_month_holds_what_happened_in_it(history)


@given(histories())
def test_amounts_are_rounded_to_the_nearest_fen(history: History) -> None:
    """Halves go up, in what is earned, in what is shared out and in what is taken back."""
    laws.amounts_are_rounded_to_the_nearest_fen(history)


@given(paid_histories())
def test_nobody_gives_back_more_than_she_got(history: History) -> None:
    """Whatever is refunded, and however much too much."""
    laws.nobody_gives_back_more_than_she_got(history)


@given(paid_histories())
def test_the_explanation_and_the_postings_agree(history: History) -> None:
    """Who asks why gets the amounts that were posted."""
    laws.books_say_what_is_owed(history)


@given(paid_histories())
def test_no_refund_pays_anybody(history: History) -> None:
    """What is owed on a line never rises by a refund, on that line, on another or on the whole order."""
    laws.no_refund_pays_anybody(history)


@given(paid_histories())
def test_partial_refunds_take_back_exactly_what_one_full_refund_takes(history: History) -> None:
    """A lost fen is an accounting error, however the customer splits his returns."""
    laws.partial_refunds_are_one_full_refund(history)


@given(paid_histories())
def test_a_full_refund_or_a_cancellation_leaves_nothing_owed(history: History) -> None:
    """Whatever was refunded before, and when."""
    laws.a_full_refund_leaves_nothing(history)


@given(histories())
def test_every_refunded_fen_is_accounted_for(history: History) -> None:
    """On the line that was paid, or as excess that a person is told of; lines before goodwill."""
    laws.every_refunded_fen_is_accounted_for(history)


@given(paid_histories())
def test_goodwill_is_borne_by_what_remains_paid(history: History) -> None:
    """Refunds of lines come first; who has nothing left to give back bears nothing more."""
    laws.goodwill_is_borne_by_what_remains_paid(history)


@given(paid_histories())
def test_each_is_credited_once(history: History) -> None:
    """Sales credit is paid minus refunded for each store and guide of the sale, also for one that is two."""
    laws.each_is_credited_once(history)


@given(paid_histories())
def test_credits_fall_on_the_day_of_payment_and_of_refund(history: History) -> None:
    """A month's ranking of stores does not change when goods come back in the next."""
    laws.credits_fall_on_the_day(history)


@given(paid_histories())
def test_credit_follows_the_attribution(history: History) -> None:
    """Nobody keeps the credit of a sale that turned out to be another's."""
    laws.credit_follows_the_attribution(history)


@given(paid_histories())
def test_the_order_of_refunds_changes_nothing_in_the_end(history: History) -> None:
    """Goodwill first and the line's refund after, or the other way round: the same is taken back."""
    laws.the_order_of_refunds_changes_nothing(history)


@given(paid_histories())
def test_what_was_posted_needs_no_posting_again(history: History) -> None:
    """A repeat posts nothing."""
    targets = laws.books_of(history).targets
    assert order.differences(targets, targets) == {}


# Worked by hand. Ann owns the buyer; line A earns 10 %, line B nothing; Shanghai.

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
LINES = (Line("A", "sku-A", "shoes", 1, 10_000, 10_000), Line("B", "sku-B", "hats", 1, 10_000, 10_000))
PAID = Event("PAID:1", Kind.PAID, NOON, lines=LINES)


def books(*events: Event, share_bp: int = 10_000, rate_bp: int = 1000) -> Books:
    """The books of the worked order."""
    shares = (Share(PayeeRole.OWNER, share_bp),)
    rules = (
        Rule("shoes", Match(category_ids=frozenset({"shoes"})), rate_bp, shares),
        Rule("rest", Match(), 0, shares),
    )
    attribution = Attribution(
        member_id="member",
        binding_id="member.1",
        owner="guide:ann",
        owner_basis=OwnerBasis.BINDING,
        selling_store_id="flagship",
        owner_store_id="east",
        flagship_store_id="flagship",
        as_of_time=NOON,
        known_at_time=NOON,
        plan_id="plan",
        time_zone="Asia/Shanghai",
    )
    plan = Plan("plan", datetime(2026, 1, 1, tzinfo=UTC), None, rules)
    return order.fold(events, "TMALL", attribution, plan)


def refund(number: int, days: int, goodwill_minor: int = 0, **lines: int) -> Event:
    """A refund some days after the payment, by line and as goodwill."""
    return Event(
        f"REFUND:{number}",
        Kind.REFUNDED,
        NOON + timedelta(days=days),
        refund_lines=tuple(RefundLine(line_id, amount, 1) for line_id, amount in lines.items()),
        goodwill_minor=goodwill_minor,
    )


def owed_to_ann(found: Books) -> int:
    """What Ann is owed, over all months."""
    return -sum(amount for target, amount in found.targets.items() if target.payee == "guide:ann")


@pytest.mark.parametrize("days", [(1, 2), (2, 1)], ids=["goodwill first", "line first"])
def test_goodwill_of_50_and_a_refund_of_60_on_a_take_back_7_43(days: tuple[int, int]) -> None:
    """60.00 of A is refunded, 40.00 of A and 100.00 of B remain: of 50.00 goodwill A bears 14.29.

    74.29 of 100.00 refunded take back 7.43 of the 10.00 that A earned. B earned nothing.
    """
    found = books(PAID, refund(1, days[0], 5000), refund(2, days[1], A=6000))
    line_a, line_b = found.lines
    assert (line_a.refunded_minor, line_a.reversed_minor) == (7429, 743)
    assert (line_b.refunded_minor, line_b.reversed_minor) == (3571, 0)
    assert owed_to_ann(found) == 257


def test_goodwill_alone_is_borne_by_what_was_paid() -> None:
    """50.00 on 100.00 + 100.00: 25.00 each; a quarter of Ann's 10.00 goes back."""
    found = books(PAID, refund(1, 1, 5000))
    assert [line.refunded_minor for line in found.lines] == [2500, 2500]
    assert owed_to_ann(found) == 750


def test_months_are_those_of_the_refund() -> None:
    """Earned in March, 6.00 taken back in April: March keeps its 10.00, April stands at minus 6.00."""
    found = books(PAID, refund(1, 30, A=6000))
    march, april = date(2026, 3, 1), date(2026, 4, 1)
    assert found.targets == {
        Target("A", Account.PAYABLE, "guide:ann", march, PostingKind.EARNED): -1000,
        Target("A", Account.EXPENSE, "", march, PostingKind.EARNED): 1000,
        Target("A", Account.PAYABLE, "guide:ann", april, PostingKind.CLAWED_BACK): 600,
        Target("A", Account.EXPENSE, "", april, PostingKind.CLAWED_BACK): -600,
    }


def test_a_month_begins_at_local_midnight() -> None:
    """Paid on 31 March at 16:00 UTC it is April in Shanghai; a millisecond before, it is March."""
    midnight = datetime(2026, 3, 31, 16, tzinfo=UTC)
    for moment, month in [
        (midnight - timedelta(milliseconds=1), date(2026, 3, 1)),
        (midnight, date(2026, 4, 1)),
    ]:
        found = books(Event("PAID:1", Kind.PAID, moment, lines=LINES))
        assert {target.month for target in found.targets} == {month}
        [day] = found.sales_credits.days
        assert day.replace(day=1) == month


def test_both_the_store_and_the_flagship_are_credited_and_ann_is_owed_once() -> None:
    """200.00 paid on Tmall: 200.00 of sales for the flagship, Ann's store and Ann, 10.00 owed to Ann."""
    found = books(PAID)
    assert found.sales_credits.subjects == {
        BRAND,
        Subject(Role.STORE, "east"),
        Subject(Role.STORE, "flagship"),
        Subject(Role.OWNER, "ann"),
    }
    assert found.sales_credits.days == {date(2026, 3, 10): Amounts(20_000, 0, 1)}
    assert owed_to_ann(found) == 1000


def test_a_presale_is_the_sum_of_its_payments() -> None:
    """A deposit of 0.05 and a rest of 0.05 at 10 %: 0.01 together, though 0.005 each would round to 0.02."""
    deposit, rest = (
        Event(f"PAID:{number}", Kind.PAID, NOON, lines=(Line("A", "sku-A", "shoes", 1, 10, 5),))
        for number in (1, 2)
    )
    assert owed_to_ann(books(deposit)) == 1
    assert owed_to_ann(books(deposit, rest)) == 1


def test_halves_of_a_fen_go_up_at_each_of_the_three_places() -> None:
    """A of 34 fen at 10 %: 3.4 earned, 3; half of it shared out: 1.5, 2; half of that taken back: 1.

    A of 35 fen: 3.5 earned, 4; of that 20/35 taken back: 2.3, 2.
    """
    paid = Event("PAID:1", Kind.PAID, NOON, lines=(Line("A", "sku-A", "shoes", 1, 34, 34),))
    [line] = books(paid, refund(1, 1, A=17), share_bp=5000).lines
    assert (line.earned_minor, line.distributable_minor, line.reversed_minor) == (3, 2, 1)
    paid = Event("PAID:1", Kind.PAID, NOON, lines=(Line("A", "sku-A", "shoes", 1, 35, 35),))
    [line] = books(paid, refund(1, 1, A=20), share_bp=10_000).lines
    assert (line.earned_minor, line.reversed_minor) == (4, 2)


def test_a_refund_dated_before_its_payment_counts_when_both_are_there() -> None:
    """The channel's clocks disagree: 60.00 of A refunded a day before A was paid is 6.00 less for Ann."""
    found = books(PAID, refund(1, -1, A=6000))
    assert owed_to_ann(found) == 400
    assert found.sales_credits.days == {date(2026, 3, 10): Amounts(20_000, 6000, 1)}
    assert found.refund_excess_minor == 0


def test_what_is_refunded_beyond_payment_is_told_and_posts_nothing() -> None:
    """130.00 on A of 100.00 and 150.00 goodwill on the remaining 100.00: 30.00 + 50.00 too much."""
    found = books(PAID, refund(1, 1, A=13_000), refund(2, 2, 15_000))
    assert found.refund_excess_minor == 8000
    assert owed_to_ann(found) == 0
    assert found.sales_credits.days == {
        date(2026, 3, 10): Amounts(20_000, 0, 1),
        date(2026, 3, 11): Amounts(0, 10_000, 0),
        date(2026, 3, 12): Amounts(0, 10_000, 0),
    }


def test_a_refund_of_a_line_that_nobody_paid_is_excess() -> None:
    """It takes nothing back from the lines that were paid."""
    found = books(PAID, refund(1, 1, Z=500))
    assert found.refund_excess_minor == 500
    assert owed_to_ann(found) == 1000


def test_a_cancelled_order_earns_nothing_whatever_is_paid_later() -> None:
    """A payment that arrives dated after the cancellation changes nothing."""
    closed = Event("CLOSED", Kind.CLOSED, NOON + timedelta(days=1))
    late = Event("PAID:2", Kind.PAID, NOON + timedelta(days=2), lines=LINES)
    assert owed_to_ann(books(PAID, closed)) == 0
    assert owed_to_ann(books(PAID, closed, late)) == 0


def test_placing_shipping_and_receiving_move_no_money() -> None:
    """Amounts come from payments alone: prices change before they are paid."""
    placed = Event("PLACED", Kind.PLACED, NOON, lines=LINES)
    shipped, received = Event("SHIPPED:1", Kind.SHIPPED, NOON), Event("RECEIVED", Kind.RECEIVED, NOON)
    assert books(placed, shipped, received).targets == {}
    assert books(placed, PAID, shipped, received) == books(PAID)


def test_an_event_computes_no_more_lines_than_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order of many payments would hold up all others; also one that was cancelled, or full of gifts."""
    computed: list[str] = []
    whole = Totals.books

    def counted(self: Totals, line: Line, *rest: Any) -> LineBooks:
        computed.append(line.line_id)
        return whole(self, line, *rest)

    monkeypatch.setattr(Totals, "books", counted)
    payments = [
        Event(
            f"PAID:{number}",
            Kind.PAID,
            NOON + timedelta(minutes=number),
            lines=tuple(Line(f"{number}-{price}", "sku", "", 1, price, price) for price in (0, 100)),
        )
        for number in range(20)
    ]
    lines = {line.line_id for payment in payments for line in payment.lines}
    closed = Event("CLOSED", Kind.CLOSED, NOON - timedelta(days=1))
    for events, more in [
        (payments, []),
        ([*payments, closed], []),
        ([*payments, refund(1, 1, **{"3-100": 5})], ["3-100"]),
        ([*payments, refund(1, 1, goodwill_minor=2000)], [one for one in lines if one.endswith("-100")]),
    ]:
        computed.clear()
        books(*events)
        assert sorted(computed) == sorted([*lines, *more])


def test_without_a_plan_a_sale_is_credited_and_nothing_is_owed() -> None:
    """The brand counts its sales before it pays for them."""
    attribution = Attribution(
        "m", "", "pool:east", OwnerBasis.STORE_POOL, "east", "", "", NOON, NOON, "", "Asia/Shanghai"
    )
    found = order.fold([PAID], "POS", attribution, None)
    assert found.targets == {}
    assert found.sales_credits.subjects == {BRAND, Subject(Role.STORE, "east")}
    assert found.sales_credits.days == {date(2026, 3, 10): Amounts(20_000, 0, 1)}


def test_the_first_matching_rule_of_the_plan_decides_each_line() -> None:
    """Shoes earn by the rule for shoes, all else by the rule for the rest."""
    assert [line.rule.rule_id for line in books(PAID).lines if line.rule] == ["shoes", "rest"]


@given(paid_histories(), st.sampled_from([Kind.PLACED, Kind.SHIPPED, Kind.RECEIVED]), st.data())
def test_what_moves_no_money_changes_no_amount_before_anything_is_confirmed(
    history: History, kind: Kind, data: st.DataObject
) -> None:
    """So the books need not be made anew for it: it decides for how long is held, and nothing else."""
    waiting = dataclasses.replace(history, around=dataclasses.replace(history.around, confirmed_through=None))
    moved = Event("more", kind, data.draw(times(history.attribution.time_zone)))
    before, after = laws.books_of(waiting), laws.books_of(waiting.of([*history.events, moved]))
    assert (before.targets, before.lines) == (after.targets, after.lines)
    assert before.owner_sales == after.owner_sales
    assert before.sales_credits.each() == after.sales_credits.each()
