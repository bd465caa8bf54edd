"""Minutes of somebody's time as spans, `begin` included and `end` not, counted since 1970 in UTC.

Elapsed minutes, so that they need no rule for clock changes. Spans of one tuple are apart and in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from svc_vision.rules.local_time import MINUTE

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """Minutes from `begin` until before `end`."""

    begin: int
    end: int


def minute_of(time: datetime) -> int:
    """The minute that a moment lies in: 09:00:59 is 09:00."""
    return (time - EPOCH) // MINUTE


def minute_after(time: datetime) -> int:
    """The first minute that begins at a moment or after it: 17:59:01 is 18:00."""
    return -((EPOCH - time) // MINUTE)


def without(spans: Iterable[Span], cut: Span) -> tuple[Span, ...]:
    """What is left of the spans. Example: 9 to 18 without 12 to 13 is 9 to 12 and 13 to 18."""
    if cut.end <= cut.begin:
        return tuple(spans)
    left = []
    for span in spans:
        left += [
            Span(span.begin, min(span.end, cut.begin)),
            Span(max(span.begin, cut.end), span.end),
        ]
    return tuple(span for span in left if span.begin < span.end)


def length(spans: Iterable[Span], begin: int | None = None, end: int | None = None) -> int:
    """How many minutes the spans have from `begin` until before `end`. None: no bound."""
    return sum(
        max(
            0,
            (span.end if end is None else min(span.end, end))
            - (span.begin if begin is None else max(span.begin, begin)),
        )
        for span in spans
    )
