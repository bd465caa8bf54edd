"""Tasks of guides in MongoDB: `{_id: brand|task, rev, state, guide_id, member_id, due_time, receipts}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict, NotFound
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.member.store_owned import OwnedRecords
from svc_members.rules.follow_up import TaskState

INDEXES = (
    Index("tasks", "by_due", [("brand_id", 1), ("guide_id", 1), ("due_time", 1), ("_id", 1)]),
    Index(
        "tasks",
        "by_state",
        [("brand_id", 1), ("guide_id", 1), ("state", 1), ("due_time", 1), ("_id", 1)],
    ),
    Index("tasks", "by_member", [("brand_id", 1), ("member_id", 1)]),
)


class FollowUpStore:
    """Reads and writes tasks."""

    def __init__(self, database: Database) -> None:
        self._tasks = database["tasks"]
        self._owned = OwnedRecords(database)

    async def insert(self, task: Document) -> Document:
        """Inserts a task; the one that stands if its id is there already.

        Raises: Conflict MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """

        async def write(started: Session) -> None:
            await self._tasks.insert_one(task, session=started)

        try:
            await self._owned.add(task["brand_id"], {task["origin_id"]: task["member_id"]}, write)
        except DuplicateKeyError:
            return await self.find(task["brand_id"], task["task_id"])
        return task

    async def find(self, brand_id: str, task_id: str, guide_id: str = "") -> Document:
        """A task. With `guide_id`, only that guide's. Raises: NotFound TASK_UNKNOWN."""
        found = await self._tasks.find_one({"_id": f"{brand_id}|{task_id}"})
        if found is None or (guide_id and found["guide_id"] != guide_id):
            raise NotFound("TASK_UNKNOWN", "the task does not exist, or is another guide's")
        return found

    async def change(self, task: Document, values: Mapping[str, Any], receipts: Sequence[Document]) -> None:
        """Writes fields of a task. Raises: Conflict TASK_CHANGED when somebody else has written it."""
        written = await self._tasks.update_one(
            {"_id": task["_id"], "rev": task["rev"]},
            {"$set": {**values, "receipts": list(receipts)}, "$inc": {"rev": 1}},
        )
        if not written.matched_count:
            raise Conflict("TASK_CHANGED", "the task was changed meanwhile", retry_after_s=0.05)

    async def end(self, task: Document, state: TaskState, now: datetime) -> Document | None:
        """Ends an open task and returns it; None when it has ended already."""
        return await self._tasks.find_one_and_update(
            {"_id": task["_id"], "state": TaskState.OPEN},
            {"$set": {"state": state.value, "end_time": now, "update_time": now}, "$inc": {"rev": 1}},
            return_document=ReturnDocument.AFTER,
        )

    async def page(
        self,
        brand_id: str,
        guide_id: str,
        only: tuple[TaskState | None, datetime | None],
        after: tuple[datetime, str] | None,
        size: int,
    ) -> list[Document]:
        """Up to `size` tasks of a guide, by due time, then by id, after those of one.

        `only`: in a state, and due before a time; None: whatever it is.
        """
        state, due_before = only
        query: Document = {"brand_id": brand_id, "guide_id": guide_id}
        if state is not None:
            query["state"] = state.value
        due: Document = {}
        if due_before is not None:
            due["$lt"] = due_before
        if after is not None:
            time, task_id = after
            due["$gte"] = time
            query["$or"] = [{"due_time": {"$gt": time}}, {"_id": {"$gt": f"{brand_id}|{task_id}"}}]
        if due:
            query["due_time"] = due
        found = self._tasks.find(query).sort([("due_time", 1), ("_id", 1)]).limit(size)
        return [task async for task in found]
