"""An order's books as a pure fold of the set of its events.

Whatever order, repetition or grouping the events arrive in, the same set gives the same targets: an amount
per (line, account, payee, business month). What is posted is target minus what was posted before. Amounts
are minor units; debits are positive, credited negative.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from svc_commission.rules import hold
from svc_commission.rules.attribution import Attribution, pool_payee, store_bearer
from svc_commission.rules.event import MONEY, Event, Line, sorted_events
from svc_commission.rules.line import Filled, LineBooks, MonthSales, Totals
from svc_commission.rules.month import month_end, month_of
from svc_commission.rules.plan import CostBearer, Plan, Rule, Sale
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.sales_credit import SalesCredits, Tally


class Account(enum.StrEnum):
    """An account of the ledger."""

    EXPENSE = "EXPENSE"
    HELD = "HELD"
    PAYABLE = "PAYABLE"
    PAID = "PAID"
    CLEARING = "CLEARING"


class Target(NamedTuple):
    """What an amount is for. `month` is the first day of a month of the brand's calendar.

    `payee`: who is owed; of EXPENSE who bears it, empty: the brand.
    """

    line_id: str
    account: Account
    payee: str
    month: date
    kind: PostingKind


@dataclass(frozen=True, slots=True)
class Books:
    """What the events of an order come to.

    `confirm_time`: when what is held becomes payable; None: not known yet, or nothing is held on the
    channel. `confirms_later`: it was not looked yet whether that time has come. `stuck_time`: from when on
    a person should look, as something is held and nothing tells how long; None: never. `owner_sales`: what
    was sold in each month and not refunded within it, which the owner's tier of the month is decided by.
    `tiered_months`: in which lines were paid that a rule with tiers decides.
    """

    targets: Mapping[Target, int]
    lines: tuple[LineBooks, ...]
    sales_credits: SalesCredits
    refund_excess_minor: int
    confirm_time: datetime | None
    confirms_later: bool
    stuck_time: datetime | None
    owner_sales: Mapping[date, int]
    tiered_months: frozenset[date]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else an order's books depend on, each a recorded fact.

    `first_purchase`: whether it is the member's first. `confirmed_through`: up to when it was looked
    whether what it earned is to be confirmed; None: not yet. `sales`: what its owner sold in the months that
    have been closed, as far as lines under tiers were paid in them.
    """

    first_purchase: bool = False
    confirmed_through: datetime | None = None
    sales: Mapping[date, MonthSales] = field(default_factory=dict)


NO_CIRCUMSTANCES: Final = Circumstances()


class _Ledger:
    """The targets as they grow, event by event."""

    def __init__(self, attribution: Attribution, zone: ZoneInfo, *, held: bool) -> None:
        self.targets: Counter[Target] = Counter()
        self._attribution = attribution
        self._zone = zone
        self._account = Account.HELD if held else Account.PAYABLE
        self._earned: Counter[tuple[str, str]] = Counter()
        self._reversed: Counter[tuple[str, str]] = Counter()

    def book(self, lines: Sequence[LineBooks], month: date) -> None:
        """Books into a month by how much each payee's part of each line has changed."""
        for line in lines:
            if line.rule is None:
                continue
            bearer = self._bearer(line.rule)
            for part in line.parts:
                key = line.line_id, part.payee
                earned = part.earned_minor - self._earned[key]
                back = part.reversed_minor - self._reversed[key]
                self._earned[key], self._reversed[key] = part.earned_minor, part.reversed_minor
                for kind, owed in ((PostingKind.EARNED, earned), (PostingKind.CLAWED_BACK, -back)):
                    if owed:
                        self.targets[Target(line.line_id, self._account, part.payee, month, kind)] -= owed
                        self.targets[Target(line.line_id, Account.EXPENSE, bearer, month, kind)] += owed

    def confirm(self, time: datetime) -> None:
        """Makes what is held payable, and from now on all that is added to it."""
        self._account = Account.PAYABLE
        month, kind = month_of(time, self._zone), PostingKind.CONFIRMED
        for (line_id, payee), earned in self._earned.items():
            owed = earned - self._reversed[line_id, payee]
            self.targets[Target(line_id, Account.HELD, payee, month, kind)] += owed
            self.targets[Target(line_id, Account.PAYABLE, payee, month, kind)] -= owed

    def owes(self) -> bool:
        """Whether anything is owed to anybody, held or not."""
        return self._earned != self._reversed

    def _bearer(self, rule: Rule) -> str:
        if rule.cost_bearer is CostBearer.BRAND:
            return ""
        recruiting = rule.cost_bearer is CostBearer.RECRUITING_STORE
        attribution = self._attribution
        store_id = attribution.owner_store_id if recruiting else attribution.selling_store_id
        return store_bearer(store_id or attribution.selling_store_id)


