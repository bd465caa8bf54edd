"""An order's books as a pure fold of the set of its events.

Whatever order, repetition or grouping the events arrive in, the same set gives the same targets: an amount
per (line, account, payee, business month). What is posted is target minus what was posted before. Amounts
are minor units; debits are positive, credited negative.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from svc_commission.rules.apportion import apportion, round_half_up
from svc_commission.rules.attribution import Attribution
from svc_commission.rules.plan import BASIS_POINTS, PayeeRole, Plan, Rule


class Kind(enum.StrEnum):
    """What happened; the order of the members ranks events of the same moment."""

    PLACED = "PLACED"
    PAID = "PAID"
    SHIPPED = "SHIPPED"
    RECEIVED = "RECEIVED"
    REFUNDED = "REFUNDED"
    CLOSED = "CLOSED"


_RANK = {kind: rank for rank, kind in enumerate(Kind)}
_MONEY = frozenset({Kind.PAID, Kind.REFUNDED, Kind.CLOSED})


class Account(enum.StrEnum):
    """An account of the ledger."""

    EXPENSE = "EXPENSE"
    PAYABLE = "PAYABLE"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a payment."""

    line_id: str
    sku_id: str
    category_id: str
    quantity: int
    list_minor: int
    paid_minor: int


@dataclass(frozen=True, slots=True)
class RefundLine:
    """What was paid back for one line."""

    line_id: str
    refunded_minor: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an order."""

    event_id: str
    kind: Kind
    happened_time: datetime
    lines: tuple[Line, ...] = ()
    refund_lines: tuple[RefundLine, ...] = ()
    goodwill_minor: int = 0


class Target(NamedTuple):
    """What an amount is for. `month` is the first day of a month of the brand's calendar."""

    line_id: str
    account: Account
    payee: str
    month: date


@dataclass(frozen=True, slots=True)
class PayeePart:
    """One payee's part of one line."""

    payee: str
    roles: tuple[PayeeRole, ...]
    share_bp: int
    earned_minor: int
    reversed_minor: int


@dataclass(frozen=True, slots=True)
class LineBooks:
    """How one line came to its amounts. `rule` None: none matched, nothing earned."""

    line_id: str
    rule: Rule | None
    paid_minor: int
    refunded_minor: int
    earned_minor: int
    distributable_minor: int
    reversed_minor: int
    parts: tuple[PayeePart, ...]


