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
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from svc_commission.rules import hold
from svc_commission.rules.attribution import Attribution, pool_payee, store_bearer
from svc_commission.rules.event import MONEY, Event, sorted_events
from svc_commission.rules.line import Filled, LineBooks, Totals
from svc_commission.rules.plan import CostBearer, Plan, Rule, Sale


class Account(enum.StrEnum):
    """An account of the ledger."""

    EXPENSE = "EXPENSE"
    HELD = "HELD"
    PAYABLE = "PAYABLE"


class Target(NamedTuple):
    """What an amount is for. `month` is the first day of a month of the brand's calendar.

    `payee`: who is owed; of EXPENSE who bears it, empty: the brand.
    """

    line_id: str
    account: Account
    payee: str
    month: date


@dataclass(frozen=True, slots=True)
class SalesCredit:
    """The sale counted for one store on one business day; negative for refunds."""

    store_id: str
    date: date
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the events of an order come to.

    `confirm_time`: when what is held becomes payable; None: not known yet, or nothing is held on the
    channel. `confirms_later`: it was not looked yet whether that time has come. `stuck_time`: from when on
    a person should look, as something is held and nothing tells how long; None: never.
    """

    targets: Mapping[Target, int]
    lines: tuple[LineBooks, ...]
    sales_credits: tuple[SalesCredit, ...]
    refund_excess_minor: int
    confirm_time: datetime | None
    confirms_later: bool
    stuck_time: datetime | None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else an order's books depend on, each a recorded fact.

    `first_purchase`: whether it is the member's first. `confirmed_through`: up to when it was looked
    whether what it earned is to be confirmed; None: not yet.
    """

    first_purchase: bool = False
    confirmed_through: datetime | None = None


NO_CIRCUMSTANCES: Final = Circumstances()


class _Ledger:
    """The targets as they grow, event by event."""

    def __init__(self, attribution: Attribution, zone: ZoneInfo, *, held: bool) -> None:
        self.targets: Counter[Target] = Counter()
        self._attribution = attribution
        self._zone = zone
        self._account = Account.HELD if held else Account.PAYABLE
        self._owed: dict[tuple[str, str], int] = {}

    def book(self, lines: Sequence[LineBooks], time: datetime) -> None:
        """Books into the month of a time by how much each payee's part of each line has changed."""
        month = self._month(time)
        for line in lines:
            if line.rule is None:
                continue
            bearer = self._bearer(line.rule)
            for part in line.parts:
                key = line.line_id, part.payee
                owed = part.earned_minor - part.reversed_minor
                difference = owed - self._owed.get(key, 0)
                self._owed[key] = owed
                if difference:
                    self.targets[Target(line.line_id, self._account, part.payee, month)] -= difference
                    self.targets[Target(line.line_id, Account.EXPENSE, bearer, month)] += difference

    def confirm(self, time: datetime) -> None:
        """Makes what is held payable, and from now on all that is added to it."""
        self._account = Account.PAYABLE
        month = self._month(time)
        for (line_id, payee), owed in self._owed.items():
            self.targets[Target(line_id, Account.HELD, payee, month)] += owed
            self.targets[Target(line_id, Account.PAYABLE, payee, month)] -= owed

    def owes(self) -> bool:
        """Whether anything is owed to anybody, held or not."""
        return any(self._owed.values())

    def _month(self, time: datetime) -> date:
        return time.astimezone(self._zone).date().replace(day=1)

    def _bearer(self, rule: Rule) -> str:
        if rule.cost_bearer is CostBearer.BRAND:
            return ""
        recruiting = rule.cost_bearer is CostBearer.RECRUITING_STORE
        attribution = self._attribution
        store_id = attribution.owner_store_id if recruiting else attribution.selling_store_id
        return store_bearer(store_id or attribution.selling_store_id)


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
    filled = Filled(attribution.payees(), pool_payee(attribution.selling_store_id))
    sale = _sale(channel, attribution, around)
    held = plan.holds.get(channel) if plan else None
    ready = hold.confirm_time(known, held) if held else None
    looked = around.confirmed_through
    confirms = ready if ready and looked and ready <= looked else None
    confirms_later = ready is not None and confirms is None
    ledger = _Ledger(attribution, zone, held=held is not None)
    totals = Totals()
    rules: dict[str, Rule | None] = {}
    lines: dict[str, LineBooks] = {}
    credited: Counter[tuple[str, date]] = Counter()
    net_before = excess = 0
    for event in sorted_events(event for event in known if event.kind in MONEY):
        if confirms is not None and confirms < event.happened_time:
            ledger.confirm(confirms)
            confirms = None
        totals.add(event)
        refunded, excess = totals.refunded()
        for line in event.lines:
            if line.line_id not in rules:
                rules[line.line_id] = plan.rule_for(sale, line.category_id, line.sku_id) if plan else None
        named = {line.line_id for line in event.lines} | {back.line_id for back in event.refund_lines}
        # Most events touch few lines; to compute all of them at every event would take a large order's
        # events times its lines, and hold up every other call meanwhile.
        changed = [
            totals.books(line, refunded[line_id], rules[line_id], filled)
            for line_id, line in totals.details.items()
            if line_id in named or lines[line_id].refunded_minor != refunded[line_id]
        ]
        lines.update((line.line_id, line) for line in changed)
        ledger.book(changed, event.happened_time)
        net = sum(totals.paid.values()) - sum(refunded.values())
        day = event.happened_time.astimezone(zone).date()
        for store_id in attribution.credited_stores():
            credited[store_id, day] += net - net_before
        net_before = net
    if confirms is not None:
        ledger.confirm(confirms)
    return Books(
        targets={target: amount for target, amount in ledger.targets.items() if amount},
        lines=tuple(line for _, line in sorted(lines.items())),
        sales_credits=_sales_credits(credited),
        refund_excess_minor=excess,
        confirm_time=ready,
        confirms_later=confirms_later,
        stuck_time=hold.stuck_time(known, held) if held and ledger.owes() else None,
    )


def _sale(channel: str, attribution: Attribution, around: Circumstances) -> Sale:
    return Sale(
        channel=channel,
        store_id=attribution.selling_store_id,
        member_tier=attribution.member_tier,
        campaign_id=attribution.campaign_id,
        first_purchase=around.first_purchase,
    )


def _sales_credits(credited: Mapping[tuple[str, date], int]) -> tuple[SalesCredit, ...]:
    by_day = sorted(credited.items(), key=lambda item: (item[0][1], item[0][0]))
    return tuple(SalesCredit(store_id, day, amount) for (store_id, day), amount in by_day if amount)


def differences(targets: Mapping[Target, int], posted: Mapping[Target, int]) -> dict[Target, int]:
    """What is still to be posted: target minus posted, where that is not zero."""
    keys = targets.keys() | posted.keys()
    found = {key: targets.get(key, 0) - posted.get(key, 0) for key in keys}
    return {key: found[key] for key in sorted(found) if found[key]}
