"""Lapses at work: bindings without activity end, once every feed has passed the moment."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from chassis.clock import Now
from chassis.errors import Conflict
from svc_members.binding.store_activity import ActivityStore
from svc_members.directory.entities import policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding
from svc_members.rules.binding import FOR_EVER, Cause

LAPSES_MOST: Final = 200
"""Members of one round and brand."""

LAPSED = Counter("daogou_members_lapsed_bindings_total", "Bindings that lapsed.")


class Lapses:
    """Writes the lapses that are due."""

    def __init__(
        self, directory: DirectoryStore, members: MemberStore, activity: ActivityStore, now: Now
    ) -> None:
        self._directory = directory
        self._members = members
        self._activity = activity
        self._now = now

    async def round(self) -> bool:
        """Lapses what every feed has passed. Whether some brand has more."""
        more = False
        for brand in await self._directory.brands_with_validity():
            more = await self._lapse(brand["brand_id"], policy_of(brand)) or more
        return more

    async def _lapse(self, brand_id: str, policy: binding.Policy) -> bool:
        through = await self._activity.synced_through(brand_id)
        if through is None or policy.validity_days == FOR_EVER:
            return False
        active_before = through - timedelta(days=policy.validity_days)
        due = await self._members.inactive(brand_id, active_before, LAPSES_MOST)
        for member in due:
            decision = binding.end(member.rows, self._now(), Cause.LAPSED, member.next_id)
            try:
                await self._members.save_rows(member, decision)
            except Conflict:
                # He bought or was bound anew this moment: the next round looks again.
                continue
            LAPSED.inc()
        return len(due) == LAPSES_MOST
