"""Approved reattributions carried out: each order once, whatever is cut off in between.

Whether an order was reattributed stands in the order, in `former_attributions`, written in one write with its
new books. So the work can be begun anew at any time, and by any replica.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from chassis import crash, logs
from chassis.clock import Now
from chassis.mongo.connection import Document
from svc_commission.order import documents, purchases
from svc_commission.order.attributor import RETRY_AFTER
from svc_commission.order.booking import Booking
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import OrderStore, fits
from svc_commission.reattribution.store_reattribution import ReattributionStore
from svc_commission.rules import reattribution as rules

CAUSE: Final = "REATTRIBUTED:"
"""With the reattribution's id, the cause of what it posts."""
_MOST: Final = 5
"""Reattributions of one round."""
_AT_ONCE: Final = 200
"""Orders of one write."""

_PUT_OFF = crash.point("reattribution_put_off")
_PART_WRITTEN = crash.point("reattribution_part_written")
_ALL_WRITTEN = crash.point("reattribution_all_written")
_FIRSTS_LEFT = crash.point("reattribution_firsts_left")


class CarryingOut:
    """Carries them out."""

    def __init__(
        self,
        reattributions: ReattributionStore,
        orders: OrderStore,
        firsts: FirstPurchaseStore,
        booking: Booking,
        now: Now,
    ) -> None:
        self._reattributions = reattributions
        self._orders = orders
        self._firsts = firsts
        self._booking = booking
        self._now = now
        self._log = logs.logger("reattribution")

    async def round(self) -> bool:
        """Carries some out that are due. Whether there may be more."""
        now = self._now()
        due = await self._reattributions.due(now, _MOST)
        if due:
            await self._reattributions.put_off(due, now + RETRY_AFTER)
            _PUT_OFF.reached()
        for one in due:
            if await self._carry_out(one):
                await self._reattributions.done(one, self._now())
        return len(due) == _MOST

    async def _carry_out(self, one: Document) -> bool:
        """Reattributes those of its orders that are not yet; whether all are by now."""
        changing = {item["order_key"]: item for item in one["orders"] if item.get("after")}
        keys, left = list(changing), 0
        for start in range(0, len(keys), _AT_ONCE):
            stored = await self._orders.find_many(keys[start : start + _AT_ONCE])
            left += await self._write(one, changing, list(stored.values()))
            _PART_WRITTEN.reached()
        if left:
            return False
        _ALL_WRITTEN.reached()
        await self._leave_firsts(one["brand_id"], changing)
        _FIRSTS_LEFT.reached()
        return True

    async def _write(self, one: Document, items: Mapping[str, Document], stored: Sequence[Document]) -> int:
        """Writes those of the orders that are still to be reattributed; how many could not be."""
        now = self._now()
        orders = [
            reattributed(order, items[order["_id"]], one, now) for order in stored if _awaits(order, one)
        ]
        fitting = [order for order in orders if fits(order)]
        if len(fitting) < len(orders):
            self._log.warning("too_large", reattribution=one["_id"], count=len(orders) - len(fitting))
        if not fitting:
            return 0
        return len(await self._booking.rebook(fitting, f"{CAUSE}{one['reattribution_id']}"))

    async def _leave_firsts(self, brand_id: str, items: Mapping[str, Document]) -> None:
        """Finds another first purchase for members whose first turned out to be somebody else's."""
        members = {item["before"]["member_id"] for item in items.values()} - {""}
        noted = await self._firsts.firsts(brand_id, members)
        stored = await self._orders.find_many([first["order_key"] for first in noted.values()])
        for member_id, first in noted.items():
            order = stored.get(first["order_key"])
            if order and order["attribution"]["member_id"] != member_id:
                following = await self._orders.first_paid(brand_id, member_id)
                await self._firsts.left(brand_id, member_id, order["_id"], following, self._now())


def _awaits(order: Document, one: Document) -> bool:
    """Whether an order is still to be reattributed: it was not, and nobody knew better meanwhile."""
    done = any(
        former["reattribution_id"] == one["reattribution_id"]
        for former in order.get("former_attributions", ())
    )
    standing = documents.attribution_of(order["attribution"])
    return not done and not rules.outdated(standing, one["propose_time"])


def reattributed(order: Document, item: Document, one: Document, now: datetime) -> Document:
    """An order with its new attribution, to be booked anew and written as the next revision."""
    before, after = order["attribution"], item["after"]
    former = {
        "attribution": before,
        "rev": order["rev"] + 1,
        "replaced_time": now,
        "reattribution_id": one["reattribution_id"],
    }
    stale = set()
    if after["member_id"] != before["member_id"]:
        # It is to be noted among the other's purchases, and told to be one of his.
        stale |= {"first_purchase", purchases.TOLD}
    if after["owner"] != before["owner"]:
        # The other owner sold something else in the month.
        stale.add("closed_sales")
    kept = {name: value for name, value in order.items() if name not in stale}
    formers = [*order.get("former_attributions", ()), former]
    return {**kept, "attribution": after, "former_attributions": formers}
