"""Posting leases: for how long a process may rely on which month is open, without asking.

Whoever posts holds one, and its write ends before the lease does. Whoever closes a month first says so where
leases are read, then waits until every lease of before has run out: from then on nobody posts into the month,
however slow or cut off a process may be. A lease begins before the read that it rests on, and its length is
measured by clocks that are never set, each by its own process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from chassis.errors import Unavailable
from chassis.mongo.connection import within
from svc_commission.month.store_month import MonthStore

WAITED_FOR: Final = 1.1
"""How many times as long as a lease it is waited for: no two clocks run equally fast."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A month to post in. `first_open` None: no month has been closed. `until_s` by the process's clock."""

    first_open: date | None
    until_s: float

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Writes within the block end before the lease, with an error if need be.

        Raises: Unavailable LEASE_OVER when it has run out already.
        """
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise Unavailable("LEASE_OVER", "the books may have been closed meanwhile", retry_after_s=0.1)
        with within(left_s):
            yield


class Leases:
    """The leases of this process, one for each brand, renewed when less than three quarters are left."""

    def __init__(
        self, months: MonthStore, lease_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.lease_s = lease_s
        self._months = months
        self._monotonic = monotonic
        self._held: dict[str, Lease] = {}

    async def held(self, brand_id: str) -> Lease:
        """A lease of which at least three quarters are left."""
        asked_s = self._monotonic()
        held = self._held.get(brand_id)
        if held is None or held.until_s - asked_s < self.lease_s * 0.75:
            first_open = await self._months.first_open(brand_id)
            held = self._held[brand_id] = Lease(first_open, asked_s + self.lease_s)
        return held
