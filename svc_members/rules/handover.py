"""Handing a guide's members to others: who is offered whom, and when an offer ends by itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

ANSWER_WITHIN: Final = timedelta(hours=24)
OFFERS_MAX: Final = 2
"""Most offers of one member within `OFFERS_WITHIN`."""
OFFERS_WITHIN: Final = timedelta(days=90)


class Spread(enum.StrEnum):
    """How members are spread over several takers."""

    TURN = "TURN"
    LOAD = "LOAD"


class OfferState(enum.StrEnum):
    """What became of one offer."""

    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    LOST = "LOST"


def taker_of(index: int, takers: Sequence[str], spread: Spread, loads: Mapping[str, int]) -> str:
    """Who is offered the member at a place in the handover, counted from 0.

    `loads`: members that each taker has, offers of this handover included. Ties go by the takers' order.
    Raises: ValueError without takers.
    """
    if not takers:
        raise ValueError("there is no taker")
    if spread is Spread.TURN:
        return takers[index % len(takers)]
    return min(takers, key=lambda taker: loads.get(taker, 0))


def may_offer(earlier_offers: Sequence[datetime], now: datetime) -> bool:
    """Whether a member who was offered at those times may be offered again."""
    recent = [time for time in earlier_offers if time > now - OFFERS_WITHIN]
    return len(recent) < OFFERS_MAX
