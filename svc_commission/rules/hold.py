"""How long commission is held: until the goods are kept, as far as the channel tells.

It is confirmed the hold's days after the goods were received, or 15 days more after the last of them were
sent, whichever comes first; on a channel that tells neither, after they were paid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from svc_commission.rules.event import Event, Kind
from svc_commission.rules.plan import Hold

RECEIVED_AFTER_DISPATCH: Final = timedelta(days=15)
STUCK_AFTER: Final = timedelta(days=60)


def confirm_time(events: Iterable[Event], hold: Hold) -> datetime | None:
    """When what an order earned is confirmed; None: not as far as its events tell."""
    times: dict[Kind, list[datetime]] = {}
    for event in events:
        times.setdefault(event.kind, []).append(event.happened_time)
    if Kind.PAID not in times:
        return None
    days = timedelta(days=hold.days)
    if hold.from_payment:
        return max(times[Kind.PAID]) + days
    found = []
    if Kind.RECEIVED in times:
        found.append(min(times[Kind.RECEIVED]) + days)
    if Kind.SHIPPED in times:
        found.append(max(times[Kind.SHIPPED]) + RECEIVED_AFTER_DISPATCH + days)
    return min(found, default=None)


def stuck_time(events: Sequence[Event], hold: Hold) -> datetime | None:
    """From when on a person should look at an order: paid 60 days ago, and nothing was sent or received.

    None: never, as far as its events tell; also on a channel that would not tell.
    """
    moved = {event.kind for event in events} & {Kind.SHIPPED, Kind.RECEIVED, Kind.CLOSED}
    paid = [event.happened_time for event in events if event.kind is Kind.PAID]
    if hold.from_payment or moved or not paid:
        return None
    return max(paid) + STUCK_AFTER
