"""Entries of what is no order's, into the journal: each once, by its id."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.errors import BulkWriteError

from chassis.mongo import failures
from chassis.mongo.connection import Database, Document


class EntryStore:
    """Adds entries to the journal."""

    def __init__(self, database: Database) -> None:
        self._journal = database["journal"]

    async def insert(self, entries: Sequence[Document]) -> dict[str, Document]:
        """Adds entries; those of them that were there already, by id, as they stand in the journal."""
        if not entries:
            return {}
        try:
            await self._journal.insert_many(entries, ordered=False)
        except BulkWriteError as error:
            places = [failure["index"] for failure in failures.duplicates(error)]
            return await self.find([entries[place]["_id"] for place in places])
        return {}

    async def find(self, entry_ids: Sequence[str]) -> dict[str, Document]:
        """Those of the entries that there are, by id."""
        found = self._journal.find({"_id": {"$in": list(entry_ids)}})
        return {entry["_id"]: entry async for entry in found}
