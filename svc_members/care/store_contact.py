"""Contacts of guides with members in MongoDB, a document each: `{_id: brand|origin|guide|time}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.member.store_owned import OwnedRecords

INDEXES = (
    Index("contacts", "by_time", [("brand_id", 1), ("member_id", 1), ("contact_time", -1), ("_id", -1)]),
)


class ContactStore:
    """Reads and writes contacts."""

    def __init__(self, database: Database) -> None:
        self._contacts = database["contacts"]
        self._owned = OwnedRecords(database)

    async def record(self, contact: Mapping[str, Any]) -> None:
        """Adds a contact unless it is there: the first report of it stays.

        Raises: Conflict MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """
        if await self._contacts.find_one({"_id": contact["_id"]}, {"_id": 1}):
            return

        async def write(started: Session) -> None:
            await self._contacts.update_one(
                {"_id": contact["_id"]}, {"$setOnInsert": contact}, upsert=True, session=started
            )

        await self._owned.add(contact["brand_id"], {contact["origin_id"]: contact["member_id"]}, write)

    async def page(
        self, brand_id: str, member_id: str, before: tuple[datetime, str] | None, size: int
    ) -> list[Document]:
        """Up to `size` contacts with a member, newest first, after the one of a time and an id."""
        query: Document = {"brand_id": brand_id, "member_id": member_id}
        if before is not None:
            time, contact_id = before
            query["contact_time"] = {"$lte": time}
            query["$or"] = [{"contact_time": {"$lt": time}}, {"_id": {"$lt": contact_id}}]
        found = self._contacts.find(query).sort([("contact_time", -1), ("_id", -1)]).limit(size)
        return [contact async for contact in found]