@dataclass(frozen=True, slots=True)
class SalesCredit:
    """The sale counted for one store on one business day; negative for refunds."""

    store_id: str
    date: date
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the events of an order come to."""

    targets: Mapping[Target, int]
    lines: tuple[LineBooks, ...]
    sales_credits: tuple[SalesCredit, ...]
    refund_excess_minor: int


class _Totals:
    """Running totals of an order: what was paid and given back, before it is spread over lines."""

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.line_refunds: Counter[str] = Counter()
        self.goodwill = 0
        self.closed = False
        self.details: dict[str, Line] = {}

    def add(self, event: Event) -> None:
        for line in event.lines if event.kind is Kind.PAID else ():
            self.paid[line.line_id] += line.paid_minor
            self.details.setdefault(line.line_id, line)
        if event.kind is Kind.REFUNDED:
            for refund in event.refund_lines:
                self.line_refunds[refund.line_id] += refund.refunded_minor
            self.goodwill += event.goodwill_minor
        self.closed = self.closed or event.kind is Kind.CLOSED

    def refunded(self) -> tuple[dict[str, int], int]:
        """Refunded per line, at most what was paid for it; and what was refunded beyond all payment.

        Refunds of lines first, each cut at what its line was paid; then those of the whole order, spread
        over the lines by what remains. A closed order counts as refunded whole.
        """
        by_line = {line: min(self.line_refunds[line], paid) for line, paid in self.paid.items()}
        excess = sum(self.line_refunds.values()) - sum(by_line.values())
        remaining = {line: paid - by_line[line] for line, paid in self.paid.items()}
        spread = min(self.goodwill, sum(remaining.values()))
        excess += self.goodwill - spread
        for line, amount in (apportion(spread, remaining) if spread else {}).items():
            by_line[line] += amount
        return (dict(self.paid) if self.closed else by_line), excess


def sorted_events(events: Iterable[Event]) -> list[Event]:
    """Events in the one order in which they count: by time, then kind, then id."""
    return sorted(events, key=lambda event: (event.happened_time, _RANK[event.kind], event.event_id))


def line_books(
    line: Line, paid_minor: int, refunded_minor: int, rule: Rule | None, payees: Mapping[PayeeRole, str]
) -> LineBooks:
    """What one line earned, gave back, and for whom, from its totals.

    Computed from running totals, not from single payments and refunds, so that any series of partial
    refunds takes back exactly what one full refund would. Shares of a role that nobody fills are kept
    by the brand.
    """
    if rule is None:
        return LineBooks(line.line_id, None, paid_minor, refunded_minor, 0, 0, 0, ())
    filled = [(role, share) for role, share in rule.shares if role in payees]
    shares: Counter[str] = Counter()
    for role, share in filled:
        shares[payees[role]] += share
    earned = round_half_up(paid_minor * rule.rate_bp, BASIS_POINTS)
    distributable = round_half_up(earned * sum(shares.values()), BASIS_POINTS)
    reversed_minor = round_half_up(distributable * refunded_minor, paid_minor) if paid_minor else 0
    split, taken = apportion(distributable, shares), apportion(reversed_minor, shares)
    parts = tuple(
        PayeePart(
            payee=payee,
            roles=tuple(role for role, _ in filled if payees[role] == payee),
            share_bp=share,
            earned_minor=split[payee],
            reversed_minor=taken[payee],
        )
        for payee, share in sorted(shares.items())
    )
    return LineBooks(
        line.line_id, rule, paid_minor, refunded_minor, earned, distributable, reversed_minor, parts
    )


def fold(events: Iterable[Event], channel: str, attribution: Attribution, plan: Plan | None) -> Books:
    """What the set of events comes to. `plan` is the attribution's; None: nothing is earned."""
    zone = ZoneInfo(attribution.time_zone)
    payees = {PayeeRole.OWNER: attribution.owner}
    totals = _Totals()
    rules: dict[str, Rule | None] = {}
    targets: Counter[Target] = Counter()
    credited: Counter[tuple[str, date]] = Counter()
    standing: dict[tuple[str, str], int] = {}
    lines: dict[str, LineBooks] = {}
    net_before = 0
    excess = 0
    for event in sorted_events(event for event in events if event.kind in _MONEY):
        totals.add(event)
        refunded, excess = totals.refunded()
        day = event.happened_time.astimezone(zone).date()
        for line_id, line in totals.details.items():
            if line_id not in rules:
                rules[line_id] = _rule(plan, channel, attribution, line)
        # Most events touch few lines; to compute all of them at every event would take a large order's
        # events times its lines, and hold up every other call meanwhile.
        changed = [
            line_books(line, totals.paid[line_id], refunded[line_id], rules[line_id], payees)
            for line_id, line in totals.details.items()
            if line_id not in lines
            or lines[line_id].paid_minor != totals.paid[line_id]
            or lines[line_id].refunded_minor != refunded[line_id]
        ]
        lines.update((line.line_id, line) for line in changed)
        _add_differences(targets, standing, changed, day.replace(day=1))
        net = sum(totals.paid.values()) - sum(refunded.values())
        for store_id in attribution.credited_stores():
            credited[store_id, day] += net - net_before
        net_before = net
    return Books(
        targets={target: amount for target, amount in targets.items() if amount},
        lines=tuple(line for _, line in sorted(lines.items())),
        sales_credits=tuple(
            SalesCredit(store_id, day, amount)
            for (store_id, day), amount in sorted(credited.items(), key=lambda item: (item[0][1], item[0][0]))
            if amount
        ),
        refund_excess_minor=excess,
    )


def _rule(plan: Plan | None, channel: str, attribution: Attribution, line: Line) -> Rule | None:
    if plan is None:
        return None
    return plan.rule_for(channel, attribution.selling_store_id, line.category_id, line.sku_id)


def _add_differences(
    targets: Counter[Target], standing: dict[tuple[str, str], int], lines: Sequence[LineBooks], month: date
) -> None:
    """Books into `month` by how much each payee's part of each line has changed."""
    for line in lines:
        for part in line.parts:
            owed = part.earned_minor - part.reversed_minor
            difference = owed - standing.get((line.line_id, part.payee), 0)
            standing[line.line_id, part.payee] = owed
            if difference:
                targets[Target(line.line_id, Account.PAYABLE, part.payee, month)] -= difference
                targets[Target(line.line_id, Account.EXPENSE, "", month)] += difference


def differences(targets: Mapping[Target, int], posted: Mapping[Target, int]) -> dict[Target, int]:
    """What is still to be posted: target minus posted, where that is not zero."""
    keys = targets.keys() | posted.keys()
    found = {key: targets.get(key, 0) - posted.get(key, 0) for key in keys}
    return {key: found[key] for key in sorted(found) if found[key]}
