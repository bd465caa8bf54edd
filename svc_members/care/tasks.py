"""Tasks of guides between messages and documents. A document's keys are the message's field names."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from chassis.ids import derived_id
from chassis.mongo.connection import Document
from chassis.times import from_timestamp, to_optional_timestamp, to_timestamp
from daogou.members.v1 import follow_up_pb2 as pb
from svc_members.care.text_sealer import TextSealer
from svc_members.rules.follow_up import TaskState

MUTABLE: Final = frozenset({"title", "note", "due_time"})


class Tasks:
    """Makes documents of tasks and tasks of documents. What they say is sealed."""

    def __init__(self, sealer: TextSealer) -> None:
        self._sealer = sealer

    def document(self, request: pb.CreateTaskRequest, member_id: str, body: bytes, now: datetime) -> Document:
        """A new task, with the receipt of its creation. Its id follows from the request."""
        task_id = task_id_of(request)
        document = {
            "_id": f"{request.brand_id}|{task_id}",
            "brand_id": request.brand_id,
            "task_id": task_id,
            "guide_id": request.guide_id,
            "member_id": member_id,
            "origin_id": request.member_id,
            "state": TaskState.OPEN.value,
            "rev": 1,
            "create_time": now,
            "update_time": now,
            "end_time": None,
            "receipts": [],
            **self.fields(request.brand_id, request.task, MUTABLE),
        }
        reply = pb.CreateTaskResponse(task=self.message(document))
        created = self._sealer.receipt(request.brand_id, "created", body, reply, now)
        return {**document, "created": created}

    def fields(self, brand_id: str, task: pb.Task, paths: Collection[str]) -> Document:
        """The masked fields as a document holds them."""
        values: Document = {
            "title": self._sealer.sealed(brand_id, "task|title", task.title),
            "note": self._sealer.sealed(brand_id, "task|note", task.note),
            "due_time": from_timestamp(task.due_time),
        }
        return {name: value for name, value in values.items() if name in paths}

    def message(self, task: Document) -> pb.Task:
        """A stored task."""
        return pb.Task(
            title=self._sealer.opened(task["brand_id"], "task|title", task["title"]),
            note=self._sealer.opened(task["brand_id"], "task|note", task["note"]),
            due_time=to_timestamp(task["due_time"]),
            task_id=task["task_id"],
            guide_id=task["guide_id"],
            member_id=task["member_id"],
            state=pb.TaskState.Value(f"TASK_STATE_{task['state']}"),
            create_time=to_timestamp(task["create_time"]),
            update_time=to_timestamp(task["update_time"]),
            end_time=to_optional_timestamp(task["end_time"]),
        )


def task_id_of(request: pb.CreateTaskRequest) -> str:
    """The id of the task that a request creates."""
    return derived_id("task", request.brand_id, request.request_id)
