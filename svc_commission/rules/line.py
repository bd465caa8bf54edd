"""What one line of an order earned, gave back, and for whom.

Everything is computed from running totals, not from single payments and refunds, so that any series of
partial refunds takes back exactly what one full refund would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from svc_commission.rules.apportion import apportion, round_half_up
from svc_commission.rules.event import Event, Kind, Line
from svc_commission.rules.plan import BASIS_POINTS, Absent, AfterClose, Base, PayeeRole, Rule


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
    returned: int
    earned_minor: int
    distributable_minor: int
    reversed_minor: int
    parts: tuple[PayeePart, ...]


@dataclass(frozen=True, slots=True)
class MonthSales:
    """What an order's owner sold in a closed month: as it was closed, and with what became known later."""

    sales_minor: int
    latest_minor: int

    def for_rule(self, rule: Rule) -> int:
        """The sales that decide a rule's tier."""
        late = rule.tiers is not None and rule.tiers.after_close is AfterClose.RERATE
        return self.latest_minor if late else self.sales_minor


@dataclass(frozen=True, slots=True)
class Filled:
    """Who fills which role on a sale, and the pool of the store that sold."""

    roles: Mapping[PayeeRole, str]
    store_pool: str

    def payee(self, role: PayeeRole, absent: Absent) -> str:
        """Who gets a role's share; empty: nobody, the brand keeps it."""
        if role in self.roles:
            return self.roles[role]
        if absent is Absent.OWNER:
            return self.roles.get(PayeeRole.OWNER, "")
        return self.store_pool if absent is Absent.STORE_POOL else ""


class Totals:
    """Running totals of an order: what was paid and given back, before it is spread over lines."""

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.subsidy: Counter[str] = Counter()
        self.line_refunds: Counter[str] = Counter()
        self.returned: Counter[str] = Counter()
        self.goodwill = 0
        self.closed = False
        self.details: dict[str, Line] = {}
        self.paid_in: dict[str, Counter[date]] = {}
        self.sales: dict[date, MonthSales] = {}

    def add(self, event: Event, month: date) -> None:
        """Counts what an event paid or gave back. `month`: the business month that it happened in."""
        for line in event.lines if event.kind is Kind.PAID else ():
            self.paid[line.line_id] += line.paid_minor
            self.paid_in.setdefault(line.line_id, Counter())[month] += line.paid_minor
            self.subsidy[line.line_id] += line.subsidy_minor
            self.details.setdefault(line.line_id, line)
        if event.kind is Kind.REFUNDED:
            for refund in event.refund_lines:
                self.line_refunds[refund.line_id] += refund.refunded_minor
                self.returned[refund.line_id] += refund.quantity
            self.goodwill += event.goodwill_minor
        self.closed = self.closed or event.kind is Kind.CLOSED

    def refunded(self) -> tuple[dict[str, int], int]:
        """Refunded per line, at most what was paid for it; and what was refunded beyond all payment.

        Refunds of lines first, each cut at what its line was paid; then those of the whole order, spread
        over the lines by what remains. A closed order counts as refunded whole.
        """
        by_line = dict.fromkeys(self.paid, 0)
        for line, asked in self.line_refunds.items():
            if line in by_line:
                by_line[line] = min(asked, self.paid[line])
        excess = sum(self.line_refunds.values()) - sum(by_line.values())
        if self.goodwill:
            remaining = {line: paid - by_line[line] for line, paid in self.paid.items()}
            spread = min(self.goodwill, sum(remaining.values()))
            excess += self.goodwill - spread
            for line, amount in (apportion(spread, remaining) if spread else {}).items():
                by_line[line] += amount
        return (dict(self.paid) if self.closed else by_line), excess

    def books(self, line: Line, refunded_minor: int, rule: Rule | None, filled: Filled) -> LineBooks:
        """What one line came to, given what of it was refunded."""
        line_id = line.line_id
        paid = self.paid[line_id]
        returned = min(self.returned[line_id], line.quantity)
        if paid and refunded_minor == paid:
            returned = line.quantity
        if rule is None:
            return LineBooks(line_id, None, paid, refunded_minor, returned, 0, 0, 0, ())
        rated = {month: paid for month, paid in self.paid_in[line_id].items() if month in self.sales}
        earned = (
            self._tiered_minor(rule, paid, rated)
            if rule.tiers and rated
            else earned_minor(rule, paid, self.subsidy[line_id], line.quantity)
        )
        shares, roles = _shares(rule, filled)
        distributable = round_half_up(earned * sum(shares.values()), BASIS_POINTS)
        back = (
            round_half_up(distributable * returned, line.quantity)
            if rule.per_unit_minor
            else round_half_up(distributable * refunded_minor, paid)
            if paid
            else 0
        )
        split, taken = apportion(distributable, shares), apportion(back, shares)
        parts = tuple(
            PayeePart(payee, roles[payee], share, split[payee], taken[payee])
            for payee, share in sorted(shares.items())
        )
        return LineBooks(line_id, rule, paid, refunded_minor, returned, earned, distributable, back, parts)

    def _tiered_minor(self, rule: Rule, paid_minor: int, rated: Mapping[date, int]) -> int:
        """What a line earns when months of it have closed: each at its rate, the rest at the rule's."""
        if rule.tiers is None or not paid_minor:
            return 0
        open_minor, earned = paid_minor, 0
        for month, paid in rated.items():
            if sales := self.sales[month].for_rule(rule):
                total = rule.tiers.total(sales, rule.rate_bp)
                earned += round_half_up(paid * total, sales * BASIS_POINTS)
                open_minor -= paid
        earned += round_half_up(open_minor * rule.rate_bp, BASIS_POINTS)
        return _within(rule, earned)


def earned_minor(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    """What a line earns by its rule, before refunds. A line that was paid nothing earns nothing."""
    if not paid_minor:
        return 0
    if rule.per_unit_minor:
        earned = rule.per_unit_minor * quantity
    else:
        base = paid_minor + (subsidy_minor if rule.base is Base.PAID_PLUS_SUBSIDY else 0)
        earned = round_half_up(base * rule.rate_bp, BASIS_POINTS)
    return _within(rule, earned)


def _within(rule: Rule, earned: int) -> int:
    earned = max(earned, rule.floor_minor)
    return earned if rule.cap_minor is None else min(earned, rule.cap_minor)


def _shares(rule: Rule, filled: Filled) -> tuple[dict[str, int], dict[str, tuple[PayeeRole, ...]]]:
    """Each payee's shares together, and the roles that they are for."""
    shares: Counter[str] = Counter()
    roles: dict[str, tuple[PayeeRole, ...]] = {}
    for share in rule.shares:
        if payee := filled.payee(share.role, share.absent):
            shares[payee] += share.share_bp
            roles[payee] = (*roles.get(payee, ()), share.role)
    return shares, roles
