"""What reads members and writes them is done again where somebody else wrote one of them in between."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from chassis import backoff
from chassis.errors import Conflict
from svc_members.member.store_identity import MEMBER_CHANGED

T = TypeVar("T")

_ATTEMPTS: Final = 20


async def until_unchanged(act: Callable[[], Awaitable[T]]) -> T:
    """What an act returns that reads again each time. Raises: Conflict, when that goes on and on."""
    for attempt in itertools.count():
        try:
            return await act()
        except Conflict as conflict:
            if conflict.reason != MEMBER_CHANGED or attempt == _ATTEMPTS:
                raise
        await backoff.pause(attempt)
    raise AssertionError("unreachable: the loop returns or raises")
