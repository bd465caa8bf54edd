"""Generators shared by tests: weights, plans, attributions, and the histories of orders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from hypothesis import strategies as st

from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.order import Event, Kind, Line, RefundLine
from svc_commission.rules.plan import BASIS_POINTS, Match, PayeeRole, Plan, Rule

MILLISECOND: Final = timedelta(milliseconds=1)
CATEGORIES: Final = {"A": "shoes", "B": "hats", "C": "", "D": "shoes"}
"""The category of each line that a history may have."""
NEVER_PAID: Final = "Z"
"""A line that refunds may name and no payment does."""

# When months begin in the two zones that histories use, written out by hand: Shanghai is eight hours before
# UTC all year; New York five, and four from 2026-03-08 to 2026-11-01.
MONTH_STARTS: Final[dict[str, list[datetime]]] = {
    "Asia/Shanghai": [
        datetime(2026, 2, 28, 16, tzinfo=UTC),
        datetime(2026, 3, 31, 16, tzinfo=UTC),
        datetime(2026, 4, 30, 16, tzinfo=UTC),
    ],
    "America/New_York": [
        datetime(2026, 3, 1, 5, tzinfo=UTC),
        datetime(2026, 4, 1, 4, tzinfo=UTC),
        datetime(2026, 12, 1, 5, tzinfo=UTC),
    ],
}


@dataclass(frozen=True)
class History:
    """All that happened to one order, and whose sale it is."""

    events: tuple[Event, ...]
    channel: str
    attribution: Attribution
    plan: Plan | None

    def of(self, events: Sequence[Event]) -> History:
        """The same order, had only these events happened."""
        return dataclasses.replace(self, events=tuple(events))

    @property
    def refunds(self) -> list[Event]:
        """What was paid back."""
        return [event for event in self.events if event.kind is Kind.REFUNDED]

    @property
    def closed(self) -> bool:
        """Whether the order was cancelled."""
        return any(event.kind is Kind.CLOSED for event in self.events)


def weights(most: int = 12_000) -> st.SearchStrategy[dict[str, int]]:
    """Weights of up to six keys, at least one of them above zero."""
    amounts = st.one_of(st.integers(0, 6), st.integers(0, most), st.sampled_from([1000, 2500, 10_000]))
    return st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=1).filter(
        lambda w: sum(w.values()) > 0
    )


@cache
def times(zone: str) -> st.SearchStrategy[datetime]:
    """Moments near the beginnings of business months, and the beginnings themselves to the millisecond."""
    # Hours between UTC's midnight and the zone's are where a wrong month shows.
    offsets = [-MILLISECOND, MILLISECOND, *(timedelta(hours=hours) for hours in range(-36, 37))]
    return st.sampled_from([start + offset for start in MONTH_STARTS[zone] for offset in offsets])


_MATCHES: Final = st.sampled_from(
    [
        Match(),
        Match(category_ids=frozenset({"shoes"})),
        Match(category_ids=frozenset({"hats"})),
        Match(sku_ids=frozenset({"sku-A", "sku-C"})),
        Match(channels=frozenset({"TMALL"})),
    ]
)
_RATES: Final = st.one_of(st.sampled_from([0, 300, 1000, BASIS_POINTS]), st.integers(0, BASIS_POINTS))
_SHARES: Final = st.one_of(st.just(BASIS_POINTS), st.integers(1, BASIS_POINTS))
# A few fen, where rounding decides; prices; and the most that a contract accepts.
_AMOUNTS: Final = st.one_of(
    st.sampled_from([*range(13), 17, 99, 1000, 2500, 10_000, 99_999, 10**12]), st.integers(0, 10**6)
)
_ABSENT_OR_AMOUNT: Final = st.one_of(st.none(), _AMOUNTS)
_NO_OR_AMOUNT: Final = st.one_of(st.just(0), _AMOUNTS)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of one to three rules that tell lines apart by category, article or channel."""
    return Plan(
        plan_id="plan",
        effective_from_time=datetime(2026, 1, 1, tzinfo=UTC),
        effective_to_time=None,
        rules=tuple(
            Rule(f"rule-{number}", draw(_MATCHES), draw(_RATES), ((PayeeRole.OWNER, draw(_SHARES)),))
            for number in range(draw(st.integers(1, 3)))
        ),
    )


