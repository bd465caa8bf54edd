"""All documents of one member, for the export: read one after the other, as many as there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from chassis.mongo.connection import Database, Document

_ORDER: Final = [("_id", 1)]


class ExportStore:
    """Reads what belongs to a member."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def document(self, brand_id: str, member_id: str) -> Document:
        """The member's own document; he must exist."""
        found = await self._database["members"].find_one({"_id": f"{brand_id}|{member_id}"})
        assert found is not None, "whoever was found is there: nothing deletes a member's document"
        return found

    async def identities(self, brand_id: str, member_id: str) -> list[Document]:
        """The identities that he holds."""
        query = {"brand_id": brand_id, "member_id": member_id}
        return await self._database["identities"].find(query).sort(_ORDER).to_list(None)

    async def belongings(
        self, collection: str, brand_id: str, member_ids: Sequence[str]
    ) -> AsyncGenerator[Document, None]:
        """The documents of a collection that belong to any of some ids."""
        query = {"brand_id": brand_id, "member_id": {"$in": list(member_ids)}}
        async for document in self._database[collection].find(query).sort(_ORDER):
            yield document
