"""What must hold for the books of every order, each law as a function that takes a history and asserts.

Apart from the tests that run them, so that they can also be shown to catch planted faults.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import reduce

from chassis.mongo.connection import Document
from svc_commission.order import documents, sales
from svc_commission.rules import admission, order
from svc_commission.rules.admission import Admission
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.order import Account, Books, Circumstances
from svc_commission.rules.plan import BASIS_POINTS, Base
from svc_commission.rules.sales_credit import NOTHING, Amounts
from tests.strategies import MONTH_STARTS, History

NOW = datetime(2027, 1, 1, tzinfo=UTC)
Owed = dict[tuple[str, str], int]


def books_of(history: History) -> Books:
    """The books of an order, from all its events at once."""
    return order.fold(history.events, history.channel, history.attribution, history.plan, history.around)


def owed_of(history: History) -> Owed:
    """What is owed in the end, held or not, by line and payee: the credits of the accounts of debts."""
    owed: Counter[tuple[str, str]] = Counter()
    for target, amount in books_of(history).targets.items():
        if target.account is not Account.EXPENSE:
            owed[target.line_id, target.payee] -= amount
    return {key: amount for key, amount in owed.items() if amount}


def months_of(history: History) -> list[tuple[datetime, date]]:
    """When some months begin where the order was sold, and the first day of each."""
    found = []
    for starts in MONTH_STARTS[history.attribution.time_zone]:
        east = starts.day != 1  # there a month begins while UTC still counts the last one
        first_day = (
            date(starts.year + starts.month // 12, starts.month % 12 + 1, 1) if east else starts.date()
        )
        found.append((starts, first_day))
    return found


def details_of(history: History, line_id: str) -> tuple[Line, int, int]:
    """A line as its first payment names it, what was paid for it, and what the platform paid beside."""
    payments = [
        (event.happened_time, event.event_id, line)
        for event in history.events
        if event.kind is Kind.PAID
        for line in event.lines
        if line.line_id == line_id
    ]
    lines = [line for *_, line in sorted(payments, key=lambda payment: payment[:2])]
    return lines[0], sum(line.paid_minor for line in lines), sum(line.subsidy_minor for line in lines)


def journal_of(
    history: History, arriving: Sequence[Sequence[Event]]
) -> tuple[list[Document], list[Document]]:
    """The entries and sales that are recorded when events arrive in calls, repeats among them.

    Does between calls what the service does: keeps events, targets and credits as documents, admits each
    event by its id and hash, and tells what is to be minus what was told. Until the last call the order
    passes for a first purchase and nobody has looked whether to confirm; after it both are as in the history.
    """
    stored: dict[str, Event] = {}
    hashes: dict[str, bytes] = {}
    posted: list[Document] = []
    entries: list[Document] = []
    counted: list[Document] = []
    key: Document = {"_id": "brand|00|POS|1", "brand_id": "brand", "currency_code": "CNY"}
    for rev, call in enumerate([*arriving, []], start=1):
        for event in call:
            body = repr(event).encode()
            if admission.admit(hashes, event.event_id, body) is Admission.NEW:
                hashes[event.event_id], stored[event.event_id] = body, event
        around = history.around if rev >= len(arriving) else Circumstances(first_purchase=True)
        so_far = dataclasses.replace(history, events=tuple(stored.values()), around=around)
        books = books_of(so_far)
        new = order.differences(books.targets, documents.targets_of(posted))
        posted = documents.target_documents(books.targets)
        key["rev"] = rev
        counted += sales.tell(key, books.sales_credits, NOW)
        entries += documents.entry_documents(key, history.attribution, new, list(stored), NOW, None)
    return entries, counted


def any_arrival_gives_the_same_books(history: History, arriving: Sequence[Sequence[Event]]) -> None:
    """Order, repeats and grouping of what arrives change no balance of any line, payee and month.

    Nor what is counted for anybody on any day.
    """
    entries, counted = journal_of(history, arriving)
    assert not any(sum(one["amount_minor"] for one in entry["postings"]) for entry in entries), "unbalanced"
    assert documents.posted(entries) == books_of(history).targets
    assert sales.counted(counted) == books_of(history).sales_credits.each()
    assert len({one["_id"] for one in counted}) == len(counted)


def every_month_balances(history: History) -> None:
    """In each month of the brand's calendar what the brand spends is what it owes."""
    months: Counter[date] = Counter()
    for target, amount in books_of(history).targets.items():
        months[target.month] += amount
    assert not any(months.values())


