"""Merges in MongoDB: two members made one, and made two again, each in one transaction.

Documents `merges {_id: brand|merge, merge_id, survivor_id, other_id, merge_time, …}`; their recorded times
say which of the two members' rows the merge wrote, and its undoing. What changes in the members' documents
stands in `merged_fields`. What else belongs to a member carries `member_id`, who has it, and `origin_id`, in
whose name it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter

from chassis.clock import Clock
from chassis.errors import NotFound, Refused
from chassis.mongo import transaction
from chassis.mongo.connection import Database, Document, Session, primary_time
from chassis.mongo.schema import Index
from svc_members.member import merged_fields
from svc_members.member.member_document import WholeMember
from svc_members.member.merged_fields import Change
from svc_members.member.store_identity import changed_meanwhile, holders_of
from svc_members.member.store_member import MemberStore
from svc_members.member.store_merge_record import MergeRecords
from svc_members.rules import bitemporal, holder, merge
from svc_members.rules.holder import Holder

MOVED_WITH_MEMBER: Final = ("tags", "consents", "tasks", "contacts")
"""Collections whose documents belong to a member."""
MERGES = Counter("daogou_members_merges_total", "Merges of members, made and undone.", ["act"])
INDEXES = (
    Index("merges", "by_survivor", [("brand_id", 1), ("survivor_id", 1)]),
    Index("merges", "by_other", [("brand_id", 1), ("other_id", 1)]),
)
_TICK: Final = timedelta(milliseconds=1)


class MergeStore:
    """Makes and undoes merges."""

    def __init__(self, database: Database, members: MemberStore, clock: Clock) -> None:
        self._database = database
        self._merges = database["merges"]
        self._members = members
        self._clock = clock

    async def merge(self, brand_id: str, one_id: str, two_id: str, merge_id: str, now: datetime) -> Document:
        """Merges the younger of two members into the older.

        Raises: Refused TOO_MANY_IDENTITIES; Conflict MEMBER_CHANGED when one of them was merged or erased
        meanwhile, TRANSACTION_CONTENDED.
        """

        async def body(started: Session) -> Document:
            both = [await self._members.whole(brand_id, one, started) for one in (one_id, two_id)]
            if any("merged_into" in one.document or "erased_time" in one.document for one in both):
                raise changed_meanwhile()
            survivor, other = sorted(both, key=lambda one: (one.member.create_time, one.member.member_id))
            return await self._merge(survivor, other, merge_id, now, started)

        made = await transaction.run(self._database, body)
        MERGES.labels("merged").inc()
        return made

    async def of_member(self, brand_id: str, member_ids: Sequence[str]) -> list[Document]:
        """The merges in which any of some members took part, oldest first."""
        ids = list(member_ids)
        query = {"brand_id": brand_id, "$or": [{"survivor_id": {"$in": ids}}, {"other_id": {"$in": ids}}]}
        return [found async for found in self._merges.find(query).sort("merge_time", 1)]

    async def undo(self, brand_id: str, merge_id: str, now: datetime) -> Document:
        """Undoes a merge; where it is undone already, nothing changes.

        Raises: NotFound MERGE_UNKNOWN; Refused MERGE_TOO_OLD, MERGED_AGAIN, MEMBER_ERASED; Conflict
        MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """

        async def body(started: Session) -> tuple[Document, bool]:
            found = await self._merges.find_one({"_id": f"{brand_id}|{merge_id}"}, session=started)
            if found is None:
                raise NotFound("MERGE_UNKNOWN", "the brand knows no such merge")
            if found["undone_time"] is not None:
                return found, False
            if now > found["merge_time"] + merge.UNDO_WITHIN:
                raise Refused("MERGE_TOO_OLD", f"a merge is undone within {merge.UNDO_WITHIN.days} days")
            survivor = await self._members.whole(brand_id, found["survivor_id"], started)
            other = await self._members.whole(brand_id, found["other_id"], started)
            if "erased_time" in survivor.document:
                raise Refused("MEMBER_ERASED", "the member was erased")
            if "merged_into" in survivor.document:
                raise Refused("MERGED_AGAIN", "the survivor was merged himself: undo that first")
            return await self._undo(found, survivor, other, now, started), True

        undone, now_only = await transaction.run(self._database, body)
        MERGES.labels("undone").inc(int(now_only))
        return undone

    # ---- making one of two -----------------------------------------------------------------------------

    async def _merge(
        self, survivor: WholeMember, other: WholeMember, merge_id: str, now: datetime, started: Session
    ) -> Document:
        ours, theirs = survivor.member, other.member
        begin = max([now, *(time + _TICK for time in _merge_times(survivor, other))])
        next_ids = (ours.next_id, theirs.next_id)
        made = merge.merge(survivor.rows, other.rows, theirs.member_id, begin, next_ids)
        stamp = await self._stamp()
        joined = merged_fields.joined(survivor, other, made)
        ours_recorded = await self._write(survivor, joined, stamp, started)
        gone = merged_fields.gone(other, ours.member_id, made, stamp)
        theirs_recorded = await self._write(other, gone, stamp, started)
        query = {"brand_id": ours.brand_id, "member_id": theirs.member_id}
        await self._change_identities(
            query, lambda rows: holder.passed_on(rows, ours.member_id, made.time, stamp), started
        )
        await self._move(query, ours.member_id, started)
        done: Document = {
            "_id": f"{ours.brand_id}|{merge_id}",
            "brand_id": ours.brand_id,
            "merge_id": merge_id,
            "survivor_id": ours.member_id,
            "other_id": theirs.member_id,
            "origin_ids": merged_fields.came_with(other),
            "merge_time": made.time,
            "survivor_recorded_time": ours_recorded,
            "other_recorded_time": theirs_recorded,
            "survivor_active_time": merged_fields.active_before(survivor.document),
            "other_active_time": merged_fields.active_before(other.document),
            "undone_time": None,
        }
        await self._merges.insert_one(done, session=started)
        return done

    # ---- making two of one -----------------------------------------------------------------------------

    async def _undo(
        self, found: Document, survivor: WholeMember, other: WholeMember, now: datetime, started: Session
    ) -> Document:
        ours, theirs = survivor.member, other.member
        records = MergeRecords(self._database, self._members, started)
        merged = await records.merged(found)
        both = await records.record(survivor), await records.record(other)
        parted = merge.separate(*both, merged, (ours.next_id, theirs.next_id))
        stamp, origin_ids = await self._stamp(), merged.origin_ids
        count = await self._change_identities(
            _ever_held(ours.brand_id, ours.member_id, origin_ids),
            lambda rows: holder.returned(rows, ours.member_id, theirs.member_id, origin_ids, stamp),
            started,
        )
        left = merged_fields.left(survivor, found, parted, count)
        back = merged_fields.back(survivor, other, found, parted, count, stamp)
        undone = found | {
            "survivor_separated_time": await self._write(survivor, left, stamp, started),
            "other_separated_time": await self._write(other, back, stamp, started),
            "undone_time": now,
        }
        query = {"brand_id": ours.brand_id, "member_id": ours.member_id}
        await self._move(query | {"origin_id": {"$in": list(origin_ids)}}, theirs.member_id, started)
        await self._merges.replace_one({"_id": found["_id"]}, undone, session=started)
        return undone

    # ---- what both need --------------------------------------------------------------------------------

    async def _stamp(self) -> datetime:
        return await primary_time(self._database) + self._clock.shift()

    async def _write(self, whole: WholeMember, change: Change, stamp: datetime, started: Session) -> datetime:
        """Writes a member; when it was recorded."""
        written = await self._members.write(
            whole.member,
            change.decision,
            change.fields,
            started,
            stamp=stamp,
            active_time=change.active_time,
        )
        if written is None:
            raise changed_meanwhile()
        recorded: datetime = written["last_recorded_time"]
        return recorded

    async def _change_identities(
        self, query: Document, change: Callable[[Sequence[Holder]], Sequence[Holder]], started: Session
    ) -> int:
        """Changes whose identities are; of how many that changes who holds them now."""
        links, count = self._database["identities"], 0
        for identity in await links.find(query, session=started).to_list(None):
            before = holders_of(identity)
            after = change(before)
            if after == before:
                continue
            await links.update_one({"_id": identity["_id"]}, _held(after), session=started)
            count += bitemporal.standing(after) != bitemporal.standing(before)
        return count

    async def _move(self, query: Mapping[str, object], to_id: str, started: Session) -> None:
        for collection in MOVED_WITH_MEMBER:
            await self._database[collection].update_many(
                query, {"$set": {"member_id": to_id}}, session=started
            )


def _merge_times(*members: WholeMember) -> list[datetime]:
    """From when on the last merges of members hold: another begins later."""
    times = [member.document.get("last_merge_time") for member in members]
    return [time for time in times if time is not None]


def _ever_held(brand_id: str, member_id: str, origin_ids: Iterable[str]) -> Document:
    """The identities that a member holds in some names, and those that he held of all that changed hands."""
    theirs = {"member_id": member_id, "origin_id": {"$in": list(origin_ids)}}
    changed = {"holders.member_id": member_id, "holders": {"$exists": True}}
    return {"$or": [{"brand_id": brand_id, **theirs}, {"brand_id": brand_id, **changed}]}


def _held(rows: Sequence[Holder]) -> Document:
    """The update that makes an identity that of whom its rows say."""
    current = bitemporal.standing(rows)
    values: Document = {"holders": [asdict(row) for row in rows]}
    if current is None:
        return {"$set": values}
    values["member_id"] = current.member_id
    if current.origin_id:
        return {"$set": values | {"origin_id": current.origin_id}}
    return {"$set": values, "$unset": {"origin_id": ""}}
