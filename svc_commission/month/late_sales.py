"""Sales that became known after their month closed: rated by what the close found, or anew, as plans say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from chassis.clock import Now
from chassis.mongo.connection import Document
from svc_commission.month import owner_sales
from svc_commission.month.store_month import MonthStore
from svc_commission.month.store_owner_sales import OwnerSalesStore
from svc_commission.order.booking import Booking
from svc_commission.order.documents import month_of
from svc_commission.order.store_order import OrderStore

MOST: Final = 100
"""Orders of one round."""
RETRY_AFTER: Final = timedelta(seconds=6)
LATE_SALES: Final = "LATE_SALES"


class LateSales:
    """The round that rates them. What is posted by it is posted in the open month, as by any other."""

    def __init__(
        self, orders: OrderStore, sales: OwnerSalesStore, months: MonthStore, booking: Booking, now: Now
    ) -> None:
        self._orders = orders
        self._sales = sales
        self._months = months
        self._booking = booking
        self._now = now

    async def round(self) -> bool:
        """Rates some of them."""
        now = self._now()
        late = await self._sales.late(now, MOST)
        if late:
            await self._orders.put_off(late, owner_sales.LATE_DUE, now + RETRY_AFTER)
        for order in late:
            await self._rate(order)
        return len(late) == MOST

    async def _rate(self, order: Document) -> None:
        """Rates an order, and those of the same owner whose month it changes."""
        brand_id, owner = order["brand_id"], order["attribution"]["owner"]
        first_open = await self._months.first_open(brand_id)
        closing = await self._months.closing(brand_id)
        rated = {name: value for name, value in order.items() if name != "late_sales"}
        others: dict[str, Document] = {}
        for month in order["late_sales"]["months"]:
            if month == closing or first_open is None or month_of(month) >= first_open:
                # Whoever closes it rates what is due; what comes later is looked at when he is done.
                return
            sold = await self._sales.refresh(brand_id, month, owner)
            amounts = sold["sales_minor"], sold["latest_minor"]
            changed = await self._sales.rated(brand_id, month, owner, sold["latest_minor"])
            for other in changed:
                others[other["_id"]] = owner_sales.add_closed(
                    others.get(other["_id"], other), month, *amounts
                )
            if month in order.get("tier_due", ()) or order["_id"] in others:
                rated = owner_sales.add_closed(rated, month, *amounts)
        others.pop(order["_id"], None)
        await self._rebooked(list(others.values()))
        # Last: until then it is found again, and with it the others.
        await self._rebooked([rated])

    async def _rebooked(self, orders: Sequence[Document]) -> None:
        for begin in range(0, len(orders), MOST):
            await self._booking.rebook(orders[begin : begin + MOST], LATE_SALES)
