"""Waiting before another attempt, so that those who collided do not collide again."""

from __future__ import annotations

import asyncio
import random

_FIRST_S = 0.005
_MOST_S = 0.25


def pause_s(attempt: int) -> float:
    """How long to wait after the given attempt (from 0): doubling, with jitter, at most 0.375 s."""
    longest_s = min(_FIRST_S * 2.0**attempt, _MOST_S)
    return longest_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter keeps no secret


async def pause(attempt: int) -> None:
    """Waits that long."""
    await asyncio.sleep(pause_s(attempt))
