"""The commission service's background rounds: what must be done without anybody calling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import groupby

from prometheus_client import Gauge

from chassis import crash
from chassis.background import Round
from chassis.clock import Now
from chassis.mongo.connection import Document
from svc_commission.order.attributor import RETRY_AFTER
from svc_commission.order.booking import Booking
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import CONFIRM_DUE, PARKED, OrderStore

MOST = 200
"""Orders of one round."""
STUCK_COUNTED_MOST = 10_000
CONFIRMED = "CONFIRMED"
NOT_FIRST_PURCHASE = "NOT_FIRST_PURCHASE"
RELAY_AFTER = timedelta(seconds=2)
"""Younger relays are still in the hands of the call that wrote them."""

_PARKED_PUT_OFF = crash.point("parked_put_off")
_CONFIRMABLE_PUT_OFF = crash.point("confirmable_put_off")
_DISPLACED_PUT_OFF = crash.point("displaced_put_off")
_DISPLACED_MADE_ANEW = crash.point("displaced_made_anew")

STUCK = Gauge(
    "daogou_commission_hold_stuck_orders",
    "Orders paid 60 days ago of which nothing was sent or received, while commission is held; up to 10,000.",
)


class Rounds:
    """The kinds of rounds. Orders that somebody else writes meanwhile are found again by the next one."""

    def __init__(
        self, orders: OrderStore, first_purchases: FirstPurchaseStore, booking: Booking, now: Now
    ) -> None:
        self._orders = orders
        self._first_purchases = first_purchases
        self._booking = booking
        self._now = now

    def all(self) -> Mapping[str, Round]:
        """By name."""
        return {
            "relay": self.relay,
            "settle": self.settle,
            "confirm": self.confirm,
            "displaced": self.displaced,
            "stuck": self.stuck,
            "identities": self.identities,
        }

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
            await self._orders.put_off(orders, PARKED, now + RETRY_AFTER)
            _PARKED_PUT_OFF.reached()
        for of_brand in _by_brand(orders):
            await self._booking.settle(of_brand)
        return len(orders) == MOST

    async def confirm(self) -> bool:
        """Makes payable what was held until now."""
        now = self._now()
        due = await self._orders.confirmable(now, MOST)
        if due:
            await self._orders.put_off(due, CONFIRM_DUE, now + RETRY_AFTER)
            _CONFIRMABLE_PUT_OFF.reached()
        for of_brand in _by_brand([{**order, "confirmed_through_time": now} for order in due]):
            await self._booking.rebook(of_brand, CONFIRMED)
        return len(due) == MOST

    async def displaced(self) -> bool:
        """Makes the books of orders anew that turned out not to be a member's first."""
        now = self._now()
        records = await self._first_purchases.displaced(now, MOST)
        if records:
            await self._first_purchases.put_off(records, now, RETRY_AFTER)
            _DISPLACED_PUT_OFF.reached()
        found = await self._orders.find_many([key for record in records for key in record["displaced"]])
        made_anew = set(found)
        for of_brand in _by_brand([_without(order, "first_purchase") for order in found.values()]):
            made_anew -= await self._booking.rebook(of_brand, NOT_FIRST_PURCHASE)
        if made_anew:
            _DISPLACED_MADE_ANEW.reached()
        # Whoever wrote one of them meanwhile is done soon: it need not wait for as long as one that may
        # never be there.
        contended = found.keys() - made_anew
        await self._first_purchases.hasten(
            [record for record in records if not contended.isdisjoint(record["displaced"])], now + RETRY_AFTER
        )
        # An order that is not there is still in the hands of the call that noted it, and may be written as
        # the first after all: it stays displaced.
        await self._first_purchases.settled(
            {record["_id"]: [key for key in record["displaced"] if key in made_anew] for record in records}
        )
        return len(records) == MOST

    async def stuck(self) -> bool:
        """Counts the orders that somebody should look at."""
        STUCK.set(await self._orders.stuck(self._now(), STUCK_COUNTED_MOST))
        return False

    async def identities(self) -> bool:
        """Drops the buyers' identities that were kept for long enough."""
        return await self._orders.drop_identities(self._now(), MOST)


def _without(order: Document, field: str) -> Document:
    return {name: value for name, value in order.items() if name != field}


def _by_brand(orders: Sequence[Document]) -> list[list[Document]]:
    by_brand = sorted(orders, key=lambda order: order["brand_id"])
    return [list(group) for _, group in groupby(by_brand, key=lambda order: order["brand_id"])]