class _Fold:
    """The books as they grow, step by step in time: an event, or the end of a month that was closed."""

    def __init__(
        self, channel: str, attribution: Attribution, plan: Plan | None, around: Circumstances, zone: ZoneInfo
    ) -> None:
        self.ledger = _Ledger(attribution, zone, held=plan is not None and channel in plan.holds)
        self.totals = Totals()
        self.lines: dict[str, LineBooks] = {}
        self.tally = Tally()
        self.excess = 0
        self._back: Counter[tuple[str, date]] = Counter()
        self._rules: dict[str, Rule | None] = {}
        self._refunded: dict[str, int] = {}
        self._plan = plan
        self._sale = _sale(channel, attribution, around)
        self._filled = Filled(attribution.payees(), pool_payee(attribution.selling_store_id))
        self._zone = zone

    def happened(self, event: Event) -> None:
        """Books what an event changes."""
        day = event.happened_time.astimezone(self._zone).date()
        month = day.replace(day=1)
        self.totals.add(event, month)
        refunded, self.excess = self.totals.refunded()
        for line in event.lines:
            if line.line_id not in self._rules:
                self._rules[line.line_id] = self._rule_for(line)
        named = {line.line_id for line in event.lines} | {back.line_id for back in event.refund_lines}
        # Most events touch few lines; to compute all of them at every event would take a large order's
        # events times its lines, and hold up every other call meanwhile.
        changed = [
            line_id
            for line_id in self.totals.details
            if line_id in named or self._refunded[line_id] != refunded[line_id]
        ]
        for line_id in changed:
            self._back[line_id, month] += refunded[line_id] - self._refunded.get(line_id, 0)
        self._refunded = refunded
        self._book(changed, month)
        self.tally.happened(event, day, sum(self.totals.paid.values()), sum(refunded.values()))

    def month_closed(self, month: date, sales: MonthSales) -> None:
        """Books what tiers change, once it is known what the owner sold in the month."""
        self.totals.sales[month] = sales
        tiered = [line_id for line_id, paid in self.totals.paid_in.items() if month in paid]
        self._book([line_id for line_id in tiered if self._tiered(line_id)], month)

    def owner_sales(self) -> dict[date, int]:
        """What was sold in each month, less what of the same lines was refunded within it."""
        sales: Counter[date] = Counter()
        for line_id, by_month in self.totals.paid_in.items():
            for month, paid in by_month.items():
                sales[month] += max(0, paid - self._back[line_id, month])
        return {month: amount for month, amount in sorted(sales.items()) if amount}

    def tiered_months(self) -> frozenset[date]:
        """In which months lines under tiers were paid."""
        return frozenset(
            month
            for line_id, by_month in self.totals.paid_in.items()
            if self._tiered(line_id)
            for month in by_month
        )

    def _rule_for(self, line: Line) -> Rule | None:
        return self._plan.rule_for(self._sale, line.category_id, line.sku_id) if self._plan else None

    def _tiered(self, line_id: str) -> bool:
        rule = self._rules[line_id]
        return rule is not None and rule.tiers is not None

    def _book(self, line_ids: Sequence[str], month: date) -> None:
        books = [
            self.totals.books(
                self.totals.details[line_id], self._refunded[line_id], self._rules[line_id], self._filled
            )
            for line_id in line_ids
        ]
        self.lines.update((line.line_id, line) for line in books)
        self.ledger.book(books, month)


def fold(
    events: Iterable[Event],
    channel: str,
    attribution: Attribution,
    plan: Plan | None,
    around: Circumstances = NO_CIRCUMSTANCES,
) -> Books:
    """What the set of events comes to. `plan` is the attribution's; None: nothing is earned."""
    known = list(events)
    zone = ZoneInfo(attribution.time_zone)
    held = plan.holds.get(channel) if plan else None
    ready = hold.confirm_time(known, held) if held else None
    looked = around.confirmed_through
    confirms = ready if ready and looked and ready <= looked else None
    confirms_later = ready is not None and confirms is None
    folded = _Fold(channel, attribution, plan, around, zone)
    closed = deque((month_end(month, zone), month, sales) for month, sales in sorted(around.sales.items()))
    for event in [*sorted_events(event for event in known if event.kind in MONEY), None]:
        # A month ends before what happens from its end on; what was held until then is confirmed first.
        while closed and (event is None or closed[0][0] <= event.happened_time):
            end, month, sales = closed.popleft()
            if confirms is not None and confirms < end:
                folded.ledger.confirm(confirms)
                confirms = None
            folded.month_closed(month, sales)
        if confirms is not None and (event is None or confirms < event.happened_time):
            folded.ledger.confirm(confirms)
            confirms = None
        if event is not None:
            folded.happened(event)
    return Books(
        targets={target: amount for target, amount in folded.ledger.targets.items() if amount},
        lines=tuple(line for _, line in sorted(folded.lines.items())),
        sales_credits=folded.tally.credited(attribution),
        refund_excess_minor=folded.excess,
        confirm_time=ready,
        confirms_later=confirms_later,
        stuck_time=hold.stuck_time(known, held) if held and folded.ledger.owes() else None,
        owner_sales=folded.owner_sales(),
        tiered_months=folded.tiered_months(),
    )


def _sale(channel: str, attribution: Attribution, around: Circumstances) -> Sale:
    return Sale(
        channel=channel,
        store_id=attribution.selling_store_id,
        member_tier=attribution.member_tier,
        campaign_id=attribution.campaign_id,
        first_purchase=around.first_purchase,
    )


def differences(targets: Mapping[Target, int], posted: Mapping[Target, int]) -> dict[Target, int]:
    """What is still to be posted: target minus posted, where that is not zero."""
    keys = targets.keys() | posted.keys()
    found = {key: targets.get(key, 0) - posted.get(key, 0) for key in keys}
    return {key: found[key] for key in sorted(found) if found[key]}
