"""Business months, of the brand's calendar: they begin at its local midnight. Where what is posted belongs.

A month is written as its first day. Months close in order; what belongs to a closed month and becomes known
later is posted in the earliest month that is open.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from chassis.errors import Refused


def month_of(time: datetime, zone: ZoneInfo) -> date:
    """The month that a moment falls into."""
    return time.astimezone(zone).date().replace(day=1)


def next_month(month: date) -> date:
    """The month after it."""
    return (month + timedelta(days=31)).replace(day=1)


def month_end(month: date, zone: ZoneInfo) -> datetime:
    """When a month ends: the local midnight with which the next begins. In UTC."""
    after = next_month(month)
    return datetime(after.year, after.month, 1, tzinfo=zone).astimezone(UTC)


def posting_month(origin: date, first_open: date | None) -> date:
    """The month that what belongs to `origin` is posted in. `first_open` None: none has been closed."""
    return origin if first_open is None or origin >= first_open else first_open


def check_closable(
    month: date, first_open: date | None, earliest_posted: date | None, now: datetime, zone: ZoneInfo
) -> None:
    """Whether a month may be closed now: it is over, and the first that is open.

    `first_open` None: none was closed; then the first to be closed is the earliest with anything posted.
    Raises: Refused MONTH_NOT_OVER, MONTH_NOT_NEXT.
    """
    if now < month_end(month, zone):
        raise Refused("MONTH_NOT_OVER", f"it ends at {month_end(month, zone):%F %T} UTC")
    due = first_open or min(earliest_posted or month, month)
    if month != due:
        raise Refused("MONTH_NOT_NEXT", f"months are closed in order: the next is {due:%Y-%m}")
