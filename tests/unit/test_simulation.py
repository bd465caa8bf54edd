"""Plans compared on the same orders: who would have earned otherwise, by how much, at whose cost."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime

from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.comparison import compared
from svc_commission.rules.event import Event, Kind, Line
from svc_commission.rules.line import MonthSales
from svc_commission.rules.order import Account, Books, Circumstances, Target
from svc_commission.rules.plan import CostBearer, Match, PayeeRole, Plan, Rule, Share, Tier, Tiers
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.simulation import OwnerSales, Simulation
from tests.strategies import History, paid_histories, plans
from tests.unit import order_laws as laws

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)


def drafted(history: History, draft: Plan) -> Books:
    """The books of an order, had a draft decided it."""
    return laws.books_of(dataclasses.replace(history, plan=draft))


@given(st.lists(paid_histories(), min_size=1, max_size=4))
def test_a_draft_equal_to_the_plan_differs_in_nothing(histories: list[History]) -> None:
    """However the sale was shared, refunded, held and confirmed."""
    simulation = Simulation()
    for history in histories:
        simulation.add(history.attribution.selling_store_id, laws.books_of(history), laws.books_of(history))
    assert simulation.differing_payees(10) == ([], 0)
    assert simulation.differing_stores(10) == ([], 0)
    brand = simulation.brand
    assert (brand.orders, brand.difference_minor, brand.borne_difference_minor) == (0, 0, 0)
    assert simulation.orders == len(histories)


@given(st.lists(paid_histories(), min_size=1, max_size=4), plans())
def test_what_all_earn_is_what_it_costs(histories: list[History], draft: Plan) -> None:
    """Each fen of the draft is one that somebody is owed and somebody bears, however it is counted."""
    simulation = Simulation()
    for history in histories:
        current, would_be = laws.books_of(history), drafted(history, draft)
        simulation.add(history.attribution.selling_store_id, current, would_be)
    payees, stores, brand = simulation.payees.values(), simulation.stores.values(), simulation.brand
    assert sum(one.current_minor for one in payees) == brand.current_minor
    assert sum(one.draft_minor for one in payees) == brand.draft_minor
    assert sum(one.current_minor for one in stores) == brand.current_minor
    assert sum(one.draft_minor for one in stores) == brand.draft_minor
    assert sum(one.borne_draft_minor for one in stores) + brand.borne_draft_minor == brand.draft_minor
    assert sum(one.borne_current_minor for one in stores) + brand.borne_current_minor == brand.current_minor
    assert sum(one.sold_minor for one in stores) == brand.sold_minor
    assert sum(one.orders for one in stores) == brand.orders


@given(st.lists(paid_histories(), min_size=1, max_size=4), plans())
def test_each_payee_s_amounts_are_those_of_her_orders(histories: list[History], draft: Plan) -> None:
    """Held or payable, by the books of each order."""
    simulation = Simulation()
    owed: dict[str, list[int]] = {}
    for history in histories:
        simulation.add(history.attribution.selling_store_id, laws.books_of(history), drafted(history, draft))
        both = history, dataclasses.replace(history, plan=draft)
        for place, one in enumerate(both):
            for (_, payee), amount in laws.owed_of(one).items():
                owed.setdefault(payee, [0, 0])[place] += amount
    found = {payee: [row.current_minor, row.draft_minor] for payee, row in simulation.payees.items()}
    assert {payee: row for payee, row in found.items() if any(row)} == {
        payee: row for payee, row in owed.items() if any(row)
    }


# Worked by hand. Ann owns what the east sells; a coat of 100.00.

OWNER = (Share(PayeeRole.OWNER, 10_000),)


def sale(owner: str = "guide:ann", store: str = "east") -> Attribution:
    """A sale in Shanghai."""
    return Attribution(
        member_id="member",
        binding_id="member.1",
        owner=owner,
        owner_basis=OwnerBasis.BINDING,
        selling_store_id=store,
        owner_store_id="west",
        flagship_store_id="",
        as_of_time=NOON,
        known_at_time=NOON,
        plan_id="plan",
        time_zone="Asia/Shanghai",
    )


def plan(rate_bp: int, bearer: CostBearer = CostBearer.BRAND, tiers: Tiers | None = None) -> Plan:
    """So much of everything for the owner."""
    rule = Rule("all", Match(), rate_bp, OWNER, cost_bearer=bearer, tiers=tiers)
    return Plan("plan", NOON, None, (rule,))


def paid(minor: int = 10_000, time: datetime = NOON) -> Event:
    """A coat was paid."""
    return Event("PAID:1", Kind.PAID, time, lines=(Line("A", "coat", "", 1, minor, minor),))


def books(attribution: Attribution, by: Plan | None, *events: Event) -> Books:
    """What the events come to."""
    return order.fold(events or [paid()], "POS", attribution, by)


def test_a_difference_is_the_drafts_less_the_other() -> None:
    simulation = Simulation()
    simulation.add("east", books(sale(), plan(300)), books(sale(), plan(250)))
    [(payee, row)], count = simulation.differing_payees(10)
    assert (payee, row.current_minor, row.draft_minor, row.difference_minor) == ("guide:ann", 300, 250, -50)
    assert (row.orders, count) == (1, 1)


def test_a_cost_that_moves_from_one_store_to_another_is_a_difference_of_both() -> None:
    """Nobody earns otherwise; the store that recruited pays in the place of the one that sold."""
    simulation = Simulation()
    selling, recruiting = plan(300, CostBearer.SELLING_STORE), plan(300, CostBearer.RECRUITING_STORE)
    simulation.add("east", books(sale(), selling), books(sale(), recruiting))
    assert simulation.differing_payees(10) == ([], 0)
    (one, east), (two, west) = simulation.differing_stores(10)[0]
    assert (one, east.borne_current_minor, east.borne_draft_minor, east.orders) == ("east", 300, 0, 1)
    assert (two, west.borne_current_minor, west.borne_draft_minor, west.orders) == ("west", 0, 300, 0)
    assert (east.difference_minor, west.sold_minor, simulation.brand.orders) == (0, 0, 1)


def test_the_largest_differences_come_first_and_only_so_many() -> None:
    simulation = Simulation()
    for owner, draft in (("guide:a", 310), ("guide:b", 200), ("guide:c", 400), ("guide:d", 301)):
        simulation.add(f"of-{owner}", books(sale(owner), plan(300)), books(sale(owner), plan(draft)))
    ranked, count = simulation.differing_payees(3)
    assert ([payee for payee, _ in ranked], count) == (["guide:b", "guide:c", "guide:a"], 4)
    stores, count = simulation.differing_stores(2)
    assert ([store for store, _ in stores], count) == (["of-guide:b", "of-guide:c"], 4)


def test_differences_that_cancel_are_still_of_orders_that_differ() -> None:
    simulation = Simulation()
    for now, draft in ((300, 400), (400, 300)):
        simulation.add("east", books(sale(), plan(now)), books(sale(), plan(draft)))
    [(_, row)], count = simulation.differing_payees(10)
    assert (row.difference_minor, row.orders, count) == (0, 2, 1)


def test_an_owners_sales_are_those_of_the_close_where_there_was_one() -> None:
    """And else what the replayed orders come to; of another owner, and another month, they say nothing."""
    sales = OwnerSales()
    sales.add("guide:ann", {MARCH: 700, APRIL: 50}, {})
    sales.add("guide:ann", {MARCH: 300}, {})
    sales.add("guide:bea", {MARCH: 5}, {MARCH: MonthSales(90, 95)})
    april = paid(time=datetime(2026, 4, 2, tzinfo=UTC))
    around = sales.around(sale(), [paid(), april], Circumstances(first_purchase=True))
    assert around.sales == {MARCH: MonthSales(1_000, 1_000), APRIL: MonthSales(50, 50)}
    assert around.first_purchase
    assert sales.around(sale("guide:bea"), [paid()], Circumstances()).sales == {MARCH: MonthSales(90, 95)}
    recorded = Circumstances(sales={MARCH: MonthSales(1, 2)})
    assert sales.around(sale(), [paid()], recorded).sales == {MARCH: MonthSales(1, 2)}


def test_a_tier_is_reached_by_all_of_the_owners_orders_together() -> None:
    """Two coats of 100.00 in March; 5 % of what lies above 150.00: 7.00 instead of 6.00."""
    draft = plan(300, tiers=Tiers((Tier(15_000, 500),)))
    simulation, sales = Simulation(), OwnerSales()
    for _ in range(2):
        sales.add("guide:ann", books(sale(), None).owner_sales, {})
    around = sales.around(sale(), [paid()], Circumstances())
    for _ in range(2):
        would_be = order.fold([paid()], "POS", sale(), draft, around)
        simulation.add("east", order.fold([paid()], "POS", sale(), plan(300), around), would_be)
    [(_, row)], _ = simulation.differing_payees(10)
    assert (row.current_minor, row.draft_minor) == (600, 700)


def test_amounts_are_compared_one_by_one() -> None:
    """What was posted before and now must be what is computed, of each line, account, payee, month, kind."""
    earned = Target("A", Account.PAYABLE, "guide:ann", MARCH, PostingKind.EARNED)
    back = earned._replace(kind=PostingKind.CLAWED_BACK)
    other = earned._replace(payee="guide:bea")
    found = compared({earned: -300, back: 100}, {earned: -300}, {back: 90, other: -10})
    assert {one.target: (one.computed_minor, one.before_minor, one.posted_minor) for one in found} == {
        earned: (-300, -300, 0),
        back: (100, 0, 90),
        other: (0, 0, -10),
    }
    assert {one.target for one in found if one.agrees} == {earned}
