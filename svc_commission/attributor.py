"""Attributes orders: asks the members service once for many, freezes the answers, parks what must wait."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Unavailable
from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1.binding_pb2 import BindingQuery
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.rules import attribution, plan
from svc_commission.rules.attribution import FLAGSHIP_CHANNELS, StandingBinding
from svc_commission.rules.plan import Plan

RETRY_AFTER: Final = timedelta(seconds=6)
"""Longer than the 5 s for which members refuses to say what was known."""
_NOBODY: Final = StandingBinding("", "", "", "")
_PENDING: Final = ("ATTRIBUTION_PENDING", "the members service cannot be asked now")


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
        sellers = {order["_id"]: _seller(order) for order in orders}
        stores, shops = await self._members.find_stores(
            brand_id,
            [store_id for _, store_id in sellers.values() if store_id],
            [shop for shop, _ in sellers.values() if shop],
        )
        reasons: dict[str, tuple[str, str]] = {}
        ready = []
        for order in orders:
            shop, store_id = sellers[order["_id"]]
            if order["currency_code"] != facts.currency_code:
                reasons[order["_id"]] = "CURRENCY_NOT_OF_BRAND", f"the brand's is {facts.currency_code}"
            elif store_id and store_id not in stores:
                reasons[order["_id"]] = "STORE_UNKNOWN", "the selling store is not in the directory"
            elif shop and shop not in shops:
                reasons[order["_id"]] = "SHOP_UNKNOWN", "no store of the directory holds the shop"
            else:
                ready.append(order)
        for order, bound in zip(ready, await self._bindings(brand_id, ready, now), strict=True):
            shop, store_id = sellers[order["_id"]]
            held = shops[shop] if shop else ""
            in_force = plan.in_force(plans, order["placed_time"])
            order["attribution"] = asdict(
                attribution.attributed(
                    bound,
                    selling_store_id=store_id or held,
                    flagship_store_id=held if order["channel"] in FLAGSHIP_CHANNELS else "",
                    as_of_time=order["placed_time"],
                    known_at_time=order["first_stored_time"],
                    plan_id=in_force.plan_id if in_force else "",
                    time_zone=facts.time_zone,
                )
            )
        return reasons

    async def _bindings(
        self, brand_id: str, orders: Sequence[Document], now: datetime
    ) -> list[StandingBinding]:
        """The binding of each order's buyer when he ordered, as known when its first event was stored."""
        queries = [self._query(order, now) for order in orders]
        asked = [query for query in queries if query is not None]
        answers = iter(await self._members.resolve(brand_id, asked) if asked else [])
        return [_NOBODY if query is None else next(answers) for query in queries]

    def _query(self, order: Document, now: datetime) -> BindingQuery | None:
        """The question about an order's buyer. None: an anonymous sale."""
        buyer = next((event["buyer"] for event in _by_time(order) if event["buyer"]), None)
        if buyer is None:
            return None
        query = BindingQuery(as_of_time=to_timestamp(order["placed_time"]))
        if order["first_stored_time"] != now:
            query.known_at_time.CopyFrom(to_timestamp(order["first_stored_time"]))
        if "member_id" in buyer:
            query.member_id = buyer["member_id"]
        else:
            opened = self._sealer.opened(bytes(buyer["identity"]), order["_id"])
            query.identity.CopyFrom(Identity.FromString(opened))
        return query


def _by_time(order: Document) -> list[Document]:
    return sorted(order["events"], key=lambda event: (event["happened_time"], event["event_id"]))


def _seller(order: Document) -> tuple[tuple[str, str] | None, str]:
    """The shop to look up, if the channel or the lack of a store asks for it, and the named store."""
    events = _by_time(order)
    store_id = next((event["selling_store_id"] for event in events if event["selling_store_id"]), "")
    shop_id = next((event["shop_id"] for event in events if event["shop_id"]), "")
    by_shop = bool(shop_id) and (order["channel"] in FLAGSHIP_CHANNELS or not store_id)
    return ((order["channel"], shop_id) if by_shop else None), store_id