def a_month_holds_what_happened_in_it(history: History) -> None:
    """The books up to a month are those of the events that happened before the next one began."""
    targets = books_of(history).targets
    for starts, first_day in months_of(history):
        before = owed_of(history.of([event for event in history.events if event.happened_time < starts]))
        posted: Counter[tuple[str, str]] = Counter()
        for target, amount in targets.items():
            if target.account is not Account.EXPENSE and target.month < first_day:
                posted[target.line_id, target.payee] -= amount
        assert {key: amount for key, amount in posted.items() if amount} == before


def amounts_are_rounded_to_the_nearest_fen(history: History) -> None:
    """Each amount of a line is the exact one rounded, halves upwards; nothing is owed without a rule.

    Cap and floor hold for what the line earned before anything came back, and nothing is earned of nothing.
    What lines under tiers earn is in tier_laws.py.
    """
    for line in books_of(history).lines:
        rule = line.rule
        if rule is None:
            assert (line.earned_minor, line.distributable_minor, line.reversed_minor) == (0, 0, 0)
            continue
        details, paid, subsidy = details_of(history, line.line_id)
        base = paid + subsidy if rule.base is Base.PAID_PLUS_SUBSIDY else paid
        exact = Fraction(base * rule.rate_bp, BASIS_POINTS) + rule.per_unit_minor * details.quantity
        exact = max(exact, Fraction(rule.floor_minor))
        if rule.cap_minor is not None:
            exact = min(exact, Fraction(rule.cap_minor))
        if not rule.tiers:
            _is_rounded(line.earned_minor, exact if paid else Fraction(0))
        shares = sum(part.share_bp for part in line.parts)
        _is_rounded(line.distributable_minor, Fraction(line.earned_minor * shares, BASIS_POINTS))
        back = Fraction(line.refunded_minor, paid) if paid else Fraction(0)
        if rule.per_unit_minor and back < 1:
            back = Fraction(min(_pieces_back(history, line.line_id), details.quantity), details.quantity)
        _is_rounded(line.reversed_minor, line.distributable_minor * back)
        assert sum(part.earned_minor for part in line.parts) == line.distributable_minor
        assert sum(part.reversed_minor for part in line.parts) == line.reversed_minor


def _pieces_back(history: History, line_id: str) -> int:
    return sum(
        refund.quantity
        for event in history.refunds
        for refund in event.refund_lines
        if refund.line_id == line_id
    )


def _is_rounded(amount: int, exact: Fraction) -> None:
    assert Fraction(-1, 2) < amount - exact <= Fraction(1, 2), f"{amount} is not {exact} rounded"


def nobody_gives_back_more_than_she_got(history: History) -> None:
    """What is taken back lies between nothing and what was earned, for each line and each payee."""
    for line in books_of(history).lines:
        assert 0 <= line.refunded_minor <= line.paid_minor
        assert 0 <= line.reversed_minor <= line.distributable_minor <= line.earned_minor
        assert all(0 <= part.reversed_minor <= part.earned_minor for part in line.parts)


def books_say_what_is_owed(history: History) -> None:
    """The explanation of the lines and the amounts posted are the same story."""
    told = {
        (line.line_id, part.payee): part.earned_minor - part.reversed_minor
        for line in books_of(history).lines
        for part in line.parts
    }
    assert {key: amount for key, amount in told.items() if amount} == owed_of(history)


def no_refund_pays_anybody(history: History) -> None:
    """Had one refund not happened, nobody would be owed less, on any line."""
    owed = owed_of(history)
    for taken_out in [event for event in history.events if event.kind in (Kind.REFUNDED, Kind.CLOSED)]:
        without = owed_of(history.of([event for event in history.events if event is not taken_out]))
        assert all(amount <= without.get(key, 0) for key, amount in owed.items())


