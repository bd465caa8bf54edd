"""What was asked a moment ago and need not be asked again yet: a bounded memory, whose answers grow old."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, Generic, TypeVar

KEPT_MAX: Final = 100_000

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Keeps values for `ttl_s` seconds; the oldest goes first when there are too many."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, unless it is too old. None: it must be asked for."""
        found = self._kept.get(key)
        return found[1] if found and found[0] + self._ttl_s > time.monotonic() else None

    def put(self, key: K, value: V) -> None:
        """Keeps a value from now on."""
        self._kept[key] = (time.monotonic(), value)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
