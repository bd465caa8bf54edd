"""What a watch of a brand's bindings tells when: everything at least once, each member's changes in order.

The primary stamps a change when its write begins, and readers see it when most of its followers have it. So
what was recorded lately may be seen late, behind what was recorded after it. A watch takes a time for settled
`OVERLAP` after it; what is later it looks at again, and remembers what it told of it. What it could not
remember, in the flood of an import say, it tells when that is settled.

It looks in two ways. A sweep goes over all that is not settled; from a sweep to the next, quicker looks go
over the last seconds. Of a member whom it does not remember it tells all since `Progress.since`, which rises
when a sweep has come to its end: until then, whoever was passed may have gone on to a later place with what
was not told. The place of a sweep rises with every page, so that also a watch that is cut off time and again
while a million members change comes to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar, Final, Protocol

from chassis.times import EPOCH
from svc_members.binding.store_binding_watch import Recorded
from svc_members.rules.changes import Change, Place, Progress, changes

OVERLAP: Final = timedelta(seconds=60)
"""Longest that a write takes from its stamp until it can be read; the clocks of primaries differ by less."""
RECENT: Final = timedelta(seconds=5)
"""What quick looks go over. What is seen later than that is told by the next sweep."""
PAGE: Final = 500
REMEMBERED_MAX: Final = 20_000
"""Members of whom a watch remembers what it told: some 4 MB."""

FROM_START: Final = Progress(EPOCH, Place(EPOCH))

Told = tuple[str, Change]
"""A member's id and a change of him."""


class Recordings(Protocol):
    """What is recorded, as `svc_members.binding.store_binding_watch` reads it."""

    async def majority_time(self) -> datetime:
        """By when all that was written can be read."""

    async def page(self, brand_id: str, after: Place, size: int) -> list[Place]:
        """Members after a place, by the time of their last recording, then by id."""

    async def changed(self, brand_id: str, member_ids: Sequence[str], after: datetime) -> list[Recorded]:
        """What was recorded of some members after a time."""


class Watch:
    """One watch. `progress` is what a resume token holds."""

    LOOK_EVERY_S: ClassVar = 0.5
    SWEEP_EVERY_S: ClassVar = 10.0

    def __init__(self, recordings: Recordings, brand_id: str, progress: Progress) -> None:
        self.progress = progress
        self._recordings = recordings
        self._brand_id = brand_id
        self._swept_time = progress.since
        self._told: dict[str, datetime] = {}
        """By member id, up to when he was told."""

    @classmethod
    async def from_now(cls, recordings: Recordings, brand_id: str) -> Watch:
        """A watch that tells what is recorded from now on."""
        settled = await recordings.majority_time() - OVERLAP
        watch = cls(recordings, brand_id, Progress(settled, Place(settled)))
        place = watch.progress.place
        while page := await recordings.page(brand_id, place, PAGE):
            watch._told.update({one.member_id: one.time for one in page})
            place = page[-1]
            if not watch._has_room():
                break
        return watch

    async def told(self) -> AsyncGenerator[list[Told], None]:
        """For ever: changes, or none after a look that found none."""
        while True:
            sweep_again_s = time.monotonic() + self.SWEEP_EVERY_S
            async with contextlib.aclosing(self.sweep()) as found:
                async for told in found:
                    yield told
            while time.monotonic() < sweep_again_s:
                yield []
                await asyncio.sleep(self.LOOK_EVERY_S)
                async with contextlib.aclosing(self.look()) as found:
                    async for told in found:
                        yield told

    async def sweep(self) -> AsyncGenerator[list[Told], None]:
        """Goes over all that is not settled; at the end all that was when it began is behind the watch."""
        self._swept_time = await self._recordings.majority_time()
        begun = settled = self._swept_time - OVERLAP
        self.progress = self.progress.not_after(begun)
        place = self.progress.place
        while self._has_room() or place.time <= settled:
            settled = await self._recordings.majority_time() - OVERLAP
            page = await self._recordings.page(self._brand_id, place, PAGE)
            told = await self._tell(page)
            if len(page) < PAGE:
                self.progress = Progress(begun, Place(settled))
            else:
                place = page[-1]
                passed = place if place.time <= settled else Place(settled)
                self.progress = replace(self.progress, place=passed)
            if told:
                yield told
            if len(page) < PAGE:
                self._forget(begun)
                break

    async def look(self) -> AsyncGenerator[list[Told], None]:
        """Goes over what was recorded since just before the last sweep."""
        place = Place(self._swept_time - RECENT)
        while self._has_room():
            page = await self._recordings.page(self._brand_id, place, PAGE)
            if told := await self._tell(page):
                yield told
            if len(page) < PAGE:
                break
            place = page[-1]

    async def _tell(self, page: Sequence[Place]) -> list[Told]:
        """The changes, not told before, of the members on a page."""
        since = self.progress.since
        untold = [one.member_id for one in page if one.time > self._told.get(one.member_id, since)]
        if not untold:
            return []
        told: list[Told] = []
        for found in await self._recordings.changed(self._brand_id, untold, since):
            after = self._told.get(found.member_id, since)
            told += [(found.member_id, change) for change in changes(found.rows, after, found.until)]
            # Of a full memory only who went on while settled pages were read can make more.
            if found.member_id in self._told or len(self._told) < REMEMBERED_MAX:
                self._told[found.member_id] = found.until
        return told

    def _has_room(self) -> bool:
        """Whether what is told of another page can be remembered."""
        if len(self._told) + PAGE > REMEMBERED_MAX:
            self._forget(self.progress.place.time)
        return len(self._told) + PAGE <= REMEMBERED_MAX

    def _forget(self, before: datetime) -> None:
        self._told = {member_id: until for member_id, until in self._told.items() if until > before}
