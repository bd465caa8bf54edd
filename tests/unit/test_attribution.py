"""Whose sale it is: the binding's, else the pool's; and which stores it counts for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from svc_commission.rules.attribution import Attribution, OwnerBasis, StandingBinding, attributed

PLACED = datetime(2026, 3, 10, 4, tzinfo=UTC)
ANN = StandingBinding(member_id="member", binding_id="member.1", guide_id="ann", store_id="east")
NOBODY = StandingBinding("", "", "", "")


def attribution(bound: StandingBinding, *, selling: str = "", flagship: str = "") -> Attribution:
    """The attribution of an order that was placed at noon and heard of an hour later."""
    return attributed(
        bound,
        selling_store_id=selling,
        flagship_store_id=flagship,
        as_of_time=PLACED,
        known_at_time=PLACED + timedelta(hours=1),
        plan_id="plan",
        time_zone="Asia/Shanghai",
    )


def test_the_guide_whose_member_bought_owns_the_sale_wherever_he_bought() -> None:
    """On the Tmall flagship, and in another store than hers."""
    for selling, flagship in [("", "tmall"), ("west", ""), ("east", "")]:
        found = attribution(ANN, selling=selling, flagship=flagship)
        assert (found.owner, found.owner_basis) == ("guide:ann", OwnerBasis.BINDING)
        assert found.binding_id == "member.1"


def test_a_sale_to_nobodys_customer_belongs_to_the_pool_of_the_store_that_sold() -> None:
    """Also of the flagship; also to a member who is nobody's."""
    unbound = replace(NOBODY, member_id="member")
    for bound, selling, flagship, pool in [
        (NOBODY, "west", "", "pool:west"),
        (NOBODY, "", "tmall", "pool:tmall"),
        (unbound, "west", "", "pool:west"),
    ]:
        found = attribution(bound, selling=selling, flagship=flagship)
        assert (found.owner, found.owner_basis) == (pool, OwnerBasis.STORE_POOL)


def test_a_member_of_a_stores_pool_is_that_stores_wherever_he_buys() -> None:
    """He scanned the store's own code: its pool holds him as a guide would."""
    found = attribution(replace(ANN, guide_id=""), selling="west")
    assert (found.owner, found.owner_basis) == ("pool:east", OwnerBasis.BINDING)


def test_it_is_frozen_with_all_that_decided_it() -> None:
    """Who asks in a year why gets the row, the plan and both times."""
    found = attribution(ANN, selling="west")
    assert (found.member_id, found.binding_id, found.plan_id) == ("member", "member.1", "plan")
    assert (found.as_of_time, found.known_at_time) == (PLACED, PLACED + timedelta(hours=1))


@pytest.mark.parametrize(
    ("bound", "selling", "flagship", "stores"),
    [
        (ANN, "west", "", {"west", "east"}),
        (ANN, "", "tmall", {"tmall", "east"}),
        (ANN, "west", "tmall", {"west", "east", "tmall"}),
        (ANN, "east", "", {"east"}),
        (ANN, "east", "east", {"east"}),
        (NOBODY, "west", "", {"west"}),
        (NOBODY, "", "tmall", {"tmall"}),
    ],
)
def test_a_sale_counts_for_each_of_its_stores_once(
    bound: StandingBinding, selling: str, flagship: str, stores: set[str]
) -> None:
    """The store that sold, the store of the owner's binding, the flagship; one that is two of them once."""
    credited = attribution(bound, selling=selling, flagship=flagship).credited_stores()
    assert set(credited) == stores
    assert len(credited) == len(stores)


def test_every_sale_is_owned_and_credited() -> None:
    """Whatever is known of buyer and seller, as long as somebody sold."""
    for bound, (selling, flagship) in product(
        [ANN, NOBODY], [("west", ""), ("", "tmall"), ("west", "tmall")]
    ):
        found = attribution(bound, selling=selling, flagship=flagship)
        assert found.owner not in ("guide:", "pool:")
        assert found.selling_store_id in found.credited_stores()
