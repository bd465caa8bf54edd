"""Follow-up over gRPC: the tasks of guides, and the contacts that there were with a member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chassis.clock import Now
from chassis.errors import NotFound
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.times import from_timestamp
from daogou.members.v1 import follow_up_pb2 as pb
from svc_members.care.contacts import Contacts
from svc_members.care.store_contact import ContactStore
from svc_members.care.store_follow_up import FollowUpStore
from svc_members.care.tasks import Tasks, task_id_of
from svc_members.care.text_sealer import TextSealer
from svc_members.member.served import served
from svc_members.member.store_answering import AnsweringStore
from svc_members.member.store_member import MemberStore
from svc_members.rules import follow_up
from svc_members.rules.follow_up import TaskState


class FollowUpServicer:
    """Implements daogou.members.v1.FollowUpService."""

    def __init__(
        self,
        members: MemberStore,
        answering: AnsweringStore,
        store: FollowUpStore,
        contact_store: ContactStore,
        sealer: TextSealer,
        cursors: Cursors,
        now: Now,
    ) -> None:
        self._members = members
        self._answering = answering
        self._store = store
        self._contact_store = contact_store
        self._sealer = sealer
        self._tasks = Tasks(sealer)
        self._contacts = Contacts(sealer)
        self._cursors = cursors
        self._now = now

    async def CreateTask(self, request: pb.CreateTaskRequest, context: Any) -> pb.CreateTaskResponse:
        body = idempotency.body_hash(request, self._sealer.digest)
        try:
            stands = await self._store.find(request.brand_id, task_id_of(request))
        except NotFound:
            member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
            task = self._tasks.document(request, member.member_id, body, self._now())
            stands = await self._store.insert(task)
        first = self._sealer.first_reply(
            request.brand_id, [stands["created"]], "created", body, pb.CreateTaskResponse
        )
        assert first is not None, "every task has the receipt of its creation"
        return first

    async def UpdateTask(self, request: pb.UpdateTaskRequest, context: Any) -> pb.UpdateTaskResponse:
        brand_id, now = request.brand_id, self._now()
        body = idempotency.body_hash(request, self._sealer.digest)
        task = await self._store.find(brand_id, request.task_id, request.guide_id)
        first = self._sealer.first_reply(
            brand_id, task["receipts"], request.request_id, body, pb.UpdateTaskResponse
        )
        if first is not None:
            return first
        follow_up.check_open(TaskState(task["state"]))
        changed = self._tasks.fields(brand_id, request.task, request.update_mask.paths)
        changed["update_time"] = now
        reply = pb.UpdateTaskResponse(task=self._tasks.message({**task, **changed}))
        receipt = self._sealer.receipt(brand_id, request.request_id, body, reply, now)
        await self._store.change(task, changed, idempotency.with_receipt(task["receipts"], receipt))
        return reply

    async def CompleteTask(self, request: pb.CompleteTaskRequest, context: Any) -> pb.CompleteTaskResponse:
        task = await self._ended(request, TaskState.DONE)
        return pb.CompleteTaskResponse(task=self._tasks.message(task))

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Any) -> pb.CancelTaskResponse:
        task = await self._ended(request, TaskState.CANCELLED)
        return pb.CancelTaskResponse(task=self._tasks.message(task))

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        state = None if request.state == pb.TASK_STATE_UNSPECIFIED else _state(request.state)
        due_before = from_timestamp(request.due_before_time) if request.HasField("due_before_time") else None
        after = (time_of(place[0]), place[1]) if place else None
        found = await self._store.page(
            request.brand_id, request.guide_id, (state, due_before), after, size + 1
        )
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._cursors.token(request, milliseconds(last["due_time"]), last["task_id"])
        tasks = await self._listed(request.brand_id, request.guide_id, found[:size])
        return pb.ListTasksResponse(tasks=tasks, next_page_token=token)

    async def ListContacts(self, request: pb.ListContactsRequest, context: Any) -> pb.ListContactsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        before = (time_of(place[0]), place[1]) if place else None
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        found = await self._contact_store.page(request.brand_id, member.member_id, before, size + 1)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._cursors.token(request, milliseconds(last["contact_time"]), last["_id"])
        return pb.ListContactsResponse(
            contacts=[self._contacts.message(contact) for contact in found[:size]], next_page_token=token
        )

    async def _ended(
        self, request: pb.CompleteTaskRequest | pb.CancelTaskRequest, state: TaskState
    ) -> Document:
        """The task once it has ended in a state. Raises: NotFound TASK_UNKNOWN; Refused TASK_ENDED."""
        while True:
            task = await self._store.find(request.brand_id, request.task_id, request.guide_id)
            if not follow_up.ends(TaskState(task["state"]), state):
                return task
            ended = await self._store.end(task, state, self._now())
            if ended is not None:
                return ended
            # Somebody else ended it this moment: how, the next look tells.

    async def _listed(self, brand_id: str, guide_id: str, tasks: Sequence[Document]) -> list[pb.ListedTask]:
        """The tasks of a guide, and for each whether its member is hers no longer."""
        members = await self._answering.find(brand_id, {task["member_id"] for task in tasks})
        hers = {
            member_id
            for member_id, member in members.items()
            if member.guide_id == guide_id and not member.erased
        }
        return [
            pb.ListedTask(task=self._tasks.message(task), member_left=task["member_id"] not in hers)
            for task in tasks
        ]


def _state(state: pb.TaskState.ValueType) -> TaskState:
    return TaskState(pb.TaskState.Name(state).removeprefix("TASK_STATE_"))
