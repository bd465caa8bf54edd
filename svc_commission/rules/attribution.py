"""Whose sale an order is: decided once, from what was known when its first event was stored, then frozen."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

FLAGSHIP_CHANNELS = frozenset({"TMALL", "TAOBAO"})
"""Channels on which the brand's flagship shop sells."""


class OwnerBasis(enum.StrEnum):
    """Why the owner is the owner."""

    BINDING = "BINDING"
    STORE_POOL = "STORE_POOL"


def guide_payee(guide_id: str) -> str:
    """The payee that a guide is: `guide:` and her id."""
    return f"guide:{guide_id}"


def pool_payee(store_id: str) -> str:
    """The payee that a store's common pool is: `pool:` and the store's id."""
    return f"pool:{store_id}"


@dataclass(frozen=True, slots=True)
class StandingBinding:
    """The buyer, and the binding row that held when he ordered. Empty strings: unknown, or nobody's."""

    member_id: str
    binding_id: str
    guide_id: str
    store_id: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose sale it is. Ids are empty where there is nobody; `plan_id` empty: no plan, nothing earned."""

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

    def credited_stores(self) -> list[str]:
        """The stores that the sale is counted for, each once."""
        named = (self.selling_store_id, self.owner_store_id, self.flagship_store_id)
        return list(dict.fromkeys(store_id for store_id in named if store_id))


def attributed(
    bound: StandingBinding,
    *,
    selling_store_id: str,
    flagship_store_id: str,
    as_of_time: datetime,
    known_at_time: datetime,
    plan_id: str,
    time_zone: str,
) -> Attribution:
    """The frozen attribution. `selling_store_id` empty: the flagship sold.

    The owner is whom the standing binding names, a guide or a store's pool; else the pool of the store
    that sold.
    """
    seller = selling_store_id or flagship_store_id
    by_binding = bool(bound.binding_id)
    bound_to = guide_payee(bound.guide_id) if bound.guide_id else pool_payee(bound.store_id)
    return Attribution(
        member_id=bound.member_id,
        binding_id=bound.binding_id,
        owner=bound_to if by_binding else pool_payee(seller),
        owner_basis=OwnerBasis.BINDING if by_binding else OwnerBasis.STORE_POOL,
        selling_store_id=seller,
        owner_store_id=bound.store_id,
        flagship_store_id=flagship_store_id,
        as_of_time=as_of_time,
        known_at_time=known_at_time,
        plan_id=plan_id,
        time_zone=time_zone,
    )
