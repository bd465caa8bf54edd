"""Erasure in MongoDB: one transaction that leaves of a member what ledgers are explained by, and no more.

Of his document only the fields named here stay, so that whatever is added to it one day is erased as well.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Final

from prometheus_client import Counter

from chassis.mongo import transaction
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.member.member_document import member_of
from svc_members.member.store_identity import changed_meanwhile, holders_of
from svc_members.member.store_member import MemberStore, unknown
from svc_members.member.store_merge import MOVED_WITH_MEMBER
from svc_members.rules import binding
from svc_members.rules.binding import Cause

_STAYS: Final = frozenset(
    {
        *("_id", "brand_id", "member_id", "rev", "create_time", "rows", "history_count", "standing"),
        *("last_recorded_time", "identity_count", "merged_into", "answering", "absorbed", "erased_time"),
    }
)
INDEXES = (
    Index(
        "identities",
        "by_earlier_holder",
        [("brand_id", 1), ("holders.member_id", 1)],
        {"partialFilterExpression": {"holders": {"$exists": True}}},
    ),
)
ERASED = Counter("daogou_members_erased_members_total", "Members who were erased.")


class ErasureStore:
    """Erases members."""

    def __init__(self, database: Database, members: MemberStore) -> None:
        self._database = database
        self._members = members

    async def erase(self, brand_id: str, member_id: str, now: datetime) -> tuple[datetime, list[str]]:
        """Erases whoever answers for an id; when he was erased, and all his ids.

        Raises: NotFound MEMBER_UNKNOWN; Conflict MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """

        async def body(started: Session) -> tuple[Document, bool]:
            found = await self._find(brand_id, member_id, started)
            while "merged_into" in found:
                found = await self._find(brand_id, found["merged_into"], started)
            if "erased_time" in found:
                return found, False
            await self._erase(found, now, started)
            return found | {"erased_time": now}, True

        erased, now_only = await transaction.run(self._database, body)
        ERASED.inc(int(now_only))
        return erased["erased_time"], [erased["member_id"], *erased.get("absorbed", ())]

    async def _find(self, brand_id: str, member_id: str, started: Session) -> Document:
        found = await self._database["members"].find_one({"_id": f"{brand_id}|{member_id}"}, session=started)
        if found is None:
            raise unknown()
        return found

    async def _erase(self, survivor: Document, now: datetime, started: Session) -> None:
        brand_id, survivor_id = survivor["brand_id"], survivor["member_id"]
        ids = [survivor_id, *survivor.get("absorbed", ())]
        for member_id in ids:
            await self._erase_member(await self._find(brand_id, member_id, started), now, started)
        await self._erase_identities(brand_id, ids, started)
        whose = {"brand_id": brand_id, "member_id": {"$in": ids}}
        # Who he was to the staff goes too: the ids that stay in ledgers would have a name by it.
        no_member = {"$set": {"member_id": ""}, "$inc": {"rev": 1}}
        await self._database["guides"].update_many(whose, no_member, session=started)
        for collection in MOVED_WITH_MEMBER:
            await self._database[collection].delete_many(whose, session=started)
        # Reasons are written by people, and may name somebody.
        no_reason = {"$set": {"reason": ""}}
        await self._database["binding_history"].update_many(whose, no_reason, session=started)
        no_reasons = {"$set": {"rows.$[].reason": ""}}
        await self._database["members"].update_many(
            {"_id": {"$in": [f"{brand_id}|{member_id}" for member_id in ids]}}, no_reasons, session=started
        )

    async def _erase_member(self, document: Document, now: datetime, started: Session) -> None:
        member = member_of(document)
        decision = binding.end(member.rows, now, Cause.ERASED, member.next_id)
        gone: Document = {field: None for field in document if field not in _STAYS}
        changes = gone | {"erased_time": now, "identity_count": 0}
        if await self._members.write(member, decision, changes, started) is None:
            raise changed_meanwhile()

    async def _erase_identities(self, brand_id: str, ids: list[str], started: Session) -> None:
        """Deletes what he holds; of what others hold by now, or nobody, that he ever did."""
        identities = self._database["identities"]
        await identities.delete_many({"brand_id": brand_id, "member_id": {"$in": ids}}, session=started)
        earlier = {"brand_id": brand_id, "holders.member_id": {"$in": ids}, "holders": {"$exists": True}}
        for identity in await identities.find(earlier, session=started).to_list(None):
            others = [row for row in holders_of(identity) if row.member_id not in ids]
            if others:
                rows = {"$set": {"holders": [asdict(row) for row in others]}}
                await identities.update_one({"_id": identity["_id"]}, rows, session=started)
            else:
                await identities.delete_one({"_id": identity["_id"]}, session=started)
