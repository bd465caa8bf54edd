"""What orders would have earned by another plan: differences per payee and per store, order by order.

Amounts are net of refunds and whether held or payable: when something is payable is no difference.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from zoneinfo import ZoneInfo

from svc_commission.rules.attribution import Attribution, store_bearer
from svc_commission.rules.event import Event, Kind
from svc_commission.rules.line import MonthSales
from svc_commission.rules.month import month_of
from svc_commission.rules.order import Account, Books, Circumstances

_STORE = store_bearer("")


class OwnerSales:
    """What owners sold in each month: as it was closed, or as the orders that are replayed come to."""

    def __init__(self) -> None:
        self._replayed: Counter[tuple[str, date]] = Counter()
        self._closed: dict[tuple[str, date], MonthSales] = {}

    def add(self, owner: str, sold: Mapping[date, int], closed: Mapping[date, MonthSales]) -> None:
        """Counts an order: what was sold by it, and what its owner's months were closed with."""
        for month, amount in sold.items():
            self._replayed[owner, month] += amount
        for month, sales in closed.items():
            self._closed[owner, month] = sales

    def around(self, frozen: Attribution, events: Iterable[Event], recorded: Circumstances) -> Circumstances:
        """An order's circumstances, were every month closed that it was paid in."""
        zone, owner = ZoneInfo(frozen.time_zone), frozen.owner
        paid_in = {month_of(event.happened_time, zone) for event in events if event.kind is Kind.PAID}
        sales = {month: self._of(owner, month) for month in paid_in}
        return replace(recorded, sales={**sales, **recorded.sales})

    def _of(self, owner: str, month: date) -> MonthSales:
        replayed = self._replayed[owner, month]
        return self._closed.get((owner, month), MonthSales(replayed, replayed))


@dataclass(slots=True)
class Payee:
    """What a payee earned, and would have earned. `orders`: of how many another amount."""

    current_minor: int = 0
    draft_minor: int = 0
    orders: int = 0

    @property
    def difference_minor(self) -> int:
        """By the draft less by the other."""
        return self.draft_minor - self.current_minor


@dataclass(slots=True)
class Store:
    """What a store sold, what commission on that cost, and what it bore of commission on any store's sales.

    `orders`: on how many of its own sales commission would have cost another amount, or others.
    """

    sold_minor: int = 0
    current_minor: int = 0
    draft_minor: int = 0
    borne_current_minor: int = 0
    borne_draft_minor: int = 0
    orders: int = 0

    @property
    def difference_minor(self) -> int:
        """By the draft less by the other, on its sales."""
        return self.draft_minor - self.current_minor

    @property
    def borne_difference_minor(self) -> int:
        """By the draft less by the other, of what it bears."""
        return self.borne_draft_minor - self.borne_current_minor


@dataclass(slots=True)
class Simulation:
    """The differences as they grow, order by order. `stores` by id."""

    payees: dict[str, Payee] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    brand: Store = field(default_factory=Store)
    """All sales together; it bears what no store bears."""
    orders: int = 0

    def add(self, selling_store_id: str, current: Books, draft: Books) -> None:
        """Counts an order, computed by the plan that decided it and by the draft."""
        earned, would_earn = _earned(current), _earned(draft)
        borne, would_bear = _borne(current), _borne(draft)
        differs = earned != would_earn or borne != would_bear
        for payee in earned.keys() | would_earn.keys():
            row = self.payees.setdefault(payee, Payee())
            row.current_minor += earned[payee]
            row.draft_minor += would_earn[payee]
            row.orders += earned[payee] != would_earn[payee]
        sold = sum(line.paid_minor - line.refunded_minor for line in current.lines)
        for store in (self._store(selling_store_id), self.brand):
            store.sold_minor += sold
            store.current_minor += borne.total()
            store.draft_minor += would_bear.total()
            store.orders += differs
        for bearer in borne.keys() | would_bear.keys():
            store = self._store(bearer.removeprefix(_STORE)) if bearer else self.brand
            store.borne_current_minor += borne[bearer]
            store.borne_draft_minor += would_bear[bearer]
        self.orders += 1

    def differing_payees(self, most: int) -> tuple[list[tuple[str, Payee]], int]:
        """Up to `most` payees who would earn otherwise, the most affected first; and how many there are."""
        differing = [(payee, row) for payee, row in self.payees.items() if row.orders]
        ranked = heapq.nsmallest(most, differing, key=lambda one: (-abs(one[1].difference_minor), one[0]))
        return ranked, len(differing)

    def differing_stores(self, most: int) -> tuple[list[tuple[str, Store]], int]:
        """The same of stores: by what commission on their sales costs, then by what they bear."""
        differing = [
            (store_id, row)
            for store_id, row in self.stores.items()
            if row.orders or row.borne_difference_minor
        ]
        ranked = heapq.nsmallest(
            most,
            differing,
            key=lambda one: (-abs(one[1].difference_minor), -abs(one[1].borne_difference_minor), one[0]),
        )
        return ranked, len(differing)

    def _store(self, store_id: str) -> Store:
        return self.stores.setdefault(store_id, Store())


def _earned(books: Books) -> Counter[str]:
    """What each payee is owed, held or payable."""
    earned: Counter[str] = Counter()
    for target, amount in books.targets.items():
        if target.account is not Account.EXPENSE:
            earned[target.payee] -= amount
    return Counter({payee: amount for payee, amount in earned.items() if amount})


def _borne(books: Books) -> Counter[str]:
    """What each bearer spends."""
    borne: Counter[str] = Counter()
    for target, amount in books.targets.items():
        if target.account is Account.EXPENSE:
            borne[target.payee] += amount
    return Counter({bearer: amount for bearer, amount in borne.items() if amount})
