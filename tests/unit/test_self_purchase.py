"""What a guide buys herself: by default nobody is paid for her in her roles, and the sale stays a sale."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from svc_commission.order.documents import attribution_of
from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, Guide, OwnerBasis, without_buyer
from svc_commission.rules.event import Event, Kind, Line
from svc_commission.rules.order import Account, Books
from svc_commission.rules.plan import Absent, Match, PayeeRole, Plan, Rule, SelfPurchase, Share
from svc_commission.rules.sales_credit import Role

PLACED = datetime(2026, 3, 10, 4, tzinfo=UTC)
STAFF = {
    "ann": Guide(((PLACED - timedelta(days=99), "east"),), None, frozenset({"ann-buys"})),
    "bea": Guide(((PLACED - timedelta(days=99), "west"),), None, frozenset({"bea-buys", "bea-bought"})),
    "max": Guide(((PLACED - timedelta(days=99), "east"),), None),
}
SALE = Attribution(
    member_id="",
    binding_id="row.1",
    owner="guide:ann",
    owner_basis=OwnerBasis.BINDING,
    selling_store_id="west",
    owner_store_id="east",
    flagship_store_id="",
    as_of_time=PLACED,
    known_at_time=PLACED,
    plan_id="plan",
    time_zone="Asia/Shanghai",
    serving="guide:bea",
    store_manager="guide:max",
)
"""Ann's customer buys in the west, where Bea serves him; Max manages Ann's store."""


def plan_of(owner_absent: Absent, self_purchase: SelfPurchase = SelfPurchase.NOTHING) -> Plan:
    """10 %: 50 for the owner, 30 for who served, 20 for the manager of the owner's store."""
    shares = (
        Share(PayeeRole.OWNER, 5000, owner_absent),
        Share(PayeeRole.SERVING, 3000, Absent.OWNER),
        Share(PayeeRole.STORE_MANAGER, 2000),
    )
    rule = Rule("all", Match(), rate_bp=1000, shares=shares)
    return Plan("plan", PLACED, None, (rule,), self_purchase=self_purchase)


def books_of(member_id: str, plan: Plan) -> Books:
    """The books of 100.00 that a member paid."""
    bought = replace(SALE, member_id=member_id)
    frozen = without_buyer(bought, STAFF, plan.self_purchase)
    line = Line("coat", "coat", "", 1, 10_000, 10_000)
    paid = Event("PAID:1", Kind.PAID, PLACED, lines=(line,))
    # As it is read from the database again.
    return order.fold([paid], "POS", attribution_of(asdict(frozen)), plan)


def owed(books: Books) -> dict[str, int]:
    """What is owed, in fen, by payee."""
    return {
        target.payee: -amount
        for target, amount in books.targets.items()
        if target.account is not Account.EXPENSE
    }


@pytest.mark.parametrize(
    ("absent", "member_id", "expected"),
    [
        (Absent.KEEP, "ben", {"guide:ann": 500, "guide:bea": 300, "guide:max": 200}),
        (Absent.KEEP, "", {"guide:ann": 500, "guide:bea": 300, "guide:max": 200}),
        # Ann buys: her half goes where that of nobody goes.
        (Absent.KEEP, "ann-buys", {"guide:bea": 300, "guide:max": 200}),
        (Absent.OWNER, "ann-buys", {"guide:bea": 300, "guide:max": 200}),
        (Absent.STORE_POOL, "ann-buys", {"pool:west": 500, "guide:bea": 300, "guide:max": 200}),
        # Bea buys, whose 30 go to the owner where nobody served; also what she bought before she was merged.
        (Absent.KEEP, "bea-buys", {"guide:ann": 800, "guide:max": 200}),
        (Absent.KEEP, "bea-bought", {"guide:ann": 800, "guide:max": 200}),
    ],
)
def test_a_guide_is_paid_nothing_for_what_she_buys(
    absent: Absent, member_id: str, expected: dict[str, int]
) -> None:
    assert owed(books_of(member_id, plan_of(absent))) == expected


def test_a_plan_may_pay_a_guide_for_what_she_buys() -> None:
    expected = {"guide:ann": 500, "guide:bea": 300, "guide:max": 200}
    for member_id in ("ann-buys", "bea-buys"):
        assert owed(books_of(member_id, plan_of(Absent.KEEP, SelfPurchase.PAY))) == expected


def test_who_fills_two_roles_of_what_she_buys_is_taken_out_of_both() -> None:
    """Ann serves herself: nobody owns it, nobody served, and nothing is left for them but the manager's."""
    sale = replace(SALE, member_id="ann-buys", serving="guide:ann")
    found = without_buyer(sale, STAFF, SelfPurchase.NOTHING)
    assert found.payees() == {PayeeRole.STORE_MANAGER: "guide:max"}
    assert found.self_purchases == {PayeeRole.OWNER: "guide:ann", PayeeRole.SERVING: "guide:ann"}
    assert found.owner_basis is OwnerBasis.SELF_PURCHASE


def test_a_manager_who_buys_has_no_part_in_it_either() -> None:
    staff = STAFF | {"max": replace(STAFF["max"], member_ids=frozenset({"max-buys"}))}
    found = without_buyer(replace(SALE, member_id="max-buys"), staff, SelfPurchase.NOTHING)
    assert found.payees() == {PayeeRole.OWNER: "guide:ann", PayeeRole.SERVING: "guide:bea"}
    assert (found.owner, found.owner_basis) == ("guide:ann", OwnerBasis.BINDING)


def test_what_a_guide_buys_is_a_sale_of_the_same_stores() -> None:
    """Of the store that sold it, and of hers; but none that she made as a guide."""
    for member_id, guides in (("ben", {"ann", "bea"}), ("ann-buys", {"bea"}), ("bea-buys", {"ann"})):
        credited = books_of(member_id, plan_of(Absent.KEEP)).sales_credits.subjects
        stores = {one.subject_id for one in credited if one.role is Role.STORE}
        others = {one.subject_id for one in credited if one.role in (Role.OWNER, Role.SERVING)}
        assert (stores, others) == ({"west", "east"}, guides)


def test_an_attribution_of_before_there_were_self_purchases_has_none() -> None:
    stored = {name: value for name, value in asdict(SALE).items() if name != "self_purchases"}
    assert attribution_of(stored) == SALE
