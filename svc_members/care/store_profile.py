"""Profiles in MongoDB: `profile` in the member's document, with `profile_receipts` of what wrote it.

`profile_from` there says which fields a merged member brought; what is written anew is nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.mongo.connection import Database, Document
from svc_members.member.member_document import Member
from svc_members.member.store_identity import changed_meanwhile


class ProfileStore:
    """Reads and writes profiles."""

    def __init__(self, database: Database) -> None:
        self._members = database["members"]

    async def find(self, member: Member) -> tuple[Document, list[Document]]:
        """A member's profile, and the receipts of the requests that wrote it."""
        fields = {"profile": 1, "profile_receipts": 1}
        found = await self._members.find_one({"_id": member.key}, fields) or {}
        return found.get("profile", {}), found.get("profile_receipts", [])

    async def save(self, member: Member, values: Mapping[str, Any], receipts: Sequence[Document]) -> None:
        """Writes fields of a member's profile; those that are None it takes away.

        Raises: Conflict MEMBER_CHANGED when someone wrote the member since he was read.
        """
        kept = {f"profile.{name}": value for name, value in values.items() if value is not None}
        gone = [f"profile.{name}" for name, value in values.items() if value is None]
        update: Document = {
            "$set": {**kept, "profile_receipts": list(receipts)},
            "$unset": dict.fromkeys([*gone, *(f"profile_from.{name}" for name in values)], ""),
            "$inc": {"rev": 1},
        }
        written = await self._members.update_one({"_id": member.key, "rev": member.rev}, update)
        if not written.matched_count:
            raise changed_meanwhile()
