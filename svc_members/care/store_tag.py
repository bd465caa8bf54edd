"""Tags in MongoDB, apart from the members: `{_id: brand|origin, rev, member_id, origin_id, tags}`.

A set for each id in whose name tags were given; `member_id` is who has the set now. A set is changed by a
compare-and-set on its `rev`, or by taking tags out, which meets nobody's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from chassis.mongo import failures
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.member.store_owned import OwnedRecords

INDEXES = (
    Index("tags", "by_tag", [("brand_id", 1), ("tags", 1), ("member_id", 1)]),
    Index("tags", "by_member", [("brand_id", 1), ("member_id", 1)]),
)


@dataclass(frozen=True, slots=True)
class TagSet:
    """The tags that were given in one id's name. `rev` 0: it is yet to be written."""

    member_id: str
    origin_id: str
    rev: int
    tags: frozenset[str]


class TagStore:
    """Reads and writes tags."""

    def __init__(self, database: Database) -> None:
        self._tags = database["tags"]
        self._owned = OwnedRecords(database)

    async def find(self, brand_id: str, member_ids: Collection[str]) -> dict[str, list[TagSet]]:
        """The sets of each of the members."""
        query = {"brand_id": brand_id, "member_id": {"$in": list(member_ids)}}
        sets: dict[str, list[TagSet]] = {member_id: [] for member_id in member_ids}
        async for found in self._tags.find(query):
            sets[found["member_id"]].append(_tag_set(found))
        return sets

    async def save(self, brand_id: str, changed: Sequence[TagSet]) -> bool:
        """Writes the tags of sets as read; False when somebody else has written one of them meanwhile.

        Of the others some may be written even so. Raises: Conflict MEMBER_CHANGED when a member whose
        first tags they are was merged or erased meanwhile, TRANSACTION_CONTENDED.
        """
        if not changed:
            return True

        async def write(started: Session | None = None) -> bool:
            writes = [_update(brand_id, one) for one in changed]
            written = await self._tags.bulk_write(writes, ordered=False, session=started)
            return written.matched_count + written.upserted_count == len(changed)

        new = {one.origin_id: one.member_id for one in changed if one.rev == 0}
        try:
            return await self._owned.add(brand_id, new, write) if new else await write()
        except BulkWriteError as error:
            # Another made the set first.
            failures.duplicates(error)
            return False

    async def remove(self, brand_id: str, member_id: str, tags: Iterable[str]) -> None:
        """Takes tags out of all sets of a member."""
        gone = {"$in": list(tags)}
        await self._tags.update_many(
            {"brand_id": brand_id, "member_id": member_id, "tags": gone},
            {"$pull": {"tags": gone}, "$inc": {"rev": 1}},
        )

    async def page(self, brand_id: str, tag: str, after_id: str, size: int) -> list[str]:
        """Up to `size` ids of members who have a tag, in order, after one.

        A member has it as often as his sets do.
        """
        query = {"brand_id": brand_id, "tags": tag, "member_id": {"$gt": after_id}}
        reading = self._tags.find(query, {"_id": 0, "member_id": 1}, limit=size, batch_size=size)
        return [one["member_id"] async for one in reading.sort("member_id", 1)]

    async def count(self, brand_id: str, tag: str, most: int) -> int:
        """How many sets hold a tag, counted up to `most`."""
        query = {"brand_id": brand_id, "tags": tag}
        return int(await self._tags.count_documents(query, limit=max(most, 1)))

    async def among(self, brand_id: str, tag: str, member_ids: Collection[str]) -> set[str]:
        """Those of the members who have a tag."""
        query = {"brand_id": brand_id, "tags": tag, "member_id": {"$in": list(member_ids)}}
        return {one["member_id"] async for one in self._tags.find(query, {"_id": 0, "member_id": 1})}


def _update(brand_id: str, changed: TagSet) -> UpdateOne:
    whose = {"brand_id": brand_id, "member_id": changed.member_id, "origin_id": changed.origin_id}
    return UpdateOne(
        {"_id": f"{brand_id}|{changed.origin_id}", "rev": changed.rev},
        # Whose it is stays what it is: a merge may be giving it to somebody else at this moment.
        {"$set": {"tags": sorted(changed.tags)}, "$inc": {"rev": 1}, "$setOnInsert": whose},
        upsert=changed.rev == 0,
    )


def _tag_set(document: Document) -> TagSet:
    return TagSet(
        member_id=document["member_id"],
        origin_id=document["origin_id"],
        rev=document["rev"],
        tags=frozenset(document["tags"]),
    )
