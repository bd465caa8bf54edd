"""What was recorded of members lately, read from MongoDB: their documents are the truth, and are polled.

A change stream would tell sooner, but its resume token dies with the oplog, and a watch may be resumed after
a year. Index entries are read first: in most polls they say that there is nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from chassis.clock import Clock
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_members.member.member_document import row_of
from svc_members.rules.binding import Row
from svc_members.rules.changes import Place

INDEXES = (
    Index(
        "members",
        "by_recording",
        [("brand_id", 1), ("last_recorded_time", 1), ("_id", 1)],
        {"partialFilterExpression": {"last_recorded_time": {"$exists": True}}},
    ),
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Rows of a member, among them all that were recorded or superseded in the time that was asked for.

    `until`: when something was last recorded of him; what the rows tell of later times is not all there is.
    """

    member_id: str
    rows: tuple[Row, ...]
    until: datetime


class BindingWatchStore:
    """Reads what was recorded of a brand's members, in the order of its recording."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._members = database["members"]
        self._history = database["binding_history"]
        self._clock = clock

    async def majority_time(self) -> datetime:
        """The primary's time when it last wrote what most of its followers have, and readers therefore see.

        Not its present time, which goes on while followers that lag keep from readers what was written. In
        whole seconds.
        """
        answered: Document = await self._database.command("hello")
        # A router of shards does not say what was written.
        written = answered.get("lastWrite", {}).get("majorityWriteDate", answered["localTime"])
        return cast("datetime", written).replace(tzinfo=UTC) + self._clock.shift()

    async def page(self, brand_id: str, after: Place, size: int) -> list[Place]:
        """Up to `size` members of whom something was last recorded after a place, in order."""
        found: list[Place] = []
        if after.member_id:
            later = {"$gt": f"{brand_id}|{after.member_id}"}
            found = await self._places(brand_id, {"last_recorded_time": after.time, "_id": later}, size)
        if len(found) < size:
            query: Document = {"last_recorded_time": {"$gt": after.time}}
            found += await self._places(brand_id, query, size - len(found))
        return found

    async def _places(self, brand_id: str, query: Document, size: int) -> list[Place]:
        """Answered by the index alone."""
        found = self._members.find({"brand_id": brand_id, **query}, {"last_recorded_time": 1})
        members = await found.sort([("last_recorded_time", 1), ("_id", 1)]).limit(size).to_list(None)
        prefix = len(brand_id) + 1
        return [Place(member["last_recorded_time"], member["_id"][prefix:]) for member in members]

    async def changed(self, brand_id: str, member_ids: Sequence[str], after: datetime) -> list[Recorded]:
        """What was recorded of some members, with at least every row recorded or superseded after a time."""
        ids = [f"{brand_id}|{member_id}" for member_id in member_ids]
        wanted = {"member_id": 1, "rows": 1, "history_count": 1, "last_recorded_time": 1}
        found = await self._members.find({"_id": {"$in": ids}}, wanted).to_list(None)
        rows = {member["member_id"]: {row["binding_id"]: row for row in member["rows"]} for member in found}
        # Also where the oldest row of the document is older: a correction supersedes rows of long ago.
        longer = [member["member_id"] for member in found if member.get("history_count")]
        if longer:
            in_time = [{"recorded_time": {"$gt": after}}, {"superseded_time": {"$gt": after}}]
            query = {"brand_id": brand_id, "member_id": {"$in": longer}, "$or": in_time}
            async for row in self._history.find(query, {"_id": 0, "brand_id": 0}):
                # A row that was pushed out between the two reads is in both; the later read knows more.
                rows[row.pop("member_id")][row["binding_id"]] = row
        return [
            Recorded(
                member["member_id"],
                tuple(row_of(row) for row in rows[member["member_id"]].values()),
                member["last_recorded_time"],
            )
            for member in found
        ]
