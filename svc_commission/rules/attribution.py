"""Whose sale an order is: decided once, from what was known when its first event was stored, then frozen.

What two persons agree on may have it decided anew (`decided_anew`), from what is known then.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from svc_commission.rules.plan import PayeeRole, SelfPurchase

FLAGSHIP_CHANNELS = frozenset({"TMALL", "TAOBAO"})
"""Channels on which the brand's flagship shop sells."""
_GUIDE: Final = "guide:"
_POOL: Final = "pool:"


class OwnerBasis(enum.StrEnum):
    """Why the owner is the owner, the strongest reason first."""

    BINDING = "BINDING"
    SHARE_LINK = "SHARE_LINK"
    SERVING_GUIDE = "SERVING_GUIDE"
    STORE_POOL = "STORE_POOL"
    SELF_PURCHASE = "SELF_PURCHASE"


def guide_payee(guide_id: str) -> str:
    """The payee that a guide is: `guide:` and her id."""
    return f"{_GUIDE}{guide_id}"


def guide_of(payee: str) -> str:
    """The guide that a payee is; empty: a pool, or nobody."""
    return payee.removeprefix(_GUIDE) if payee.startswith(_GUIDE) else ""


def pool_payee(store_id: str) -> str:
    """The payee that a store's common pool is: `pool:` and the store's id."""
    return f"{_POOL}{store_id}"


def store_bearer(store_id: str) -> str:
    """The bearer of costs that a store is: `store:` and its id."""
    return f"store:{store_id}"


@dataclass(frozen=True, slots=True)
class StandingBinding:
    """The buyer, and the binding row that held when he ordered. Empty strings: unknown, or nobody's."""

    member_id: str
    binding_id: str
    guide_id: str
    store_id: str


@dataclass(frozen=True, slots=True)
class OpenedLink:
    """The last share link that the buyer opened. Guide ids are empty where a maker is no guide."""

    open_time: datetime
    maker_guide_id: str
    parent_maker_guide_id: str

    def counts(self, placed_time: datetime, valid: timedelta) -> bool:
        """Whether it was opened before the buyer ordered, and no longer than that before."""
        return timedelta(0) <= placed_time - self.open_time <= valid


@dataclass(frozen=True, slots=True)
class Guide:
    """A guide as the directory knows her.

    `postings`: where she stood, each with its beginning, oldest first. `resign_time` None: she has not left.
    `member_ids`: the members that she is as a customer, all by one name or another.
    """

    postings: tuple[tuple[datetime, str], ...]
    resign_time: datetime | None
    member_ids: frozenset[str] = frozenset()

    def store_at(self, time: datetime) -> str:
        """Where she stood; before she was hired, where she stood first."""
        begun = [store_id for from_time, store_id in self.postings if from_time <= time]
        return begun[-1] if begun else self.postings[0][1]

    def employed_at(self, time: datetime) -> bool:
        """Whether she had not left yet."""
        return self.resign_time is None or time < self.resign_time


