"""What must hold for books under tiers, and for those of orders that live through the close of a month.

Each law as in order_laws.py.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from chassis.mongo.connection import Document
from svc_commission.order import documents
from svc_commission.rules import order
from svc_commission.rules.event import Event, Kind
from svc_commission.rules.order import Target
from svc_commission.rules.plan import BASIS_POINTS, AfterClose, TierMode, Tiers
from tests.strategies import History
from tests.unit import order_laws as laws

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def local_month(history: History, time: datetime) -> date:
    """The first day of the month that a moment falls into, where the order was sold."""
    return time.astimezone(ZoneInfo(history.attribution.time_zone)).date().replace(day=1)


def paid_by_month(history: History, line_id: str) -> dict[date, int]:
    """What was paid for a line in each month."""
    paid: Counter[date] = Counter()
    for event in history.events:
        if event.kind is Kind.PAID:
            for line in event.lines:
                if line.line_id == line_id:
                    paid[local_month(history, event.happened_time)] += line.paid_minor
    return dict(paid)


def by_the_table(tiers: Tiers, base_bp: int, sales: int) -> Fraction:
    """What sales earn by a table: fen by fen for MARGINAL, by the last tier reached for WHOLE."""
    reached = [(0, base_bp), *((tier.from_minor, tier.rate_bp) for tier in tiers.tiers)]
    if tiers.mode is TierMode.WHOLE:
        return Fraction(sales * max(one for one in reached if one[0] <= sales)[1], BASIS_POINTS)
    total = Fraction(0)
    for place, (begin, rate) in enumerate(reached):
        end = reached[place + 1][0] if place + 1 < len(reached) else sales
        if sales > begin:
            total += Fraction((min(end, sales) - begin) * rate, BASIS_POINTS)
    return total


def closed_months_earn_what_their_sales_reached(history: History) -> None:
    """A line earns paid × T ÷ S for each month that was closed, its own rate for the rest, each rounded."""
    for line in laws.books_of(history).lines:
        rule = line.rule
        if rule is None or rule.tiers is None:
            continue
        exact, parts, open_paid = Fraction(0), 1, 0
        for month, paid in paid_by_month(history, line.line_id).items():
            sold = history.around.sales.get(month)
            frozen = rule.tiers.after_close is AfterClose.FROZEN
            sales = (sold.sales_minor if frozen else sold.latest_minor) if sold else 0
            if sales:
                exact += paid * by_the_table(rule.tiers, rule.rate_bp, sales) / sales
                parts += 1
            else:
                open_paid += paid
        exact += Fraction(open_paid * rule.rate_bp, BASIS_POINTS)
        least, most = exact - Fraction(parts, 2), exact + Fraction(parts, 2)
        cap = rule.cap_minor if rule.cap_minor is not None else None
        least, most = (max(bound, Fraction(rule.floor_minor)) for bound in (least, most))
        if cap is not None:
            least, most = min(least, Fraction(cap)), min(most, Fraction(cap))
        assert least <= line.earned_minor <= most if line.paid_minor else line.earned_minor == 0


def the_margin_is_booked_in_the_month_that_it_is_of(history: History) -> None:
    """What a close changes of what was earned counts in the month that was closed, and in no other.

    Of lines that were paid in one month: another month's part of the same line has the same cap and floor.
    """
    lines = {line.line_id for event in history.events for line in event.lines}
    if any(len(paid_by_month(history, line_id)) > 1 for line_id in lines):
        return
    for month in history.around.sales:
        others = {one: sold for one, sold in history.around.sales.items() if one != month}
        without = dataclasses.replace(history, around=dataclasses.replace(history.around, sales=others))
        earned: Counter[date] = Counter()
        for one, sign in ((history, 1), (without, -1)):
            for target, amount in laws.books_of(one).targets.items():
                if target.kind == "EARNED" and target.account != "EXPENSE":
                    earned[target.month] += sign * amount
        assert not any(amount for booked, amount in earned.items() if booked != month)


def owner_sales_are_what_was_paid_less_what_of_it_was_refunded_within_the_month(history: History) -> None:
    """Of each line that a payment of the month names, were it paid nothing, and never less than nothing."""
    months = {local_month(history, event.happened_time) for event in history.events}
    expected: Counter[date] = Counter()
    lines = {line.line_id for event in history.events for line in event.lines if event.kind is Kind.PAID}
    for month in months:
        up_to = [event for event in history.events if local_month(history, event.happened_time) <= month]
        before = [event for event in up_to if local_month(history, event.happened_time) < month]
        refunded = [
            {line.line_id: line.refunded_minor for line in laws.books_of(history.of(events)).lines}
            for events in (before, up_to)
        ]
        for line_id in lines:
            paid = paid_by_month(history, line_id)
            if month in paid:
                back = refunded[1].get(line_id, 0) - refunded[0].get(line_id, 0)
                expected[month] += max(0, paid[month] - back)
    assert laws.books_of(history).owner_sales == {month: sold for month, sold in expected.items() if sold}


def tiered_months_are_those_in_which_lines_under_tiers_were_paid(history: History) -> None:
    """Whatever was paid: nothing, too."""
    tiered = {
        line.line_id for line in laws.books_of(history).lines if line.rule is not None and line.rule.tiers
    }
    months = {month for line_id in tiered for month in paid_by_month(history, line_id)}
    assert laws.books_of(history).tiered_months == months


def journal_across_closes(history: History, arriving: Sequence[Sequence[Event]]) -> list[Document]:
    """The entries that are recorded when a month is closed between any two calls."""
    stored: dict[str, Event] = {}
    posted: list[Document] = []
    entries: list[Document] = []
    for rev, call in enumerate(arriving, start=1):
        stored.update((event.event_id, event) for event in call)
        books = laws.books_of(history.of(list(stored.values())))
        new = order.differences(books.targets, documents.targets_of(posted))
        posted = documents.target_documents(books.targets)
        key = {"_id": "brand|00|POS|1", "brand_id": "brand", "rev": rev, "currency_code": "CNY"}
        first_open = date(2026, 1, 1) + timedelta(days=31 * (rev - 1))
        causes = list(stored)
        entries += documents.entry_documents(
            key, history.attribution, new, causes, NOW, first_open.replace(day=1)
        )
    return entries


def closes_change_when_it_is_posted_and_nothing_else(
    history: History, arriving: Sequence[Sequence[Event]]
) -> None:
    """Nothing is posted in a closed month, every entry balances, and in sum the books are the same."""
    entries = journal_across_closes(history, arriving)
    for entry in entries:
        open_since = date(2026, 1, 1) + timedelta(days=31 * (entry["rev"] - 1))
        assert documents.month_of(entry["posting_month"]) >= open_since.replace(day=1)
        assert sum(one["amount_minor"] for one in entry["postings"]) == 0
    whole: Counter[Target] = Counter(laws.books_of(history).targets)
    assert documents.posted(entries) == dict(whole)


LAWS = (
    closed_months_earn_what_their_sales_reached,
    the_margin_is_booked_in_the_month_that_it_is_of,
    owner_sales_are_what_was_paid_less_what_of_it_was_refunded_within_the_month,
    tiered_months_are_those_in_which_lines_under_tiers_were_paid,
)
