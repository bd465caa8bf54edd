"""What two persons must agree on, and what it is that they agree on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from chassis.errors import Refused
from chassis.mongo.connection import Document
from svc_commission.order.documents import attribution_at
from svc_commission.reattribution.carrying_out import reattributed
from svc_commission.rules import reattribution as rules
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.order import Account, Target
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.reattribution import State
from tests.unit.sale_laws import PLACED

FROZEN = Attribution(
    member_id="ben",
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
)
MOMENT = timedelta(milliseconds=1)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize("state", State)
def test_only_a_proposal_can_be_decided(state: State) -> None:
    if state is State.PROPOSED:
        rules.check_undecided(state)
        return
    with pytest.raises(Refused, match="ALREADY_DECIDED"):
        rules.check_undecided(state)


def test_the_second_person_is_another() -> None:
    rules.check_second_person("ada", "bob")
    with pytest.raises(Refused, match="SAME_PERSON"):
        rules.check_second_person("ada", "ada")


def test_when_it_was_asked_alone_is_no_change() -> None:
    later = replace(FROZEN, known_at_time=NOW)
    assert not rules.changes(FROZEN, later)
    assert rules.changes(FROZEN, replace(later, owner="guide:bea"))
    assert rules.changes(FROZEN, replace(later, binding_id="row.2"))
    assert rules.changes(FROZEN, replace(later, member_id="cid"))


def test_newer_knowledge_stands_and_older_does_not() -> None:
    assert rules.outdated(FROZEN, PLACED - MOMENT)
    assert not rules.outdated(FROZEN, PLACED)
    assert not rules.outdated(FROZEN, PLACED + MOMENT)


def targets(*postings: tuple[Account, str, int]) -> dict[Target, int]:
    """Targets of one line and month."""
    month = date(2026, 3, 1)
    return {
        Target("coat", account, payee, month, PostingKind.EARNED): amount
        for account, payee, amount in postings
    }


def test_what_moves_is_what_is_owed_held_or_not() -> None:
    """Ann has 1.00 held and 2.00 payable; Bea gets both. Max keeps his; who bears it is no payee."""
    both = (Account.HELD, "guide:max", -50), (Account.EXPENSE, "store:west", 350)
    before = targets((Account.HELD, "guide:ann", -100), (Account.PAYABLE, "guide:ann", -200), *both)
    after = targets((Account.HELD, "guide:bea", -100), (Account.PAYABLE, "guide:bea", -200), *both)
    assert rules.moved(before, after) == {"guide:ann": -300, "guide:bea": 300}
    assert rules.moved(before, before) == {}


def order_of(**more: object) -> Document:
    attribution = {"member_id": "ben", "owner": "guide:ann"}
    return {"_id": "key", "rev": 4, "attribution": attribution, "first_purchase": True, **more}


def test_an_order_keeps_whose_it_was_and_from_which_revision_on_it_is_anothers() -> None:
    item = {"after": {"member_id": "ben", "owner": "guide:bea"}}
    found = reattributed(order_of(closed_sales=[1]), item, {"reattribution_id": "one"}, NOW)
    assert found["attribution"] == item["after"]
    assert found["former_attributions"] == [
        {
            "attribution": {"member_id": "ben", "owner": "guide:ann"},
            "rev": 5,
            "replaced_time": NOW,
            "reattribution_id": "one",
        }
    ]
    assert found["first_purchase"], "the buyer is the same"
    assert "closed_sales" not in found, "what another owner sold in the month is another amount"
    again = reattributed(
        {**found, "rev": 7}, {"after": order_of()["attribution"]}, {"reattribution_id": "two"}, NOW
    )
    assert [one["rev"] for one in again["former_attributions"]] == [5, 8]


def test_another_buyers_order_is_noted_and_told_as_his() -> None:
    item = {"after": {"member_id": "cid", "owner": "guide:ann"}}
    found = reattributed(
        order_of(purchase_told_time=NOW, closed_sales=[1]), item, {"reattribution_id": "1"}, NOW
    )
    assert "first_purchase" not in found
    assert "purchase_told_time" not in found
    assert found["closed_sales"] == [1]


def test_the_attribution_that_was_in_force_at_a_revision_is_found() -> None:
    def named(owner: str) -> Document:
        plain = {name: getattr(FROZEN, name) for name in FROZEN.__dataclass_fields__}
        return {**plain, "owner": owner, "owner_basis": "BINDING"}

    formers = [{"attribution": named("guide:ann"), "rev": 5}, {"attribution": named("guide:bea"), "rev": 8}]
    order = {"attribution": named("guide:cat"), "former_attributions": formers}
    found = [attribution_at(order, rev) for rev in (1, 4, 5, 7, 8, 9)]
    owners = [one.owner for one in found if one]
    assert owners == ["guide:ann", "guide:ann", "guide:bea", "guide:bea", "guide:cat", "guide:cat"]
    assert attribution_at({"attribution": None}, 1) is None
