"""Which events an order takes in: what is new, what is a repeat, what contradicts an earlier one."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import DaogouError, Invalid, Refused, Violation
from svc_commission.rules.attribution import FLAGSHIP_CHANNELS
from svc_commission.rules.event import Event, Kind

AHEAD_MOST: Final = timedelta(minutes=5)
EVENTS_MAX: Final = 1000
"""Most events of one order."""

_SUFFIXED: Final = {Kind.PAID: "PAID:", Kind.SHIPPED: "SHIPPED:", Kind.REFUNDED: "REFUND:"}


class Admission(enum.StrEnum):
    """What an order does with an event."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"
    CHANGED = "CHANGED"


def problems(
    kind: Kind,
    line_ids: Sequence[str],
    refund_line_ids: Sequence[str],
    goodwill_minor: int,
    *,
    channel: str,
    shop_id: str,
    selling_store_id: str,
) -> list[Violation]:
    """What is wrong with an event whatever the order and the time. Ids: of its lines, as they stand in it."""
    found = []
    if channel in FLAGSHIP_CHANNELS and not shop_id:
        found.append(Violation("shop_id", "is required on this channel: it names the flagship"))
    elif not shop_id and not selling_store_id:
        found.append(Violation("selling_store_id", "is required where no shop_id says who sold"))
    if line_ids and kind not in (Kind.PLACED, Kind.PAID):
        found.append(Violation("lines", "come with PLACED and PAID events alone"))
    if kind is Kind.PAID and not line_ids:
        found.append(Violation("lines", "are required: what was paid for which line"))
    if (refund_line_ids or goodwill_minor) and kind is not Kind.REFUNDED:
        found.append(Violation("refund_lines", "and goodwill_minor come with REFUNDED events alone"))
    for name, ids in (("lines", line_ids), ("refund_lines", refund_line_ids)):
        if len(set(ids)) < len(ids):
            found += [
                Violation(f"{name}[{index}].line_id", "names an earlier line of the event")
                for index, line_id in enumerate(ids)
                if line_id in ids[:index]
            ]
    return found


def check_event_id(event: Event) -> None:
    """Event ids are derived from what happened. Raises: Invalid EVENT_ID_MISMATCH."""
    prefix = _SUFFIXED.get(event.kind)
    derived = (
        event.event_id == event.kind.value
        if prefix is None
        else event.event_id.startswith(prefix) and len(event.event_id) > len(prefix)
    )
    if not derived:
        form = f"{prefix}{{number}}" if prefix else event.kind.value
        raise Invalid("EVENT_ID_MISMATCH", f"the id of a {event.kind.value} event must be {form}")


def check_time(event: Event, placed_time: datetime, now: datetime) -> None:
    """Raises: Invalid EVENT_IN_FUTURE."""
    if max(event.happened_time, placed_time) > now + AHEAD_MOST:
        raise Invalid("EVENT_IN_FUTURE", "happened_time or order_placed_time is over 5 minutes ahead")


def admit(stored: Mapping[str, bytes], event_id: str, body_hash: bytes) -> Admission:
    """What to do with an event, given the hashes of the order's stored events by id.

    Raises: Refused ORDER_TOO_LARGE.
    """
    known = stored.get(event_id)
    if known is not None:
        return Admission.DUPLICATE if known == body_hash else Admission.CHANGED
    if len(stored) >= EVENTS_MAX:
        raise Refused("ORDER_TOO_LARGE", f"an order has at most {EVENTS_MAX} events")
    return Admission.NEW


def check_same_order(placed_time: datetime, event_placed_time: datetime) -> DaogouError | None:
    """An order is placed once: its events agree on when. The error PLACED_TIME_CHANGED, or None."""
    if placed_time != event_placed_time:
        return Refused("PLACED_TIME_CHANGED", f"the order is known as placed at {placed_time:%F %T} UTC")
    return None
