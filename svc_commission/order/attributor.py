"""Attributes orders: asks the members service once for many, freezes the answers, parks what must wait."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.errors import Unavailable
from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1.binding_pb2 import BindingQuery
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.order import documents
from svc_commission.rules import attribution, plan
from svc_commission.rules.attribution import (
    FLAGSHIP_CHANNELS,
    Attribution,
    Facts,
    Guide,
    OpenedLink,
    StandingBinding,
)
from svc_commission.rules.plan import Plan, SelfPurchase

RETRY_AFTER: Final = timedelta(seconds=6)
"""Longer than the 5 s for which members refuses to say what was known."""
_NOBODY: Final = StandingBinding("", "", "", "")
_PENDING: Final = ("ATTRIBUTION_PENDING", "the members service cannot be asked now")


@dataclass(frozen=True, slots=True)
class _Sale:
    """What an order's events say of the sale, and the plan it falls under. Empty strings: nothing.

    `shop` is a channel and a shop id, where a store is to be found by it. `link`: if it counts.
    """

    order: Document
    plan: Plan | None
    shop: tuple[str, str] | None
    store_id: str
    serving_guide_id: str
    link: OpenedLink | None

    def guide_ids(self) -> list[str]:
        """The guides who had a part in it."""
        makers = (self.link.maker_guide_id, self.link.parent_maker_guide_id) if self.link else ()
        return [guide_id for guide_id in (self.serving_guide_id, *makers) if guide_id]

    def unknown(
        self, stores: Collection[str], shops: Collection[tuple[str, str]], guides: Collection[str]
    ) -> tuple[str, str] | None:
        """Reason and message of what the directory does not know of it yet."""
        if self.store_id and self.store_id not in stores:
            return "STORE_UNKNOWN", "the selling store is not in the directory"
        if self.shop and self.shop not in shops:
            return "SHOP_UNKNOWN", "no store of the directory holds the shop"
        if not all(guide_id in guides for guide_id in self.guide_ids()):
            return "GUIDE_UNKNOWN", "a guide of the sale is not in the directory"
        return None

    def facts(self, held_by: str, time_zone: str) -> Facts:
        """For the rules. `held_by`: the store that holds the shop."""
        return Facts(
            selling_store_id=self.store_id or held_by,
            flagship_store_id=held_by if self.order["channel"] in FLAGSHIP_CHANNELS else "",
            serving_guide_id=self.serving_guide_id,
            campaign_id=_first(self.order, "campaign_id") or "",
            member_tier=_first(self.order, "member_tier") or "",
            link=self.link,
            as_of_time=self.order["placed_time"],
            known_at_time=self.order["first_stored_time"],
            time_zone=time_zone,
        )


class Attributor:
    """Decides whose sale orders are, each once."""

    def __init__(self, members: MembersClient, sealer: Sealer) -> None:
        self._members = members
        self._sealer = sealer

    async def attribute(
        self,
        brand_id: str,
        orders: Sequence[Document],
        plans: Sequence[Plan],
        facts: BrandFacts | None,
        now: datetime,
    ) -> None:
        """Sets `attribution` on the orders that have none, or `parked` with the reason why not yet."""
        waiting = [order for order in orders if order["attribution"] is None]
        # An order whose first event was stored a moment ago can be asked about as known now, or as
        # known then once members will say so; nothing in between gives an answer that stays.
        settled = [
            order
            for order in waiting
            if order["first_stored_time"] == now or order["first_stored_time"] + RETRY_AFTER <= now
        ]
        reasons: dict[str, tuple[str, str]] = {}
        if settled and facts is not None:
            with contextlib.suppress(Unavailable):
                reasons = await self._freeze(brand_id, settled, plans, facts, now)
        for order in waiting:
            if order["attribution"] is None:
                reason, message = reasons.get(order["_id"], _PENDING)
                retry = max(now, order["first_stored_time"]) + RETRY_AFTER
                order["parked"] = {"reason": reason, "message": message, "retry_time": retry}
            else:
                order.pop("parked", None)

    async def _freeze(
        self,
        brand_id: str,
        orders: Sequence[Document],
        plans: Sequence[Plan],
        facts: BrandFacts,
        now: datetime,
    ) -> dict[str, tuple[str, str]]:
        """Attributes the orders that can be; reason and message of each that cannot, by key.

        Raises: Unavailable when the members service cannot be asked.
        """
        sales = [_sale(order, plans) for order in orders]
        stores, shops = await self._members.find_stores(
            brand_id,
            [sale.store_id for sale in sales if sale.store_id],
            [sale.shop for sale in sales if sale.shop],
        )
        guides = await self._members.find_guides(
            brand_id, [guide_id for sale in sales for guide_id in sale.guide_ids()]
        )
        reasons: dict[str, tuple[str, str]] = {}
        ready = []
        for sale in sales:
            if sale.order["currency_code"] != facts.currency_code:
                reasons[sale.order["_id"]] = "CURRENCY_NOT_OF_BRAND", f"the brand's is {facts.currency_code}"
            elif unknown := sale.unknown(stores, shops, guides):
                reasons[sale.order["_id"]] = unknown
            else:
                ready.append(sale)
        bindings = await self._bindings(brand_id, [sale.order for sale in ready], now)
        frozen = [
            attribution.attributed(
                bound,
                sale.facts(shops[sale.shop] if sale.shop else "", facts.time_zone),
                plan_id=sale.plan.plan_id if sale.plan else "",
            )
            for sale, bound in zip(ready, bindings, strict=True)
        ]
        managers = await self._managers(brand_id, frozen, guides)
        whole = [replace(one, store_manager=manager) for one, manager in zip(frozen, managers, strict=True)]
        decided = await self._without_buyers(brand_id, whole, plans)
        for sale, one in zip(ready, decided, strict=True):
            sale.order["attribution"] = documents.attribution_document(one)
        return reasons

    async def anew(
        self, brand_id: str, orders: Sequence[Document], plans: Sequence[Plan], now: datetime
    ) -> list[Attribution]:
        """Whose sale each order is by what is known now; all of them were attributed. Changes none.

        Raises: Unavailable when the members service cannot be asked.
        """
        bindings = await self._bindings(brand_id, orders, None)
        whole = [
            attribution.decided_anew(documents.attribution_of(order["attribution"]), bound, now)
            for order, bound in zip(orders, bindings, strict=True)
        ]
        return await self._without_buyers(brand_id, whole, plans, anew=True)

    async def _without_buyers(
        self, brand_id: str, whole: Sequence[Attribution], plans: Sequence[Plan], *, anew: bool = False
    ) -> list[Attribution]:
        """The attributions without the guides who bought themselves, where the plan pays nothing for it."""
        named = {
            guide_id
            for one in whole
            if one.member_id
            for payee in one.payees().values()
            if (guide_id := attribution.guide_of(payee))
        }
        guides = await self._members.find_guides(brand_id, list(named), anew=anew)
        pays = {one.plan_id: one.self_purchase for one in plans}
        return [
            attribution.without_buyer(one, guides, pays.get(one.plan_id, SelfPurchase.NOTHING))
            for one in whole
        ]

    async def _managers(
        self, brand_id: str, frozen: Sequence[Attribution], guides: Mapping[str, Guide]
    ) -> list[str]:
        """The payee who manages the owner's store of each sale; empty where nobody does, or she had left."""
        managed = [attribution.managed_store(one, guides) for one in frozen]
        managers, _ = await self._members.find_stores(brand_id, managed, [])
        named = [managers.get(store_id, "") for store_id in managed]
        known = await self._members.find_guides(brand_id, [guide_id for guide_id in named if guide_id])
        return [
            attribution.guide_payee(guide_id)
            if guide_id in known and known[guide_id].employed_at(one.as_of_time)
            else ""
            for guide_id, one in zip(named, frozen, strict=True)
        ]

    async def _bindings(
        self, brand_id: str, orders: Sequence[Document], now: datetime | None
    ) -> list[StandingBinding]:
        """The binding of each order's buyer when he ordered, as known when its first event was stored.

        `now` None: as known now.
        """
        queries = [self._query(order, now) for order in orders]
        asked = [query for query in queries if query is not None]
        answers = iter(await self._members.resolve(brand_id, asked) if asked else [])
        return [_NOBODY if query is None else next(answers) for query in queries]

    def _query(self, order: Document, now: datetime | None) -> BindingQuery | None:
        """The question about an order's buyer. None: an anonymous sale."""
        buyer = _first(order, "buyer")
        if buyer is None:
            return None
        query = BindingQuery(as_of_time=to_timestamp(order["placed_time"]))
        if now is not None and order["first_stored_time"] != now:
            query.known_at_time.CopyFrom(to_timestamp(order["first_stored_time"]))
        if "member_id" in buyer:
            query.member_id = buyer["member_id"]
        else:
            opened = self._sealer.opened(bytes(buyer["identity"]), order["_id"])
            query.identity.CopyFrom(Identity.FromString(opened))
        return query


def _by_time(order: Document) -> list[Document]:
    return sorted(order["events"], key=lambda event: (event["happened_time"], event["event_id"]))


def _first(order: Document, field: str) -> Any:
    """What the earliest event says that names it; None: none does."""
    return next((event[field] for event in _by_time(order) if event.get(field)), None)


def _sale(order: Document, plans: Sequence[Plan]) -> _Sale:
    in_force = plan.in_force(plans, order["placed_time"])
    store_id = _first(order, "selling_store_id") or ""
    shop_id = _first(order, "shop_id") or ""
    # The shop is looked up if the channel or the lack of a store asks for it.
    by_shop = bool(shop_id) and (order["channel"] in FLAGSHIP_CHANNELS or not store_id)
    named = _first(order, "share_link")
    link = OpenedLink(**named) if named else None
    hours = in_force.share_link_hours if in_force else plan.SHARE_LINK_HOURS_DEFAULT
    counts = link is not None and link.counts(order["placed_time"], timedelta(hours=hours))
    return _Sale(
        order=order,
        plan=in_force,
        shop=(order["channel"], shop_id) if by_shop else None,
        store_id=store_id,
        serving_guide_id=_first(order, "serving_guide_id") or "",
        link=link if counts else None,
    )
