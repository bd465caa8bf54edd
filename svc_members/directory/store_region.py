"""A brand's regions in MongoDB: one document `{_id: brand, rev, regions, receipts}`, so that two changes at
once cannot make a circle.

Each region keeps the receipt of its creation for ever (`created`); `receipts` are of later changes.
"""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict
from chassis.mongo.connection import Database, Document
from svc_members.rules.region import Tree


class RegionStore:
    """Reads and writes regions."""

    def __init__(self, database: Database) -> None:
        self._regions = database["regions"]

    async def find(self, brand_id: str) -> Document:
        """The brand's document; a new one, not written yet, where there is none."""
        found = await self._regions.find_one({"_id": brand_id})
        return found or {"_id": brand_id, "rev": 0, "regions": [], "receipts": []}

    async def tree(self, brand_id: str) -> Tree:
        """The brand's tree alone, for the rules."""
        wanted = {"regions.region_id": 1, "regions.parent_region_id": 1}
        found = await self._regions.find_one({"_id": brand_id}, wanted)
        return tree_of(found) if found else {}

    async def replace(self, document: Document) -> None:
        """Writes the next state. Raises: Conflict REGIONS_CHANGED when somebody else has written."""
        guard = {"_id": document["_id"], "rev": document["rev"]}
        written = {**document, "rev": document["rev"] + 1}
        try:
            # A document of another rev is not found, and inserting beside it fails: its key is there.
            await self._regions.replace_one(guard, written, upsert=True)
        except DuplicateKeyError:
            raise Conflict(
                "REGIONS_CHANGED", "the brand's regions were changed meanwhile", retry_after_s=0.05
            ) from None


def tree_of(document: Document) -> Tree:
    """The parent of each region, by region id."""
    return {region["region_id"]: region["parent_region_id"] for region in document["regions"]}
