"""Whose sale it is: the binding's, else the pool's; and which stores it counts for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from svc_commission.rules.attribution import (
    Attribution,
    Facts,
    Guide,
    OpenedLink,
    OwnerBasis,
    StandingBinding,
    attributed,
    managed_store,
)
from svc_commission.rules.plan import PayeeRole
from tests.unit import sale_laws

PLACED = datetime(2026, 3, 10, 4, tzinfo=UTC)
ANN = StandingBinding(member_id="member", binding_id="member.1", guide_id="ann", store_id="east")
NOBODY = StandingBinding("", "", "", "")


def attribution(
    bound: StandingBinding,
    *,
    selling: str = "",
    flagship: str = "",
    serving: str = "",
    link: OpenedLink | None = None,
) -> Attribution:
    """The attribution of an order that was placed at noon and heard of an hour later."""
    facts = Facts(
        selling_store_id=selling,
        flagship_store_id=flagship,
        serving_guide_id=serving,
        campaign_id="spring",
        member_tier="gold",
        link=link,
        as_of_time=PLACED,
        known_at_time=PLACED + timedelta(hours=1),
        time_zone="Asia/Shanghai",
    )
    return attributed(bound, facts, plan_id="plan")


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


def opened(hours_before: float, maker: str = "bea", parent: str = "") -> OpenedLink:
    """A share link that the buyer opened some hours before he ordered."""
    return OpenedLink(PLACED - timedelta(hours=hours_before), maker, parent)


@pytest.mark.parametrize(
    ("bound", "link", "serving", "owner", "basis"),
    [
        (ANN, opened(1), "cat", "guide:ann", OwnerBasis.BINDING),
        (NOBODY, opened(1), "cat", "guide:bea", OwnerBasis.SHARE_LINK),
        (NOBODY, None, "cat", "guide:cat", OwnerBasis.SERVING_GUIDE),
        (NOBODY, opened(1, maker=""), "cat", "guide:cat", OwnerBasis.SERVING_GUIDE),
        (NOBODY, None, "", "pool:west", OwnerBasis.STORE_POOL),
    ],
    ids=["bound", "opened a link", "served", "link of a member", "nobody"],
)
def test_the_strongest_claim_owns_the_sale(
    bound: StandingBinding, link: OpenedLink | None, serving: str, owner: str, basis: OwnerBasis
) -> None:
    """Binding before share link before the guide at the till before the pool."""
    found = attribution(bound, selling="west", link=link, serving=serving)
    assert (found.owner, found.owner_basis) == (owner, basis)


SECOND = 1 / 3600


@pytest.mark.parametrize(
    ("hours", "valid", "counts"),
    [
        (0, 72, True),
        (72, 72, True),
        (72 + SECOND, 72, False),
        (-SECOND, 72, False),
        (24 + SECOND, 24, False),
        (72 + SECOND, 720, True),
    ],
)
def test_a_share_link_counts_for_so_long_before_the_order(hours: float, valid: int, counts: bool) -> None:
    """72 hours, or what the plan says; and never one that was opened after it."""
    assert opened(hours).counts(PLACED, timedelta(hours=valid)) is counts


HIRED = datetime(2026, 1, 1, tzinfo=UTC)
BEA = Guide(((HIRED, "south"), (PLACED, "north")), None)


@pytest.mark.parametrize(
    ("bound", "link", "managed"),
    [
        (ANN, opened(1), "east"),
        (replace(ANN, guide_id=""), None, "east"),
        (NOBODY, opened(1), "north"),
        (NOBODY, None, "west"),
    ],
    ids=["bound", "bound to a pool", "opened a link", "nobody"],
)
def test_the_manager_of_the_owners_store_has_a_part(
    bound: StandingBinding, link: OpenedLink | None, managed: str
) -> None:
    """The binding's store; else where the owner stood when he ordered; else the store whose pool owns it."""
    found = attribution(bound, selling="west", link=link)
    assert managed_store(found, {"bea": BEA, "cat": Guide(((HIRED, "moon"),), None)}) == managed


def test_a_guide_is_where_she_was_when_the_buyer_ordered_and_until_she_left() -> None:
    """What she did before or since counts for other orders."""
    moment = timedelta(milliseconds=1)
    assert [BEA.store_at(time) for time in (PLACED - moment, PLACED)] == ["south", "north"]
    assert BEA.store_at(HIRED - moment) == "south"
    left = replace(BEA, resign_time=PLACED)
    assert [left.employed_at(time) for time in (PLACED - moment, PLACED)] == [True, False]
    assert BEA.employed_at(PLACED)


def test_everybody_who_had_a_part_in_the_sale_fills_her_role() -> None:
    """The makers of both links, the guide at the till and the owner; a role without anybody is left out."""
    found = attribution(ANN, selling="west", serving="cat", link=opened(2, "bea", "dot"))
    assert found.payees() == {
        PayeeRole.OWNER: "guide:ann",
        PayeeRole.SERVING: "guide:cat",
        PayeeRole.REFERRER_1: "guide:bea",
        PayeeRole.REFERRER_2: "guide:dot",
    }
    assert attribution(NOBODY, selling="west").payees() == {PayeeRole.OWNER: "pool:west"}
    assert (found.campaign_id, found.member_tier) == ("spring", "gold")


@pytest.mark.parametrize("law", sale_laws.LAWS)
def test_every_sale_obeys(law: Callable[[sale_laws.SaleToAttribute], None]) -> None:
    """All combinations of binding, link, guide at the till and store, not those that somebody thought of."""
    for sale in sale_laws.SALES:
        law(sale)
