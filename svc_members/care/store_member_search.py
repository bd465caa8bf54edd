"""Members found by what is known of them, in the order of their ids, which nothing ever changes.

A page begins after the last id of the one before it. One filter leads: an index gives the ids of those who
match it, in order and a batch at a time, and their documents are asked for the rest. The filter leads that
fewest match; so a page costs what the narrowest filter leaves, however many members there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_members.care.store_tag import TagStore

LOOKED_AT_MAX: Final = 10_000
"""Members looked at for one page. A page for which more would be needed ends early, and the next goes on."""
MANY: Final = 10_000
"""From here on a filter is not asked how many more members match it."""
_BATCH: Final = 1_000
_TAG: Final = "tags"
_PURCHASE: Final = "last_purchase_time"
# Which index leads by which field. Those of equal values give ids in order as they stand.
_BY: Final = {
    "standing.guide_id": "by_standing_guide",
    "standing.store_id": "by_standing_store",
    "profile.birthday_month": "by_birthday_month",
    "profile.tier": "by_tier",
}
_FEW_BUYERS: Final = "by_purchase_time"
"""Of times in a range it gives all ids, to be sorted: good while they are few."""
_MANY_BUYERS: Final = "by_last_purchase"
"""It gives ids in order, and must pass over those whose time is not in the range: good while most are."""
_FIELDS: Final = {
    "_id": 0,
    "member_id": 1,
    "profile.display_name": 1,
    "profile.tier": 1,
    "profile.birthday_month": 1,
    "standing.guide_id": 1,
    "standing.store_id": 1,
    "last_purchase_time": 1,
}
INDEXES = (
    Index(
        "members",
        _BY["standing.store_id"],
        [("brand_id", 1), ("standing.store_id", 1), ("_id", 1)],
        {"partialFilterExpression": {"standing.store_id": {"$exists": True}}},
    ),
    Index(
        "members",
        _BY["profile.tier"],
        [("brand_id", 1), ("profile.tier", 1), ("_id", 1)],
        {"partialFilterExpression": {"profile.tier": {"$exists": True}}},
    ),
    Index(
        "members",
        _BY["profile.birthday_month"],
        [("brand_id", 1), ("profile.birthday_month", 1), ("_id", 1)],
        {"partialFilterExpression": {"profile.birthday_month": {"$exists": True}}},
    ),
    Index(
        "members",
        _MANY_BUYERS,
        [("brand_id", 1), ("_id", 1), (_PURCHASE, 1)],
        {"partialFilterExpression": {_PURCHASE: {"$exists": True}}},
    ),
    Index(
        "members",
        _FEW_BUYERS,
        [("brand_id", 1), (_PURCHASE, 1), ("_id", 1)],
        {"partialFilterExpression": {_PURCHASE: {"$exists": True}}},
    ),
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What members must have, all of it. Empty, 0 or None: whatever it is.

    The last purchase: at `purchased_from` or later, before `purchased_to`.
    """

    guide_id: str = ""
    store_id: str = ""
    tag: str = ""
    tier: str = ""
    purchased_from: datetime | None = None
    purchased_to: datetime | None = None
    birthday_month: int = 0

    def conditions(self) -> dict[str, Any]:
        """By field, what a member must hold, `tags` included. If all of them are broad the first leads."""
        times = {"$gte": self.purchased_from, "$lt": self.purchased_to}
        wanted = {
            "standing.guide_id": self.guide_id,
            "standing.store_id": self.store_id,
            _TAG: self.tag,
            "profile.birthday_month": self.birthday_month,
            "profile.tier": self.tier,
            _PURCHASE: {bound: time for bound, time in times.items() if time is not None},
        }
        return {field: condition for field, condition in wanted.items() if condition}


@dataclass(frozen=True, slots=True)
class _Lead:
    """The filter that leads, and the index of the members to walk; the tags have their own."""

    field: str
    index: str