def partial_refunds_are_one_full_refund(history: History) -> None:
    """All refunds in one, at any time, take back the same as the refunds one by one."""
    if not history.refunds:
        return
    by_line: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    for event in history.refunds:
        for refund in event.refund_lines:
            by_line[refund.line_id] += refund.refunded_minor
            pieces[refund.line_id] += refund.quantity
    whole = Event(
        "REFUND:whole",
        Kind.REFUNDED,
        history.refunds[-1].happened_time,
        refund_lines=tuple(
            RefundLine(line_id, amount, pieces[line_id]) for line_id, amount in by_line.items()
        ),
        goodwill_minor=sum(event.goodwill_minor for event in history.refunds),
    )
    others = [event for event in history.events if event.kind is not Kind.REFUNDED]
    assert books_of(history.of([*others, whole])).lines == books_of(history).lines


def a_full_refund_leaves_nothing(history: History) -> None:
    """When every line is refunded whole, by line or by goodwill, nothing is owed to anybody."""
    paid: Counter[str] = Counter()
    for event in history.events:
        if event.kind is Kind.PAID:
            for line in event.lines:
                paid[line.line_id] += line.paid_minor
    times = [event.happened_time for event in history.events]
    lines = tuple(RefundLine(line_id, amount, 1) for line_id, amount in paid.items())
    by_line = Event("REFUND:all", Kind.REFUNDED, max(times), refund_lines=lines)
    by_goodwill = Event("REFUND:all", Kind.REFUNDED, min(times), goodwill_minor=sum(paid.values()))
    closed = Event("CLOSED", Kind.CLOSED, max(times))
    open_events = [event for event in history.events if event.kind is not Kind.CLOSED]
    for end in (by_line, by_goodwill, closed):
        assert owed_of(history.of([*open_events, end])) == {}


def every_refunded_fen_is_accounted_for(history: History) -> None:
    """What was refunded is on a line that was paid, or is excess; a line takes no more than was paid."""
    books = books_of(history)
    asked = sum(
        event.goodwill_minor + sum(refund.refunded_minor for refund in event.refund_lines)
        for event in history.refunds
    )
    if history.closed:
        assert all(line.refunded_minor == line.paid_minor for line in books.lines)
        books = books_of(history.of([one for one in history.events if one.kind is not Kind.CLOSED]))
    assert sum(line.refunded_minor for line in books.lines) + books.refund_excess_minor == asked
    for line in books.lines:
        of_line = sum(
            refund.refunded_minor
            for event in history.refunds
            for refund in event.refund_lines
            if refund.line_id == line.line_id
        )
        assert line.refunded_minor >= min(of_line, line.paid_minor), "refunds of lines come first"


def goodwill_is_borne_by_what_remains_paid(history: History) -> None:
    """A refund of no line is spread in proportion to what is left of each after its own refunds.

    In proportion: of no two lines could one fen be moved from one to the other to make their parts more
    equal, measured by what remains of each (the property by which Webster's method is defined).
    """
    open_events = [event for event in history.events if event.kind is not Kind.CLOSED]
    asked: Counter[str] = Counter()
    for event in history.refunds:
        for refund in event.refund_lines:
            asked[refund.line_id] += refund.refunded_minor
    remaining, part = {}, {}
    for line in books_of(history.of(open_events)).lines:
        own = min(asked[line.line_id], line.paid_minor)
        remaining[line.line_id] = line.paid_minor - own
        part[line.line_id] = line.refunded_minor - own
    goodwill = sum(event.goodwill_minor for event in history.refunds)
    assert sum(part.values()) == min(goodwill, sum(remaining.values()))
    for one, most in part.items():
        assert 0 <= most <= remaining[one]
        for other, least in part.items():
            assert (2 * most - 1) * remaining[other] <= (2 * least + 1) * remaining[one]


