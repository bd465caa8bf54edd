"""What happens to an order, as its channel reports it. Amounts are minor units of its currency."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final


class Kind(enum.StrEnum):
    """What happened; the order of the members ranks events of the same moment."""

    PLACED = "PLACED"
    PAID = "PAID"
    SHIPPED = "SHIPPED"
    RECEIVED = "RECEIVED"
    REFUNDED = "REFUNDED"
    CLOSED = "CLOSED"


_RANK: Final = {kind: rank for rank, kind in enumerate(Kind)}
MONEY: Final = frozenset({Kind.PAID, Kind.REFUNDED, Kind.CLOSED})
"""Kinds that change what is owed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a payment. `subsidy_minor`: what the platform paid for it beside the customer."""

    line_id: str
    sku_id: str
    category_id: str
    quantity: int
    list_minor: int
    paid_minor: int
    subsidy_minor: int = 0


@dataclass(frozen=True, slots=True)
class RefundLine:
    """What was paid back for one line, and how many pieces came back."""

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


def sorted_events(events: Iterable[Event]) -> list[Event]:
    """Events in the one order in which they count: by time, then kind, then id."""
    return sorted(events, key=lambda event: (event.happened_time, _RANK[event.kind], event.event_id))
