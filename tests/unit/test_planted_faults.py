"""Mistakes that others have made in this arithmetic, planted one by one: the laws must find each.

A law that no fault breaks protects nobody. Each fault replaces one function of the rules; the search is the
same on every run, so that a fault which is found once is found always.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, tzinfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from svc_commission.rules import order
from svc_commission.rules.apportion import apportion, round_half_up
from svc_commission.rules.attribution import Attribution
from svc_commission.rules.order import Event, Kind
from tests.strategies import History, arrivals, paid_histories
from tests.unit import order_laws as laws

Arrival = tuple[History, list[list[Event]]]

HISTORIES = 400


@pytest.fixture(scope="module")
def fixed_arrivals() -> list[Arrival]:
    """The same histories on every run."""
    found: list[Arrival] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=HISTORIES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), paid_histories())
    def collect(data: st.DataObject, history: History) -> None:
        found.append((history, data.draw(arrivals(history.events))))

    collect()
    return found


def broken_law(fixed_arrivals: list[Arrival]) -> str | None:
    """The first law for which there is a counterexample among the histories."""
    for history, arriving in fixed_arrivals:
        for law in laws.LAWS:
            try:
                law(history)
            except AssertionError:
                return law.__name__
        try:
            laws.any_arrival_gives_the_same_books(history, arriving)
        except AssertionError:
            return laws.any_arrival_gives_the_same_books.__name__
    return None


def _floor(numerator: int, denominator: int) -> int:
    return numerator // denominator


def _half_to_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def _up(numerator: int, denominator: int) -> int:
    return math.ceil(numerator / denominator) if denominator else 0


def _largest_remainder(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    whole = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    parts = {key: total * weight // whole for key, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda key: (-(total * weights[key] % whole), key))
    for key in by_remainder[: total - sum(parts.values())]:
        parts[key] += 1
    return parts


def _each_rounded(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    whole = sum(weights.values()) or 1
    return {key: round_half_up(total * weight, whole) for key, weight in weights.items()}


def _last_refund_alone(self: order._Totals, event: Event) -> None:
    for line in event.lines if event.kind is Kind.PAID else ():
        self.paid[line.line_id] += line.paid_minor
        self.details.setdefault(line.line_id, line)
    if event.kind is Kind.REFUNDED:
        self.line_refunds = Counter({one.line_id: one.refunded_minor for one in event.refund_lines})
        self.goodwill = event.goodwill_minor
    self.closed = self.closed or event.kind is Kind.CLOSED


def _closing_ignored(self: order._Totals, event: Event) -> None:
    add(self, event)
    self.closed = False


def _prices_of_placing_counted(self: order._Totals, event: Event) -> None:
    add(self, event)
    if event.kind is Kind.PAID:
        self.paid.update({line.line_id: 1 for line in event.lines})


def _goodwill_before_lines(self: order._Totals) -> tuple[dict[str, int], int]:
    spread = min(self.goodwill, sum(self.paid.values()))
    by_line = apportion(spread, self.paid) if spread else dict.fromkeys(self.paid, 0)
    excess = self.goodwill - spread
    for line, amount in self.line_refunds.items():
        room = min(amount, self.paid.get(line, 0) - by_line.get(line, 0))
        by_line[line] = by_line.get(line, 0) + room
        excess += amount - room
    by_line = {line: by_line[line] for line in self.paid}
    return (dict(self.paid) if self.closed else by_line), excess


def _not_cut_at_what_was_paid(self: order._Totals) -> tuple[dict[str, int], int]:
    return {line: min(self.line_refunds[line], 2 * paid) for line, paid in self.paid.items()}, 0


def _goodwill_forgotten(self: order._Totals) -> tuple[dict[str, int], int]:
    return {line: min(self.line_refunds[line], paid) for line, paid in self.paid.items()}, 0


def _as_they_arrive(events: Iterable[Event]) -> list[Event]:
    return list(events)


def _credited_by_name(self: Attribution) -> list[str]:
    named = (self.selling_store_id, self.owner_store_id, self.flagship_store_id)
    return [store_id for store_id in named if store_id]


def _utc(_name: str) -> tzinfo:
    return UTC


def _posted_whole(targets: Mapping[order.Target, int], _posted: object) -> dict[order.Target, int]:
    return dict(targets)


def _first_month_only(targets: Mapping[order.Target, int], posted: Mapping[order.Target, int]) -> object:
    return {target: amount for target, amount in targets.items() if target not in posted}


add: Callable[[order._Totals, Event], None] = order._Totals.add

FAULTS: dict[str, tuple[object, str, object]] = {
    "fractions of a fen cut off": (order, "round_half_up", _floor),
    "halves rounded to even": (order, "round_half_up", _half_to_even),
    "fractions of a fen rounded up": (order, "round_half_up", _up),
    "shared out by the largest remainder": (order, "apportion", _largest_remainder),
    "every part rounded by itself": (order, "apportion", _each_rounded),
    "refund computed from the last refund": (order._Totals, "add", _last_refund_alone),
    "cancellation ignored": (order._Totals, "add", _closing_ignored),
    "a fen too much counted as paid": (order._Totals, "add", _prices_of_placing_counted),
    "goodwill spread before refunds of lines": (order._Totals, "refunded", _goodwill_before_lines),
    "refunds not cut at the payment": (order._Totals, "refunded", _not_cut_at_what_was_paid),
    "goodwill forgotten": (order._Totals, "refunded", _goodwill_forgotten),
    "events taken as they arrive": (order, "sorted_events", _as_they_arrive),
    "a store named twice credited twice": (Attribution, "credited_stores", _credited_by_name),
    "months counted in UTC": (order, "ZoneInfo", _utc),
    "targets posted again and again": (order, "differences", _posted_whole),
    "changed targets not corrected": (order, "differences", _first_month_only),
}


def test_the_laws_hold_where_no_fault_is_planted(fixed_arrivals: list[Arrival]) -> None:
    """Else what follows would show nothing."""
    assert broken_law(fixed_arrivals) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, fixed_arrivals: list[Arrival], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes this mistake while changing the rules hears of it."""
    owner, name, faulty = FAULTS[fault]
    monkeypatch.setattr(owner, name, faulty)
    assert broken_law(fixed_arrivals), f"no law noticed: {fault}"
