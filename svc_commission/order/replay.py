"""Many orders computed again, beside calls that must not wait for it: some at once, a little at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from chassis.errors import Overloaded
from chassis.mongo.connection import Document
from svc_commission.order.store_replay import parts_of

REPLAYS_MAX: Final = 4
_TURN_S: Final = 0.002
_LARGE_PARTS: Final = 200
"""An order with more is computed in a thread: by itself it would take longer than a turn should."""
_TOLD_EVERY_S: Final = 0.5

T = TypeVar("T")


class Replays:
    """Those in progress. Each wants a processor for itself; beyond a few, none would come to an end."""

    def __init__(self) -> None:
        self._running = 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[Turns]:
        """Begins one. Raises: Overloaded TOO_MANY_REPLAYS."""
        if self._running >= REPLAYS_MAX:
            raise Overloaded(
                "TOO_MANY_REPLAYS", "this replica has enough to compute for others", retry_after_s=5.0
            )
        self._running += 1
        try:
            yield Turns()
        finally:
            self._running -= 1


class Turns:
    """Computes orders one by one, and lets others have their turn in between.

    In the event loop, because a thread would make each call wait some milliseconds for the interpreter
    whenever it goes on.
    """

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self._told_s = 0.0

    async def computed(self, order: Document, compute: Callable[[], T]) -> T:
        """What comes of an order."""
        if parts_of(order) > _LARGE_PARTS:
            return await asyncio.to_thread(compute)
        if time.perf_counter() - self._began_s >= _TURN_S:
            await asyncio.sleep(0)
            self._began_s = time.perf_counter()
        return compute()

    def due(self) -> bool:
        """Whether it is time to tell how far it has come."""
        now_s = time.perf_counter()
        if now_s - self._told_s < _TOLD_EVERY_S:
            return False
        self._told_s = now_s
        return True