def each_is_credited_once(history: History) -> None:
    """Whoever has a part in the sale has what was paid and refunded counted once, however often named.

    The stores, the guide who owns it, the guide who served, the brand. A pool is nobody.
    """
    frozen = history.attribution
    named = {frozen.selling_store_id, frozen.owner_store_id, frozen.flagship_store_id, "the brand"}
    named |= {payee.removeprefix("guide:") for payee in (frozen.owner, frozen.serving)} - {"pool:east"}
    counted: Counter[str] = Counter()
    orders: Counter[str] = Counter()
    for (subject, _), amounts in books_of(history).sales_credits.each().items():
        counted[subject.subject_id or "the brand"] += amounts.net_minor
        orders[subject.subject_id or "the brand"] += amounts.order_count
    net = sum(line.paid_minor - line.refunded_minor for line in books_of(history).lines)
    assert {name: amount for name, amount in counted.items() if amount} == (
        dict.fromkeys(named - {""}, net) if net else {}
    )
    assert set(orders.values()) <= {0, 1}


def credits_fall_on_the_day(history: History) -> None:
    """A sale counts on the day it is paid, a refund on the day it is refunded, by the brand's calendar.

    Until any midnight there, what was paid, refunded and first paid before it has been counted.
    """
    days = books_of(history).sales_credits.days
    for starts, first_day in months_of(history):
        for later in (timedelta(days=number) for number in (-1, 0, 1)):
            past = [event for event in history.events if event.happened_time < starts + later]
            lines = books_of(history.of(past)).lines
            counted = [amounts for day, amounts in days.items() if day < first_day + later]
            assert reduce(Amounts.plus, counted, NOTHING) == Amounts(
                sum(line.paid_minor for line in lines),
                sum(line.refunded_minor for line in lines),
                any(event.kind is Kind.PAID for event in past),
            )


def credit_follows_the_attribution(history: History) -> None:
    """Attributed anew, a sale is counted for those whose it is now as if it had always been theirs.

    Whoever it was counted for before has nothing left of it, on any day.
    """
    frozen = history.attribution
    anew = dataclasses.replace(
        history,
        attribution=dataclasses.replace(
            frozen,
            owner=frozen.serving or "guide:dee",
            serving=frozen.serving and "guide:ann",
            owner_store_id=frozen.selling_store_id,
            selling_store_id="north",
        ),
    )
    order_document: Document = {"_id": "brand|00|POS|1", "brand_id": "brand", "currency_code": "CNY"}
    counted: list[Document] = []
    for rev, known in enumerate([history.of(history.events[::2]), history, anew, history, anew]):
        order_document["rev"] = rev
        counted += sales.tell(order_document, books_of(known).sales_credits, NOW)
        assert sales.counted(counted) == books_of(known).sales_credits.each()


def swapped(history: History, one: Event, other: Event) -> History:
    """The same history with the times of two events exchanged."""
    exchanged = {
        one.event_id: dataclasses.replace(one, happened_time=other.happened_time),
        other.event_id: dataclasses.replace(other, happened_time=one.happened_time),
    }
    return history.of([exchanged.get(event.event_id, event) for event in history.events])


def the_order_of_refunds_changes_nothing(history: History) -> None:
    """Two refunds whose dates are exchanged take back the same in the end, goodwill among them."""
    for one in history.refunds:
        for other in history.refunds:
            if one.event_id < other.event_id:
                assert owed_of(swapped(history, one, other)) == owed_of(history)


LAWS = (
    every_month_balances,
    a_month_holds_what_happened_in_it,
    amounts_are_rounded_to_the_nearest_fen,
    nobody_gives_back_more_than_she_got,
    books_say_what_is_owed,
    no_refund_pays_anybody,
    partial_refunds_are_one_full_refund,
    a_full_refund_leaves_nothing,
    every_refunded_fen_is_accounted_for,
    goodwill_is_borne_by_what_remains_paid,
    each_is_credited_once,
    credits_fall_on_the_day,
    credit_follows_the_attribution,
    the_order_of_refunds_changes_nothing,
)
"""Those that need nothing but a history."""
