"""Buyers' identities in stored events: sealed, and only for as long as they are needed.

By it the members service is asked whose sale it is. Once the answer names a member, his id takes its place.
Where nobody knows the buyer he may be enrolled later, and a reattribution then asks again; but an erasure in
the members service does not reach what stands here, so it is not kept for longer than `KEPT`.

Events that come again are known by the hash of their body, which needs none of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from daogou.commission.v1.order_event_pb2 import OrderEvent

KEPT: Final = timedelta(days=180)
"""Two quarters: by then what a season sold can no longer be returned, and who recruited whom is settled."""
IDENTITY_DUE: Final = "identity_due_time"
"""When what is kept of buyers' identities is to be dropped, whoever they are."""


def settle(order: Document, now: datetime) -> None:
    """Drops the identities that an order needs no longer, or says by when the others are to be.

    One that was not attributed yet needs them.
    """
    if order["attribution"] is None or not any(_identified(event) for event in order["events"]):
        return
    member_id, due = order["attribution"]["member_id"], order["first_stored_time"] + KEPT
    if member_id or due <= now:
        buyer = {"member_id": member_id} if member_id else {}
        order["events"] = [
            {**event, "buyer": buyer} if _identified(event) else event for event in order["events"]
        ]
        order.pop(IDENTITY_DUE, None)
    else:
        order[IDENTITY_DUE] = due


def _identified(event: Document) -> bool:
    return "identity" in event.get("buyer", ())


def quarantined(message: OrderEvent, order_key: str, now: datetime, sealer: Sealer) -> Document:
    """An event's body for the quarantine: sealed, and the buyer's identity apart, to be dropped by itself."""
    if not message.HasField("identity"):
        return {"body": sealer.sealed(message.SerializeToString(), order_key)}
    rest = OrderEvent()
    rest.CopyFrom(message)
    rest.ClearField("identity")
    return {
        "body": sealer.sealed(rest.SerializeToString(), order_key),
        "identity": sealer.sealed(message.identity.SerializeToString(), order_key),
        IDENTITY_DUE: now + KEPT,
    }
