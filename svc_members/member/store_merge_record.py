"""What was recorded of members who were merged and separated, read for undoing a merge (`rules.replay`)."""

from __future__ import annotations

from datetime import datetime

from chassis.mongo.connection import Database, Document, Session
from svc_members.member.member_document import WholeMember
from svc_members.member.store_member import MemberStore
from svc_members.rules.merge import Merged
from svc_members.rules.replay import Away, Record


class MergeRecords:
    """Reads records, within one transaction."""

    def __init__(self, database: Database, members: MemberStore, started: Session) -> None:
        self._merges = database["merges"]
        self._members = members
        self._started = started
        self._read: dict[str, Record] = {}

    async def merged(self, found: Document) -> Merged:
        """A merge that stands, from its document."""
        query = {
            "brand_id": found["brand_id"],
            "survivor_id": found["survivor_id"],
            "undone_time": None,
            "_id": {"$ne": found["_id"]},
        }
        others = await self._merges.find(query, session=self._started).to_list(None)
        stays: dict[str, datetime] = {
            one: made["survivor_recorded_time"] for made in others for one in made["origin_ids"]
        }
        return Merged(
            time=found["merge_time"],
            origin_ids=frozenset(found["origin_ids"]),
            survivor_recorded_time=found["survivor_recorded_time"],
            other_recorded_time=found["other_recorded_time"],
            stays=stays,
        )

    async def record(self, whole: WholeMember) -> Record:
        """All that was recorded of a member, also while he was merged into others."""
        brand_id, member_id = whole.member.brand_id, whole.member.member_id
        if member_id not in self._read:
            sides = [{"survivor_id": member_id}, {"other_id": member_id}]
            query = {"brand_id": brand_id, "undone_time": {"$ne": None}, "$or": sides}
            undone = await self._merges.find(query, session=self._started).to_list(None)
            self._read[member_id] = Record(
                member_id=member_id,
                rows=whole.rows,
                aways=[await self._away(merge) for merge in undone if merge["other_id"] == member_id],
                separated_times=frozenset(
                    merge["survivor_separated_time"] for merge in undone if merge["survivor_id"] == member_id
                ),
            )
        return self._read[member_id]

    async def _away(self, merge: Document) -> Away:
        survivor = await self._members.whole(merge["brand_id"], merge["survivor_id"], self._started)
        return Away(
            time=merge["merge_time"],
            left_time=merge["other_recorded_time"],
            back_time=merge["other_separated_time"],
            survivor=await self.record(survivor),
            begin_time=merge["survivor_recorded_time"],
            end_time=merge["survivor_separated_time"],
        )
