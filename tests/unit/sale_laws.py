"""What must hold for the attribution of every sale, over all sales that can differ in what decides it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product

from svc_commission.rules import attribution as rules
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
from svc_commission.rules.plan import PayeeRole, SelfPurchase

PLACED = datetime(2026, 3, 10, 4, tzinfo=UTC)
HIRED = datetime(2026, 1, 1, tzinfo=UTC)
VALID = timedelta(hours=72)
GUIDES = {
    "ann": Guide(((HIRED, "east"),), None),
    "bea": Guide(((HIRED, "south"), (PLACED, "north")), None),
    "cat": Guide(((HIRED, "moon"), (PLACED + timedelta(days=1), "mars")), None),
}
"""Ann owns members, Bea shares links, Cat serves."""


@dataclass(frozen=True)
class SaleToAttribute:
    """What is known of a sale. `opened_before`: how long before the order a share link was opened."""

    bound: StandingBinding
    opened_before: timedelta | None
    maker: str
    parent: str
    serving: str
    selling: str
    flagship: str

    @property
    def link_counts(self) -> bool:
        """Whether a link was opened in the 72 hours before the order."""
        return self.opened_before is not None and timedelta(0) <= self.opened_before <= VALID


MOMENT = timedelta(milliseconds=1)
BOUND = (
    StandingBinding("", "", "", ""),
    StandingBinding("member", "", "", ""),
    StandingBinding("member", "member.1", "ann", "east"),
    StandingBinding("member", "member.1", "", "east"),
)
SALES = [
    SaleToAttribute(bound, opened_before, maker, parent, serving, selling, flagship)
    for bound, opened_before, maker, parent, serving, (selling, flagship) in product(
        BOUND,
        [None, timedelta(0), VALID, VALID + MOMENT, -MOMENT],
        ["", "bea"],
        ["", "dot"],
        ["", "cat", "bea"],
        [("west", ""), ("", "tmall"), ("west", "tmall")],
    )
]


def attribution_of(sale: SaleToAttribute) -> Attribution:
    """As the service attributes it: a link that does not count is not looked at."""
    link = None
    if sale.opened_before is not None:
        link = OpenedLink(PLACED - sale.opened_before, sale.maker, sale.parent)
        link = link if link.counts(PLACED, VALID) else None
    facts = Facts(
        selling_store_id=sale.selling,
        flagship_store_id=sale.flagship,
        serving_guide_id=sale.serving,
        campaign_id="",
        member_tier="",
        link=link,
        as_of_time=PLACED,
        known_at_time=PLACED,
        time_zone="Asia/Shanghai",
    )
    return attributed(sale.bound, facts, plan_id="plan")


def the_strongest_claim_owns(sale: SaleToAttribute) -> None:
    """The binding, a guide's or a pool's; then who shared the link; then who served; then the pool."""
    claims = {
        OwnerBasis.BINDING: "guide:ann" if sale.bound.guide_id else "pool:east",
        OwnerBasis.SHARE_LINK: f"guide:{sale.maker}",
        OwnerBasis.SERVING_GUIDE: f"guide:{sale.serving}",
        OwnerBasis.STORE_POOL: f"pool:{sale.selling or sale.flagship}",
    }
    holds = {
        OwnerBasis.BINDING: bool(sale.bound.binding_id),
        OwnerBasis.SHARE_LINK: sale.link_counts and bool(sale.maker),
        OwnerBasis.SERVING_GUIDE: bool(sale.serving),
        OwnerBasis.STORE_POOL: True,
    }
    basis = next(basis for basis in OwnerBasis if holds[basis])
    found = attribution_of(sale)
    assert (found.owner_basis, found.owner) == (basis, claims[basis])


def everybody_has_the_part_that_was_hers(sale: SaleToAttribute) -> None:
    """Who served, whose link was opened, and from whose link that was made; members who share have none."""
    found = attribution_of(sale)
    assert found.serving == (f"guide:{sale.serving}" if sale.serving else "")
    assert found.referrer_1 == (f"guide:{sale.maker}" if sale.maker and sale.link_counts else "")
    assert found.referrer_2 == (f"guide:{sale.parent}" if sale.parent and sale.link_counts else "")


def a_share_link_adds_no_store(sale: SaleToAttribute) -> None:
    """The sale counts for the store that sold, that of the binding and the flagship, each once."""
    stores = [sale.selling or sale.flagship, sale.bound.store_id, sale.flagship]
    assert attribution_of(sale).credited_stores() == list(dict.fromkeys(store for store in stores if store))


def the_manager_is_of_the_owners_store(sale: SaleToAttribute) -> None:
    """Where she stood as the buyer ordered, neither before nor since."""
    found = attribution_of(sale)
    expected = {"guide:ann": "east", "pool:east": "east", "guide:bea": "north", "guide:cat": "moon"}
    assert managed_store(found, GUIDES) == expected.get(found.owner, found.selling_store_id)


COUNT_OR_NOT = (None, VALID)
"""Links for the laws to which it matters who fills which role, and not why."""


def managed(sale: SaleToAttribute) -> Attribution:
    """The attribution with a manager, who is the guide who shares links where that store is hers."""
    found = attribution_of(sale)
    manager = {"east": "ann", "north": "bea"}.get(managed_store(found, GUIDES), "eve")
    return replace(found, store_manager=f"guide:{manager}")


@cache
def buying(guide_id: str) -> dict[str, Guide]:
    """The guides, of whom one is the buyer: she was enrolled as another member once, who is now this one."""
    names = frozenset({"former", "member"})
    strangers = {one: replace(GUIDES["ann"], member_ids=frozenset({f"of-{one}"})) for one in ("dot", "eve")}
    everybody = {**strangers, **GUIDES}
    return {
        one: replace(guide, member_ids=names) if one == guide_id else guide
        for one, guide in everybody.items()
    }


def who_buys_herself_is_not_paid(sale: SaleToAttribute) -> None:
    """She is taken out of every role, and recorded; all others, and all stores, are as if another bought."""
    if sale.opened_before not in COUNT_OR_NOT:
        return
    whole = managed(sale)
    for buyer in ("ann", "bea", "cat", "dot", "eve"):
        found = rules.without_buyer(whole, buying(buyer), SelfPurchase.NOTHING)
        known = bool(sale.bound.member_id)
        hers = {role for role, payee in whole.payees().items() if known and payee == f"guide:{buyer}"}
        rest = {role: payee for role, payee in whole.payees().items() if role not in hers}
        assert found.payees() == rest
        assert found.self_purchases == dict.fromkeys(hers, f"guide:{buyer}")
        basis = OwnerBasis.SELF_PURCHASE if PayeeRole.OWNER in hers else whole.owner_basis
        assert found.owner_basis is basis
        assert found.credited_stores() == whole.credited_stores()
        assert (found.binding_id, found.plan_id) == (whole.binding_id, whole.plan_id)


def a_plan_may_pay_who_buys_herself(sale: SaleToAttribute) -> None:
    """Then she is a buyer like any other."""
    whole = managed(sale)
    for buyer in ("ann", "bea", "cat"):
        assert rules.without_buyer(whole, buying(buyer), SelfPurchase.PAY) == whole


LATER = PLACED + timedelta(days=9)


def decided_anew_it_is_what_it_would_have_been(sale: SaleToAttribute) -> None:
    """Had it been known then, it would have been decided so at once. Cat is the buyer now, not Bea."""
    if sale.opened_before not in COUNT_OR_NOT:
        return
    whole = managed(sale)
    once = rules.without_buyer(whole, buying("bea"), SelfPurchase.NOTHING)
    # Its neighbour: each binding follows from another, and all sales together are enough.
    bound = BOUND[BOUND.index(sale.bound) - 1]
    found = rules.without_buyer(rules.decided_anew(once, bound, LATER), buying("cat"), SelfPurchase.NOTHING)
    expected = replace(
        attribution_of(replace(sale, bound=bound)), store_manager=whole.store_manager, known_at_time=LATER
    )
    assert found == rules.without_buyer(expected, buying("cat"), SelfPurchase.NOTHING)


LAWS = (
    who_buys_herself_is_not_paid,
    a_plan_may_pay_who_buys_herself,
    decided_anew_it_is_what_it_would_have_been,
    the_strongest_claim_owns,
    everybody_has_the_part_that_was_hers,
    a_share_link_adds_no_store,
    the_manager_is_of_the_owners_store,
)
