"""What the commission service does without being asked: finishes relays, attributes parked orders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import groupby

from prometheus_client import Counter

from chassis import logs
from chassis.clock import Now
from svc_commission.ingest import Ingest
from svc_commission.store_order import OrderStore

EVERY_S = 1.0
MOST = 200
"""Orders of one round."""
RELAY_AFTER = timedelta(seconds=2)
"""Younger relays are still in the hands of the call that wrote them."""

FAILURES = Counter("daogou_commission_background_failures_total", "Background rounds that failed.", ["work"])


class Background:
    """The two loops. Any number of replicas may run them: every step is safe to repeat."""

    def __init__(self, orders: OrderStore, ingest: Ingest, now: Now) -> None:
        self._orders = orders
        self._ingest = ingest
        self._now = now
        self._log = logs.logger("background")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the loops until the block ends."""
        tasks = [
            asyncio.create_task(self._repeat("relay", self.relay_round)),
            asyncio.create_task(self._repeat("settle", self.settle_round)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def relay_round(self) -> int:
        """Relays what a crash left between order and journal. How many orders it saw."""
        orders = await self._orders.unrelayed(self._now() - RELAY_AFTER, MOST)
        await self._orders.relay(orders)
        return len(orders)

    async def settle_round(self) -> int:
        """Tries orders again whose attribution is due. How many it saw."""
        orders = await self._orders.parked(self._now(), MOST)
        by_brand = sorted(orders, key=lambda order: order["brand_id"])
        for _brand_id, group in groupby(by_brand, key=lambda order: order["brand_id"]):
            await self._ingest.settle(list(group))
        return len(orders)

    async def _repeat(self, work: str, round_: Callable[[], Awaitable[int]]) -> None:
        while True:
            try:
                seen = await round_()
            except Exception as error:  # noqa: BLE001 - whatever failed is found again by the next round
                FAILURES.labels(work).inc()
                self._log.warning("failed", work=work, error=type(error).__name__, exc_info=error)
                seen = 0
            await asyncio.sleep(0 if seen == MOST else EVERY_S)
