"""The commission service's background rounds: finishing relays, attributing parked orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import groupby

from chassis.background import Round
from chassis.clock import Now
from svc_commission.attributor import RETRY_AFTER
from svc_commission.ingest import Ingest
from svc_commission.store_order import OrderStore

MOST = 200
"""Orders of one round."""
RELAY_AFTER = timedelta(seconds=2)
"""Younger relays are still in the hands of the call that wrote them."""


class Rounds:
    """The two kinds of rounds."""

    def __init__(self, orders: OrderStore, ingest: Ingest, now: Now) -> None:
        self._orders = orders
        self._ingest = ingest
        self._now = now

    def all(self) -> Mapping[str, Round]:
        """By name."""
        return {"relay": self.relay, "settle": self.settle}

    async def relay(self) -> bool:
        """Relays what a crash left between order and journal."""
        orders = await self._orders.unrelayed(self._now() - RELAY_AFTER, MOST)
        await self._orders.relay(orders)
        return len(orders) == MOST

    async def settle(self) -> bool:
        """Tries orders again whose attribution is due."""
        now = self._now()
        orders = await self._orders.parked(now, MOST)
        if orders:
            await self._orders.put_off(orders, now + RETRY_AFTER)
        by_brand = sorted(orders, key=lambda order: order["brand_id"])
        for _brand_id, group in groupby(by_brand, key=lambda order: order["brand_id"]):
            await self._ingest.settle(list(group))
        return len(orders) == MOST