@dataclass(frozen=True, slots=True)
class Facts:
    """What an order's events and the directory say of a sale. Empty strings: nothing.

    `link`: the last that the buyer opened, if it counts.
    """

    selling_store_id: str
    flagship_store_id: str
    serving_guide_id: str
    campaign_id: str
    member_tier: str
    link: OpenedLink | None
    as_of_time: datetime
    known_at_time: datetime
    time_zone: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose sale it is. Ids and payees are empty where there is nobody.

    `plan_id` empty: no plan, nothing earned. `self_purchases`: roles that nobody fills because the guide who
    would is the buyer, with her as payee.
    """

    member_id: str
    binding_id: str
    owner: str
    owner_basis: OwnerBasis
    selling_store_id: str
    owner_store_id: str
    flagship_store_id: str
    as_of_time: datetime
    known_at_time: datetime
    plan_id: str
    time_zone: str
    serving: str = ""
    referrer_1: str = ""
    referrer_2: str = ""
    store_manager: str = ""
    member_tier: str = ""
    campaign_id: str = ""
    self_purchases: Mapping[PayeeRole, str] = field(default_factory=dict)

    def payees(self) -> dict[PayeeRole, str]:
        """Who fills which role; a role that nobody fills is left out."""
        filled = {
            PayeeRole.OWNER: self.owner,
            PayeeRole.SERVING: self.serving,
            PayeeRole.REFERRER_1: self.referrer_1,
            PayeeRole.REFERRER_2: self.referrer_2,
            PayeeRole.STORE_MANAGER: self.store_manager,
        }
        return {role: payee for role, payee in filled.items() if payee}

    def filled_by(self, payees: Mapping[PayeeRole, str]) -> Attribution:
        """The same sale with these payees in their roles and nobody in the others."""
        return replace(
            self,
            owner=payees.get(PayeeRole.OWNER, ""),
            serving=payees.get(PayeeRole.SERVING, ""),
            referrer_1=payees.get(PayeeRole.REFERRER_1, ""),
            referrer_2=payees.get(PayeeRole.REFERRER_2, ""),
            store_manager=payees.get(PayeeRole.STORE_MANAGER, ""),
        )

    def credited_stores(self) -> list[str]:
        """The stores that the sale is counted for, each once."""
        named = (self.selling_store_id, self.owner_store_id, self.flagship_store_id)
        return list(dict.fromkeys(store_id for store_id in named if store_id))


def attributed(bound: StandingBinding, facts: Facts, *, plan_id: str) -> Attribution:
    """The frozen attribution, but for the manager of the owner's store, and for guides who buy themselves.

    The flagship sold where no store is named.
    """
    seller = facts.selling_store_id or facts.flagship_store_id
    maker = facts.link.maker_guide_id if facts.link else ""
    parent = facts.link.parent_maker_guide_id if facts.link else ""
    serving = guide_payee(facts.serving_guide_id) if facts.serving_guide_id else ""
    referrer = guide_payee(maker) if maker else ""
    owner, basis = _owner(bound, referrer, serving, seller)
    return Attribution(
        member_id=bound.member_id,
        binding_id=bound.binding_id,
        owner=owner,
        owner_basis=basis,
        selling_store_id=seller,
        owner_store_id=bound.store_id,
        flagship_store_id=facts.flagship_store_id,
        as_of_time=facts.as_of_time,
        known_at_time=facts.known_at_time,
        plan_id=plan_id,
        time_zone=facts.time_zone,
        serving=serving,
        referrer_1=referrer,
        referrer_2=guide_payee(parent) if parent else "",
        member_tier=facts.member_tier,
        campaign_id=facts.campaign_id,
    )


def _owner(bound: StandingBinding, referrer: str, serving: str, seller: str) -> tuple[str, OwnerBasis]:
    """Whom the standing binding names, a guide or a store's pool; else the guide whose share link the buyer
    opened last; else the guide who served him; else the pool of the store that sold."""
    if bound.binding_id:
        owner = guide_payee(bound.guide_id) if bound.guide_id else pool_payee(bound.store_id)
        return owner, OwnerBasis.BINDING
    if referrer:
        return referrer, OwnerBasis.SHARE_LINK
    if serving:
        return serving, OwnerBasis.SERVING_GUIDE
    return pool_payee(seller), OwnerBasis.STORE_POOL


def managed_store(frozen: Attribution, guides: Mapping[str, Guide]) -> str:
    """The store whose manager has a part in the sale: the owner's.

    That of the binding; without one, where the owner stood when the buyer ordered, or the store of the pool.
    """
    if frozen.owner_store_id:
        return frozen.owner_store_id
    owner = guides.get(guide_of(frozen.owner))
    return owner.store_at(frozen.as_of_time) if owner else frozen.selling_store_id


def without_buyer(
    whole: Attribution, guides: Mapping[str, Guide], self_purchase: SelfPurchase
) -> Attribution:
    """The attribution without the guide who is the buyer herself, unless the plan pays her.

    She alone is taken out: the stores that the sale counts for, the manager of the owner's store and her
    colleagues are who they would be if another had bought.
    """
    if self_purchase is SelfPurchase.PAY or not whole.member_id:
        return whole
    filled = whole.payees()
    hers = {
        role: payee
        for role, payee in filled.items()
        if (guide := guides.get(guide_of(payee))) and whole.member_id in guide.member_ids
    }
    others = {role: payee for role, payee in filled.items() if role not in hers}
    basis = OwnerBasis.SELF_PURCHASE if PayeeRole.OWNER in hers else whole.owner_basis
    return replace(whole.filled_by(others), owner_basis=basis, self_purchases=hers)


def decided_anew(frozen: Attribution, bound: StandingBinding, known_at: datetime) -> Attribution:
    """An attribution decided again from what is known by now of the buyer and his binding.

    The owner and the owner's store are decided anew, and who of all is the buyer is to be (`without_buyer`).
    Everybody else, the stores that sold, the plan and all that was said of the buyer stay as frozen.
    """
    payees = {**frozen.payees(), **frozen.self_purchases}
    referrer, serving = payees.get(PayeeRole.REFERRER_1, ""), payees.get(PayeeRole.SERVING, "")
    owner, basis = _owner(bound, referrer, serving, frozen.selling_store_id)
    return replace(
        frozen.filled_by({**payees, PayeeRole.OWNER: owner}),
        member_id=bound.member_id,
        binding_id=bound.binding_id,
        owner_basis=basis,
        owner_store_id=bound.store_id,
        known_at_time=known_at,
        self_purchases={},
    )
