"""From the clock on a site's wall to moments, also on nights on which it is put forward or back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


def moment(day: date, minute: int, time_zone: ZoneInfo) -> datetime:
    """When the wall clock shows so many minutes since the midnight with which a day begins. In UTC.

    Beyond 1,440 on the days after. A time that it shows twice is the first of the two; one that it leaves
    out is the moment at which it is put forward. So a later time of the wall is never an earlier moment.

    Examples, in New York: on 8 March 2026, when 02:00 becomes 03:00, minute 150 (02:30) is 03:00, 07:00 UTC;
    on 1 November, when 02:00 becomes 01:00, minute 90 (01:30) is 05:30 UTC, and not 06:30 UTC.
    """
    wall = datetime(day.year, day.month, day.day, tzinfo=time_zone) + minute * MINUTE
    first = wall.replace(fold=0).astimezone(UTC)
    if first.astimezone(time_zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return first
    # Left out: reckoned by the clock as it went before the change it comes after it, and the other way round.
    # Between the two the change is found by halving.
    before, after = wall.replace(fold=1).astimezone(UTC), first
    since = after.astimezone(time_zone).utcoffset()
    while after - before > MINUTE:
        middle = before + (after - before) // MINUTE // 2 * MINUTE
        if middle.astimezone(time_zone).utcoffset() == since:
            after = middle
        else:
            before = middle
    return after
