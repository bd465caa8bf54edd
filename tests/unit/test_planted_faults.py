"""Mistakes that others have made in this arithmetic, planted one by one: the laws must find each.

A law that no fault breaks protects nobody. Each fault replaces one function of the rules; the search is the
same on every run, so that a fault which is found once is found always.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from svc_commission.rules import attribution as attribution_rules
from svc_commission.rules import hold as holds
from svc_commission.rules import line as line_rules
from svc_commission.rules import order, sales_credit
from svc_commission.rules.apportion import apportion, round_half_up
from svc_commission.rules.attribution import Attribution, Guide, OpenedLink, StandingBinding, guide_of
from svc_commission.rules.event import Event, Kind, Line
from svc_commission.rules.line import Filled, LineBooks, Totals
from svc_commission.rules.order import Account
from svc_commission.rules.plan import (
    Absent,
    Base,
    CostBearer,
    Hold,
    Match,
    PayeeRole,
    Purchase,
    Rule,
    Sale,
    SelfPurchase,
)
from svc_commission.rules.sales_credit import Change, Role, SalesCredits, Subject, Tally
from tests.strategies import History, arrivals, held_histories, paid_histories
from tests.unit import order_laws as laws
from tests.unit import plan_laws, sale_laws

Arrival = tuple[History, list[list[Event]]]

HISTORIES = 600


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
    @given(st.data(), st.one_of(paid_histories(), held_histories()))
    def collect(data: st.DataObject, history: History) -> None:
        found.append((history, data.draw(arrivals(history.events))))

    collect()
    return found


def broken_law(fixed_arrivals: list[Arrival]) -> str | None:
    """The first law for which there is a counterexample among the sales and the histories."""
    for sale in sale_laws.SALES:
        for of_sale in sale_laws.LAWS:
            try:
                of_sale(sale)
            except AssertionError:
                return of_sale.__name__
    for history, arriving in fixed_arrivals:
        for law in (*laws.LAWS, *plan_laws.LAWS):
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


def _last_refund_alone(self: line_rules.Totals, event: Event, month: date) -> None:
    for one in event.lines if event.kind is Kind.PAID else ():
        self.paid[one.line_id] += one.paid_minor
        self.paid_in.setdefault(one.line_id, Counter())[month] += one.paid_minor
        self.details.setdefault(one.line_id, one)
    if event.kind is Kind.REFUNDED:
        self.line_refunds = Counter({one.line_id: one.refunded_minor for one in event.refund_lines})
        self.goodwill = event.goodwill_minor
    self.closed = self.closed or event.kind is Kind.CLOSED


def _closing_ignored(self: line_rules.Totals, event: Event, month: date) -> None:
    add(self, event, month)
    self.closed = False


def _prices_of_placing_counted(self: line_rules.Totals, event: Event, month: date) -> None:
    add(self, event, month)
    if event.kind is Kind.PAID:
        self.paid.update({one.line_id: 1 for one in event.lines})


def _goodwill_before_lines(self: line_rules.Totals) -> tuple[dict[str, int], int]:
    spread = min(self.goodwill, sum(self.paid.values()))
    by_line = apportion(spread, self.paid) if spread else dict.fromkeys(self.paid, 0)
    excess = self.goodwill - spread
    for line, amount in self.line_refunds.items():
        room = min(amount, self.paid.get(line, 0) - by_line.get(line, 0))
        by_line[line] = by_line.get(line, 0) + room
        excess += amount - room
    by_line = {line: by_line[line] for line in self.paid}
    return (dict(self.paid) if self.closed else by_line), excess


def _not_cut_at_what_was_paid(self: line_rules.Totals) -> tuple[dict[str, int], int]:
    return {line: min(self.line_refunds[line], 2 * paid) for line, paid in self.paid.items()}, 0


def _goodwill_forgotten(self: line_rules.Totals) -> tuple[dict[str, int], int]:
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


add: Callable[[line_rules.Totals, Event, date], None] = line_rules.Totals.add
books = line_rules.Totals.books
book = order._Ledger.book
confirm = order._Ledger.confirm


# ---- roles, caps, pieces ----------------------------------------------------------------------------

Shared = tuple[dict[str, int], dict[str, tuple[PayeeRole, ...]]]
shared: Callable[[Rule, Filled], Shared] = line_rules._shares


def _second_role_unpaid(rule: Rule, filled: Filled) -> Shared:
    _, roles = shared(rule, filled)
    by_role = {share.role: share.share_bp for share in rule.shares}
    return {payee: by_role[its[0]] for payee, its in roles.items()}, roles


def _absent_counted_twice_for_the_owner(rule: Rule, filled: Filled) -> Shared:
    shares, roles = shared(rule, filled)
    owner = filled.roles[PayeeRole.OWNER]
    for share in rule.shares:
        if share.absent is Absent.OWNER and share.role not in filled.roles:
            shares[owner] += share.share_bp
    return shares, roles


def _absent_shared_among_the_others(rule: Rule, filled: Filled) -> Shared:
    shares, roles = shared(rule, filled)
    if shares:
        shares[min(shares)] += sum(share.share_bp for share in rule.shares) - sum(shares.values())
    return shares, roles


def _absent_always_kept(self: Filled, role: PayeeRole, absent: Absent) -> str:
    return self.roles.get(role, "")


def _pool_of_the_owner(self: Filled, role: PayeeRole, absent: Absent) -> str:
    if role in self.roles or absent is not Absent.STORE_POOL:
        return payee(self, role, absent)
    owner = self.roles[PayeeRole.OWNER]
    return owner if owner.startswith("pool:") else self.store_pool


payee = Filled.payee
earned = line_rules.earned_minor


def _floor_of_nothing(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    return earned(rule, paid_minor, subsidy_minor, quantity) if paid_minor else rule.floor_minor


def _subsidy_forgotten(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    return earned(rule, paid_minor, 0, quantity)


def _subsidy_always(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    return earned(replace(rule, base=Base.PAID_PLUS_SUBSIDY), paid_minor, subsidy_minor, quantity)


def _uncapped(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    return earned(replace(rule, cap_minor=None), paid_minor, subsidy_minor, quantity)


def _one_piece(rule: Rule, paid_minor: int, subsidy_minor: int, quantity: int) -> int:
    return earned(rule, paid_minor, subsidy_minor, 1)


def _capped_after_refunds(
    self: Totals, line: Line, refunded_minor: int, rule: Rule | None, filled: Filled
) -> LineBooks:
    """What is left after refunds is capped, not what was earned."""
    found = books(self, line, refunded_minor, rule, filled)
    if rule is None or rule.cap_minor is None:
        return found
    free = books(self, line, refunded_minor, replace(rule, cap_minor=None), filled)
    kept = free.distributable_minor - free.reversed_minor
    back = max(found.distributable_minor - kept, 0)
    taken = apportion(back, {part.payee: part.share_bp for part in found.parts}) if found.parts else {}
    parts = tuple(replace(part, reversed_minor=taken[part.payee]) for part in found.parts)
    return replace(found, reversed_minor=back, parts=parts)


def _pieces_by_amount(
    self: Totals, line: Line, refunded_minor: int, rule: Rule | None, filled: Filled
) -> LineBooks:
    paid = self.paid[line.line_id]
    pieces = round_half_up(line.quantity * refunded_minor, paid) if paid else 0
    self.returned[line.line_id] = pieces
    return books(self, line, refunded_minor, rule, filled)


def _pieces_never_whole(
    self: Totals, line: Line, refunded_minor: int, rule: Rule | None, filled: Filled
) -> LineBooks:
    if rule is None or not rule.per_unit_minor or refunded_minor != self.paid[line.line_id]:
        return books(self, line, refunded_minor, rule, filled)
    return books(self, line, max(refunded_minor - 1, 0), rule, filled)


# ---- holds, bearers, purchases ----------------------------------------------------------------------


def _gross_confirmed(self: order._Ledger, time: datetime) -> None:
    """Makes payable what was held at first, whatever has been taken back since."""
    reversed_before, self._reversed = self._reversed, Counter()
    confirm(self, time)
    self._reversed = reversed_before


def _refunded_from_held_after(self: order._Ledger, time: datetime) -> None:
    confirm(self, time)
    self._account = Account.HELD


def _confirmed_in_utc(self: order._Ledger, time: datetime) -> None:
    zone, self._zone = self._zone, ZoneInfo("UTC")
    confirm(self, time)
    self._zone = zone


def _paid_out_twice(self: order._Ledger, time: datetime) -> None:
    confirm(self, time)
    confirm(self, time)


def _never_held(self: order._Ledger, lines: Sequence[LineBooks], month: date) -> None:
    self._account = Account.PAYABLE
    book(self, lines, month)


def _bearers_swapped(self: order._Ledger, rule: Rule) -> str:
    swapped = {
        CostBearer.SELLING_STORE: CostBearer.RECRUITING_STORE,
        CostBearer.RECRUITING_STORE: CostBearer.SELLING_STORE,
        CostBearer.BRAND: CostBearer.BRAND,
    }
    return bearer(self, replace(rule, cost_bearer=swapped[rule.cost_bearer]))


bearer = order._Ledger._bearer
confirm_time = holds.confirm_time


def _of_kinds(events: Iterable[Event], *kinds: Kind) -> list[Event]:
    return [event for event in events if event.kind in kinds]


def _later_of_both(events: Iterable[Event], hold: Hold) -> datetime | None:
    known = list(events)
    received = confirm_time(_of_kinds(known, Kind.PAID, Kind.RECEIVED), hold)
    sent = confirm_time(_of_kinds(known, Kind.PAID, Kind.SHIPPED), hold)
    return max(received, sent) if received and sent else received or sent


def _first_parcel_counts(events: Iterable[Event], hold: Hold) -> datetime | None:
    known = list(events)
    parcels = sorted(_of_kinds(known, Kind.SHIPPED), key=lambda event: event.happened_time)
    others = [event for event in known if event.kind is not Kind.SHIPPED]
    return confirm_time([*others, *parcels[:1]], hold)


def _dispatch_without_15_days(events: Iterable[Event], hold: Hold) -> datetime | None:
    known = [replace(event, kind=Kind.RECEIVED) if event.kind is Kind.SHIPPED else event for event in events]
    return confirm_time(known, hold)


def _always_from_payment(events: Iterable[Event], hold: Hold) -> datetime | None:
    return confirm_time(events, replace(hold, from_payment=True))


admits = Match.admits


def _first_is_repeat_too(self: Match, sale: Sale, category_id: str, sku_id: str) -> bool:
    asked = replace(self, purchase=Purchase.ANY) if self.purchase is Purchase.REPEAT else self
    return admits(asked, sale, category_id, sku_id)


def _strangers_have_every_tier(self: Match, sale: Sale, category_id: str, sku_id: str) -> bool:
    asked = self if sale.member_tier else replace(self, member_tiers=frozenset())
    return admits(asked, sale, category_id, sku_id)


# ---- for whom it is counted -------------------------------------------------------------------------


happened = Tally.happened


def _counted_at_every_payment(
    self: Tally, event: Event, day: date, paid_minor: int, refunded_minor: int
) -> None:
    self._counted = False
    happened(self, event, day, paid_minor, refunded_minor)


def _counted_when_anything_happens(
    self: Tally, event: Event, day: date, paid_minor: int, refunded_minor: int
) -> None:
    happened(self, replace(event, kind=Kind.PAID), day, paid_minor, refunded_minor)


def _all_on_the_first_day(self: Tally, event: Event, day: date, paid_minor: int, refunded_minor: int) -> None:
    happened(self, event, min([day, *self._days]), paid_minor, refunded_minor)


def _refunds_taken_off_what_was_sold(
    self: Tally, event: Event, day: date, paid_minor: int, refunded_minor: int
) -> None:
    happened(self, event, day, paid_minor - refunded_minor, 0)


def _owner_and_serving_apart(attribution: Attribution) -> frozenset[Subject]:
    serving = Subject(Role.SERVING, guide_of(attribution.serving))
    return subjects_of(replace(attribution, serving="")) | ({serving} if serving.subject_id else set())


def _pools_are_guides(attribution: Attribution) -> frozenset[Subject]:
    return subjects_of(replace(attribution, owner=attribution.owner.replace("pool:", "guide:")))


def _kept_by_whose_it_was(wanted: SalesCredits, told: SalesCredits) -> list[Change]:
    return changes(wanted, replace(told, subjects=wanted.subjects & told.subjects))


def _from_now_on_alone(wanted: SalesCredits, told: SalesCredits) -> list[Change]:
    return changes(wanted, replace(told, subjects=wanted.subjects) if told.days else told)


subjects_of = sales_credit.subjects_of
changes = sales_credit.changes


# ---- whose sale it is -------------------------------------------------------------------------------


def _opened_after_the_order_too(self: OpenedLink, placed_time: datetime, valid: timedelta) -> bool:
    return placed_time - self.open_time <= valid


def _opened_at_any_time_before(self: OpenedLink, placed_time: datetime, valid: timedelta) -> bool:
    return self.open_time <= placed_time


def _where_she_is_now(self: Guide, time: datetime) -> str:
    return self.postings[-1][1]


def _where_she_began(self: Guide, time: datetime) -> str:
    return self.postings[0][1]


without_buyer = attribution_rules.without_buyer
decided_anew = attribution_rules.decided_anew


def _paid_but_as_owner(
    whole: Attribution, guides: Mapping[str, Guide], self_purchase: SelfPurchase
) -> Attribution:
    found = without_buyer(whole, guides, self_purchase)
    withheld = dict(found.self_purchases)
    withheld.pop(PayeeRole.OWNER, None)
    return replace(found.filled_by(found.payees() | withheld), self_purchases={})


def _not_counted_for_her_store(
    whole: Attribution, guides: Mapping[str, Guide], self_purchase: SelfPurchase
) -> Attribution:
    found = without_buyer(whole, guides, self_purchase)
    return replace(found, owner_store_id="") if found.self_purchases else found


def _the_next_in_line_owns(
    whole: Attribution, guides: Mapping[str, Guide], self_purchase: SelfPurchase
) -> Attribution:
    found = without_buyer(whole, guides, self_purchase)
    return found if found.owner else replace(found, owner=found.serving)


def _never_paid(whole: Attribution, guides: Mapping[str, Guide], _plan: SelfPurchase) -> Attribution:
    return without_buyer(whole, guides, SelfPurchase.NOTHING)


def _once_withheld_for_ever(frozen: Attribution, bound: StandingBinding, known_at: datetime) -> Attribution:
    return decided_anew(replace(frozen, self_purchases={}), bound, known_at)


def _the_owner_stays(frozen: Attribution, bound: StandingBinding, known_at: datetime) -> Attribution:
    found = decided_anew(frozen, bound, known_at)
    return found if found.binding_id else replace(found, owner=frozen.owner, owner_basis=frozen.owner_basis)


FAULTS: dict[str, tuple[object, str, object]] = {
    "a guide paid for what she buys, but for owning it": (
        attribution_rules,
        "without_buyer",
        _paid_but_as_owner,
    ),
    "what a guide buys not counted for her store": (
        attribution_rules,
        "without_buyer",
        _not_counted_for_her_store,
    ),
    "what a guide buys owned by who served her": (
        attribution_rules,
        "without_buyer",
        _the_next_in_line_owns,
    ),
    "a plan that pays guides for what they buy ignored": (attribution_rules, "without_buyer", _never_paid),
    "roles once withheld, withheld for ever": (
        attribution_rules,
        "decided_anew",
        _once_withheld_for_ever,
    ),
    "an owner who stays without a binding": (attribution_rules, "decided_anew", _the_owner_stays),
    "fractions of a fen cut off": (line_rules, "round_half_up", _floor),
    "halves rounded to even": (line_rules, "round_half_up", _half_to_even),
    "fractions of a fen rounded up": (line_rules, "round_half_up", _up),
    "shared out by the largest remainder": (line_rules, "apportion", _largest_remainder),
    "every part rounded by itself": (line_rules, "apportion", _each_rounded),
    "refund computed from the last refund": (line_rules.Totals, "add", _last_refund_alone),
    "cancellation ignored": (line_rules.Totals, "add", _closing_ignored),
    "a fen too much counted as paid": (line_rules.Totals, "add", _prices_of_placing_counted),
    "goodwill spread before refunds of lines": (line_rules.Totals, "refunded", _goodwill_before_lines),
    "refunds not cut at the payment": (line_rules.Totals, "refunded", _not_cut_at_what_was_paid),
    "goodwill forgotten": (line_rules.Totals, "refunded", _goodwill_forgotten),
    "events taken as they arrive": (order, "sorted_events", _as_they_arrive),
    "a store named twice credited twice": (Attribution, "credited_stores", _credited_by_name),
    "months counted in UTC": (order, "ZoneInfo", _utc),
    "targets posted again and again": (order, "differences", _posted_whole),
    "changed targets not corrected": (order, "differences", _first_month_only),
    "one of two roles of one person unpaid": (line_rules, "_shares", _second_role_unpaid),
    "an absent role counted twice for the owner": (
        line_rules,
        "_shares",
        _absent_counted_twice_for_the_owner,
    ),
    "an absent role shared among the others": (line_rules, "_shares", _absent_shared_among_the_others),
    "absent roles always kept": (Filled, "payee", _absent_always_kept),
    "the owner's pool in the place of the seller's": (Filled, "payee", _pool_of_the_owner),
    "a floor for a line paid 0": (line_rules, "earned_minor", _floor_of_nothing),
    "the platform's part forgotten": (line_rules, "earned_minor", _subsidy_forgotten),
    "the platform's part always counted": (line_rules, "earned_minor", _subsidy_always),
    "caps ignored": (line_rules, "earned_minor", _uncapped),
    "every line of one piece": (line_rules, "earned_minor", _one_piece),
    "capped after refunds": (Totals, "books", _capped_after_refunds),
    "pieces taken back by amount": (Totals, "books", _pieces_by_amount),
    "pieces left when all is refunded": (Totals, "books", _pieces_never_whole),
    "the confirmation moves what was refunded": (order._Ledger, "confirm", _gross_confirmed),
    "refunds after the confirmation taken from what is held": (
        order._Ledger,
        "confirm",
        _refunded_from_held_after,
    ),
    "confirmed in UTC's month": (order._Ledger, "confirm", _confirmed_in_utc),
    "confirmed twice": (order._Ledger, "confirm", _paid_out_twice),
    "payable at once in spite of a hold": (order._Ledger, "book", _never_held),
    "bearers swapped": (order._Ledger, "_bearer", _bearers_swapped),
    "the later of both times": (holds, "confirm_time", _later_of_both),
    "the first parcel counts": (holds, "confirm_time", _first_parcel_counts),
    "dispatch taken for receipt": (holds, "confirm_time", _dispatch_without_15_days),
    "always counted from payment": (holds, "confirm_time", _always_from_payment),
    "a first purchase repeated": (Match, "admits", _first_is_repeat_too),
    "strangers of every tier": (Match, "admits", _strangers_have_every_tier),
    "an order counted at every payment": (Tally, "happened", _counted_at_every_payment),
    "an order counted without a payment": (Tally, "happened", _counted_when_anything_happens),
    "refunds counted on the day of the sale": (Tally, "happened", _all_on_the_first_day),
    "refunds taken off what was sold": (Tally, "happened", _refunds_taken_off_what_was_sold),
    "a sale counted twice for who owns it and served": (
        sales_credit,
        "subjects_of",
        _owner_and_serving_apart,
    ),
    "a pool's sales counted for a guide": (sales_credit, "subjects_of", _pools_are_guides),
    "credit left to whose the sale was": (sales_credit, "changes", _kept_by_whose_it_was),
    "credit of the past not moved": (sales_credit, "changes", _from_now_on_alone),
    "a share link opened after the order": (OpenedLink, "counts", _opened_after_the_order_too),
    "a share link of last year": (OpenedLink, "counts", _opened_at_any_time_before),
    "the manager of where she is now": (Guide, "store_at", _where_she_is_now),
    "the manager of where she began": (Guide, "store_at", _where_she_began),
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
