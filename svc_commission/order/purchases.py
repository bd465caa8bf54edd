"""Purchases told to the members service through the outbox of orders: they keep bindings from lapsing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from chassis.mongo import outbox
from chassis.mongo.connection import Document
from chassis.mongo.outbox import Message
from svc_commission.members_client import MembersClient

KIND: Final = "purchase"
_AT_ONCE: Final = 1000
TOLD: Final = "purchase_told_time"
"""The time of the last payment that the members service was told of."""
_AGAIN: Final = frozenset({"MEMBER_CHANGED", "ACTIVITY_IN_FUTURE"})
"""Reasons that are none a moment later. With any other there is nobody to tell of: unknown, or erased."""


def tell(order: Document, now: datetime) -> None:
    """Puts a member's latest payment for an order into its outbox, once."""
    member_id = order["attribution"]["member_id"] if order["attribution"] else ""
    times = [event["happened_time"] for event in order["events"] if event["kind"] == "PAID"]
    if not member_id or not times or order.get(TOLD) == max(times):
        return
    order[TOLD] = latest = max(times)
    body = {"brand_id": order["brand_id"], "member_id": member_id, "purchase_time": latest}
    told = outbox.message(f"{KIND}|{member_id}|{latest.isoformat()}", KIND, body, now)
    order["outbox"] = [*order.get("outbox", ()), told]


class Purchases:
    """Delivers them."""

    def __init__(self, members: MembersClient) -> None:
        self._members = members

    async def deliver(self, messages: Sequence[Message]) -> list[bool]:
        """Tells of purchases, a call for each brand. Raises: Unavailable where members cannot be asked."""
        by_brand: dict[str, list[int]] = defaultdict(list)
        for place, message in enumerate(messages):
            by_brand[message.body["brand_id"]].append(place)
        outcomes = [False] * len(messages)
        for brand_id, places in by_brand.items():
            for start in range(0, len(places), _AT_ONCE):
                part = places[start : start + _AT_ONCE]
                bought = [
                    (messages[place].body["member_id"], messages[place].body["purchase_time"])
                    for place in part
                ]
                reasons = await self._members.record_purchases(brand_id, bought)
                for place, reason in zip(part, reasons, strict=True):
                    outcomes[place] = reason not in _AGAIN
        return outcomes