@cache
def attributions(zone: str) -> st.SearchStrategy[Attribution]:
    """Sales of a guide or of a pool; the stores they are credited to may be one, two or three."""
    stores = ["east", "west", "flagship"]
    begin = datetime(2026, 2, 1, tzinfo=UTC)
    return st.sampled_from(
        [
            Attribution(
                member_id="member",
                binding_id="member.1",
                owner=owner,
                owner_basis=OwnerBasis.BINDING,
                selling_store_id=selling,
                owner_store_id=owners,
                flagship_store_id=flagship,
                as_of_time=begin,
                known_at_time=begin,
                plan_id="plan",
                time_zone=zone,
            )
            for owner in ("guide:ann", "pool:east")
            for selling in stores
            for owners in ("", *stores)
            for flagship in ("", "flagship")
        ]
    )


@st.composite
def _payment(draw: st.DrawFn, number: int, lines: Sequence[str], zone: str) -> Event:
    paid = {line_id: draw(_ABSENT_OR_AMOUNT) for line_id in lines}
    return Event(
        f"PAID:{number}",
        Kind.PAID,
        draw(times(zone)),
        lines=tuple(
            Line(line_id, f"sku-{line_id}", CATEGORIES[line_id], 1, amount, amount)
            for line_id, amount in paid.items()
            if amount is not None
        ),
    )


@st.composite
def _refund(draw: st.DrawFn, number: int, lines: Sequence[str], zone: str) -> Event:
    by_line = {line_id: draw(_ABSENT_OR_AMOUNT) for line_id in [*lines, NEVER_PAID]}
    return Event(
        f"REFUND:{number}",
        Kind.REFUNDED,
        draw(times(zone)),
        refund_lines=tuple(
            RefundLine(line_id, amount, 1) for line_id, amount in by_line.items() if amount is not None
        ),
        goodwill_minor=draw(_NO_OR_AMOUNT),
    )


_LINES: Final = st.sampled_from(["A", "AB", "ABC", "ABCD", "BD"])
_OTHER_KINDS: Final = st.sets(st.sampled_from([Kind.PLACED, Kind.SHIPPED, Kind.RECEIVED]))


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Orders with any payments, refunds, goodwill and cancellation, in no order, around month borders.

    Refunds may be dated before the payment, exceed it, or name a line that nobody paid.
    """
    zone = draw(st.sampled_from(sorted(MONTH_STARTS)))
    lines = draw(_LINES)
    events = [draw(_payment(number, lines, zone)) for number in range(draw(st.integers(0, 2)))]
    events += [draw(_refund(number, lines, zone)) for number in range(draw(st.integers(0, 4)))]
    events += [Event(kind.value, kind, draw(times(zone))) for kind in sorted(draw(_OTHER_KINDS))]
    if draw(st.integers(0, 3)) == 0:
        events.append(Event("CLOSED", Kind.CLOSED, draw(times(zone))))
    return History(
        events=tuple(events),
        channel=draw(st.sampled_from(["TMALL", "POS"])),
        attribution=draw(attributions(zone)),
        plan=draw(st.one_of(plans(), st.none())),
    )


@st.composite
def paid_histories(draw: st.DrawFn) -> History:
    """Histories in which something was paid under a plan, so that something can be owed."""
    history = draw(histories())
    payment = draw(_payment(9, "ABCD", history.attribution.time_zone))
    return dataclasses.replace(history, events=(payment, *history.events), plan=history.plan or draw(plans()))


@st.composite
def arrivals(draw: st.DrawFn, events: Sequence[Event]) -> list[list[Event]]:
    """The events as they may reach us: in any order, some again, in any grouping into calls."""
    again = draw(st.lists(st.sampled_from(events))) if events else []
    shuffled = draw(st.permutations([*events, *again]))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    return [list(shuffled[start:end]) for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