class MemberSearchStore:
    """Finds members. Writes nothing."""

    def __init__(self, database: Database, tags: TagStore) -> None:
        self._members = database["members"]
        self._tags = tags

    async def page(
        self, brand_id: str, filters: Filters, after_id: str, size: int
    ) -> tuple[list[Document], str]:
        """Up to `size` members after one, and the id after which the next page begins.

        No such id: that was all. Raises: ValueError without any filter.
        """
        conditions = filters.conditions()
        if not conditions:
            raise ValueError("nothing is asked for")
        lead = await self._lead(brand_id, conditions)
        batch = size + 1 if len(conditions) == 1 else max(size + 1, _BATCH)
        rest = dict(conditions)
        if lead.field == _TAG:
            # The tags have told already.
            del rest[_TAG]
        found: dict[str, Document] = {}
        for _ in range(0, LOOKED_AT_MAX, batch):
            ids = await self._ids(brand_id, lead, conditions[lead.field], after_id, batch)
            # By id: an index that is written while it is walked may tell of a member twice.
            found |= await self._matching(brand_id, rest, ids)
            if len(found) > size:
                page = list(found.values())[:size]
                return page, page[-1]["member_id"]
            if len(ids) < batch:
                return list(found.values()), ""
            after_id = ids[-1]
        return list(found.values()), after_id

    async def _lead(self, brand_id: str, conditions: Mapping[str, Any]) -> _Lead:
        """The filter that fewest members match, as far as they are counted; of several the first."""
        lead, least = next(iter(conditions)), MANY
        if len(conditions) > 1 or lead == _PURCHASE:
            for field, condition in conditions.items():
                count = await self._count(brand_id, field, condition, least)
                if count < least:
                    lead, least = field, count
        if lead == _PURCHASE:
            return _Lead(lead, _FEW_BUYERS if least < MANY else _MANY_BUYERS)
        return _Lead(lead, _BY.get(lead, ""))

    async def _count(self, brand_id: str, field: str, condition: Any, most: int) -> int:
        """How many members match one filter, counted up to `most`."""
        if field == _TAG:
            return await self._tags.count(brand_id, condition, most)
        index = _BY.get(field, _FEW_BUYERS)
        query = {"brand_id": brand_id, field: condition}
        return int(await self._members.count_documents(query, limit=max(most, 1), hint=index))

    async def _ids(self, brand_id: str, lead: _Lead, condition: Any, after_id: str, size: int) -> list[str]:
        """Up to `size` ids of members who match the filter that leads, in order, after one."""
        if lead.field == _TAG:
            return await self._tags.page(brand_id, condition, after_id, size)
        prefix = f"{brand_id}|"
        query = {
            "brand_id": brand_id,
            lead.field: condition,
            "_id": {"$gt": prefix + after_id, "$lt": brand_id + "}"},
        }
        reading = self._members.find(query, {"_id": 1}, limit=size, batch_size=size, hint=lead.index)
        return [member["_id"].removeprefix(prefix) async for member in reading.sort("_id", 1)]

    async def _matching(
        self, brand_id: str, conditions: Mapping[str, Any], member_ids: Sequence[str]
    ) -> dict[str, Document]:
        """Those of the members who match all filters, by id, in order."""
        query: Document = {
            "_id": {"$in": [f"{brand_id}|{member_id}" for member_id in member_ids]},
            **{field: condition for field, condition in conditions.items() if field != _TAG},
            "merged_into": None,
            "erased_time": None,
        }
        reading = self._members.find(query, _FIELDS, batch_size=len(member_ids) + 1).sort("_id", 1)
        found = await reading.to_list(None)
        if _TAG in conditions:
            names = [member["member_id"] for member in found]
            tagged = await self._tags.among(brand_id, conditions[_TAG], names)
            found = [member for member in found if member["member_id"] in tagged]
        return {member["member_id"]: member for member in found}
