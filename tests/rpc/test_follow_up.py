"""Follow-up over gRPC: tasks that are made once, end once and stay listed; contacts that are kept."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.times import to_timestamp
from daogou.members.v1 import activity_pb2, follow_up_pb2
from daogou.members.v1.directory_pb2 import SNATCH_ALWAYS, BindingPolicy
from daogou.members.v1.follow_up_pb2 import (
    CancelTaskRequest,
    CompleteTaskRequest,
    Contact,
    CreateTaskRequest,
    ListedTask,
    Task,
    UpdateTaskRequest,
)
from tests.rpc.care import Care
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id

DAY = timedelta(days=1)
OPEN, DONE = follow_up_pb2.TASK_STATE_OPEN, follow_up_pb2.TASK_STATE_DONE
CANCELLED = follow_up_pb2.TASK_STATE_CANCELLED


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running, policy=BindingPolicy(snatch=SNATCH_ALWAYS))


def new_task(
    world: World, member_id: str, days: float = 1, *, guide: int = 0, **more: Any
) -> CreateTaskRequest:
    """A task of a guide, due in some days."""
    due = to_timestamp(world.running.now() + days * DAY)
    return CreateTaskRequest(
        **{
            "brand_id": world.brand_id,
            "request_id": request_id(),
            "guide_id": world.guides[guide],
            "member_id": member_id,
            "task": Task(title="Call him", note="The coat has come", due_time=due),
            **more,
        }
    )


def update_of(world: World, task_id: str, task: Task, *paths: str, **more: Any) -> UpdateTaskRequest:
    return UpdateTaskRequest(
        **{
            "brand_id": world.brand_id,
            "task_id": task_id,
            "request_id": request_id(),
            "task": task,
            "update_mask": FieldMask(paths=paths),
            **more,
        }
    )


async def listed(world: World, *, guide: int = 0, size: int = 0, **filters: Any) -> list[ListedTask]:
    """All pages of a guide's tasks, as she sees them."""
    tasks: list[ListedTask] = []
    token = ""
    while True:
        request = follow_up_pb2.ListTasksRequest(
            brand_id=world.brand_id,
            guide_id=world.guides[guide],
            page_size=size,
            page_token=token,
            **filters,
        )
        reply = await Care(world.guide(guide)).follow_up.ListTasks(request)
        tasks += reply.tasks
        token = reply.next_page_token
        if not token:
            return tasks


async def test_a_task_is_made_once_for_one_request(world: World) -> None:
    """Also when the request is sent many times at once, and after the task has changed."""
    member_id, _ = await world.bound()
    care, request = Care(world.connector), new_task(world, member_id)
    replies = await asyncio.gather(*(care.follow_up.CreateTask(request) for _ in range(6)))
    task = replies[0].task
    assert all(reply.task == task for reply in replies)
    assert (task.title, task.note, task.state) == ("Call him", "The coat has come", OPEN)
    assert (task.guide_id, task.member_id) == (world.guides[0], member_id)
    await care.follow_up.UpdateTask(update_of(world, task.task_id, Task(title="Write to him"), "title"))
    assert (await care.follow_up.CreateTask(request)).task == task
    request.task.title = "Visit him"
    with world.running.nothing_written(world.brand_id):
        reused = await refusal(care.follow_up.CreateTask(request))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_task_is_for_a_member_of_hers(world: World) -> None:
    others, _ = await world.bound(1)
    with world.running.nothing_written(world.brand_id):
        for member_id in (others, world.member_id):
            found = await refusal(Care(world.admin).follow_up.CreateTask(new_task(world, member_id)))
            assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_HER_MEMBER")


async def test_a_change_has_one_effect_and_its_first_reply(world: World) -> None:
    """What the mask does not name stays."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    made = (await care.follow_up.CreateTask(new_task(world, member_id))).task
    first = update_of(world, made.task_id, Task(note="", title="not named"), "note")
    reply = await care.follow_up.UpdateTask(first)
    assert (reply.task.title, reply.task.note, reply.task.due_time) == ("Call him", "", made.due_time)
    due = to_timestamp(world.running.now() + 7 * DAY)
    await care.follow_up.UpdateTask(
        update_of(world, made.task_id, Task(note="new", due_time=due), "note", "due_time")
    )
    with world.running.nothing_written(world.brand_id):
        assert await care.follow_up.UpdateTask(first) == reply
        first.task.note = "another"
        assert (await refusal(care.follow_up.UpdateTask(first))).reason == "REQUEST_ID_REUSED"


async def test_a_task_ends_once_and_stays_as_it_ended(world: World) -> None:
    """A repeat is answered with what stands; nothing else can be done to it any more."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    for way, state in (("CompleteTask", DONE), ("CancelTask", CANCELLED)):
        made = (await care.follow_up.CreateTask(new_task(world, member_id))).task
        named = {"brand_id": world.brand_id, "task_id": made.task_id}
        calls: dict[str, Any] = {
            "CompleteTask": lambda named=named: care.follow_up.CompleteTask(CompleteTaskRequest(**named)),
            "CancelTask": lambda named=named: care.follow_up.CancelTask(CancelTaskRequest(**named)),
        }
        replies = await asyncio.gather(*(calls[way]() for _ in range(5)))
        assert len({reply.task.end_time.ToNanoseconds() for reply in replies}) == 1
        assert {reply.task.state for reply in replies} == {state}
        [other] = calls.keys() - {way}
        with world.running.nothing_written(world.brand_id):
            assert (await calls[way]()).task == replies[0].task
            assert (await refusal(calls[other]())).reason == "TASK_ENDED"
            change = update_of(world, made.task_id, Task(title="x"), "title")
            assert (await refusal(care.follow_up.UpdateTask(change))).reason == "TASK_ENDED"


async def test_of_two_who_end_a_task_differently_at_once_one_is_told_so(world: World) -> None:
    member_id, _ = await world.bound()
    care = Care(world.connector)
    for _ in range(5):
        made = (await care.follow_up.CreateTask(new_task(world, member_id))).task
        done = CompleteTaskRequest(brand_id=world.brand_id, task_id=made.task_id)
        cancelled = CancelTaskRequest(brand_id=world.brand_id, task_id=made.task_id)
        outcomes = await asyncio.gather(
            care.follow_up.CompleteTask(done), care.follow_up.CancelTask(cancelled), return_exceptions=True
        )
        assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 1


async def test_tasks_are_listed_by_due_time_of_one_guide_and_state(running: Running) -> None:
    """In pages of any size, though several are due at one moment."""
    world = await a_world(running, member=False)
    member_id, _ = await world.bound()
    care, due = Care(world.connector), to_timestamp(running.now() + DAY)
    made = [(await care.follow_up.CreateTask(new_task(world, member_id, days))).task for days in (3, 2, 0.5)]
    for title in ("a", "b", "c"):
        request = new_task(world, member_id, task=Task(title=title, due_time=due))
        made.append((await care.follow_up.CreateTask(request)).task)
    ordered = sorted(made, key=lambda task: (task.due_time.ToNanoseconds(), task.task_id))
    for size in (0, 1, 2, 1000):
        assert [one.task for one in await listed(world, size=size)] == ordered
    ended = ordered[2]
    await care.follow_up.CompleteTask(CompleteTaskRequest(brand_id=world.brand_id, task_id=ended.task_id))
    rest = [task for task in ordered if task != ended]
    assert [one.task for one in await listed(world, size=2, state=OPEN)] == rest
    assert [one.task.task_id for one in await listed(world, state=DONE)] == [ended.task_id]
    early = await listed(world, size=1, state=OPEN, due_before_time=to_timestamp(running.now() + 1.5 * DAY))
    assert [one.task for one in early] == rest[:3]
    assert await listed(world, guide=1) == []
    assert not any(one.member_left for one in await listed(world))


async def test_a_token_of_one_list_of_tasks_is_not_good_for_another(world: World) -> None:
    member_id, _ = await world.bound(2)
    guide = Care(world.guide(2))
    for _ in range(2):
        await guide.follow_up.CreateTask(new_task(world, member_id, guide=2))
    asked = follow_up_pb2.ListTasksRequest(brand_id=world.brand_id, guide_id=world.guides[2], page_size=1)
    asked.page_token = (await guide.follow_up.ListTasks(asked)).next_page_token
    assert asked.page_token
    asked.state = OPEN
    assert (await refusal(guide.follow_up.ListTasks(asked))).reason == "PAGE_TOKEN_INVALID"


async def test_a_task_whose_member_has_left_her_is_still_listed_and_says_so(running: Running) -> None:
    """And can still be ended; a new one for him cannot be made."""
    world = await a_world(running, policy=BindingPolicy(snatch=SNATCH_ALWAYS), member=False)
    leaving, identity = await world.bound()
    staying, _ = await world.bound()
    care = Care(world.guide(0))
    for member_id in (leaving, staying):
        await care.follow_up.CreateTask(new_task(world, member_id))
    await world.scan(await world.code(1), identity)
    left = {one.task.member_id: one.member_left for one in await listed(world)}
    assert left == {leaving: True, staying: False}
    assert (await refusal(care.follow_up.CreateTask(new_task(world, leaving)))).reason == "NOT_HER_MEMBER"
    [task] = [one.task for one in await listed(world) if one.member_left]
    await care.follow_up.CancelTask(
        CancelTaskRequest(brand_id=world.brand_id, task_id=task.task_id, guide_id=world.guides[0])
    )


async def test_a_guide_cannot_touch_anothers_tasks(world: World) -> None:
    """She is told that there is none."""
    member_id, _ = await world.bound(1)
    made = (await Care(world.guide(1)).follow_up.CreateTask(new_task(world, member_id, guide=1))).task
    guide, mine = Care(world.guide(0)), world.guides[0]
    named = {"brand_id": world.brand_id, "task_id": made.task_id, "guide_id": mine}
    with world.running.nothing_written(world.brand_id):
        for call in (
            guide.follow_up.UpdateTask(
                update_of(world, made.task_id, Task(title="x"), "title", guide_id=mine)
            ),
            guide.follow_up.CompleteTask(CompleteTaskRequest(**named)),
            guide.follow_up.CancelTask(CancelTaskRequest(**named)),
        ):
            found = await refusal(call)
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN")


# ---- contacts ---------------------------------------------------------------------------------------


def contact(world: World, member_id: str, time: datetime, *, guide: int = 0, **more: Any) -> Any:
    """A guide was in touch."""
    request = activity_pb2.RecordContactRequest(
        brand_id=world.brand_id,
        guide_id=world.guides[guide],
        member_id=member_id,
        contact_time=to_timestamp(time),
        **more,
    )
    return Care(world.guide(guide)).activity.RecordContact(request)


async def contacts_of(world: World, member_id: str, size: int = 0, guide_id: str = "") -> list[Contact]:
    """All pages of the contacts with a member."""
    contacts: list[Contact] = []
    token = ""
    while True:
        request = follow_up_pb2.ListContactsRequest(
            brand_id=world.brand_id,
            member_id=member_id,
            guide_id=guide_id,
            page_size=size,
            page_token=token,
        )
        reply = await Care(world.connector).follow_up.ListContacts(request)
        contacts += reply.contacts
        token = reply.next_page_token
        if not token:
            return contacts


async def test_contacts_are_kept_and_listed_newest_first(world: World) -> None:
    """With what was said; a caller who says neither how nor what is heard, too."""
    member_id, identity = await world.bound(0)
    now = world.running.now()
    await contact(world, member_id, now - 2 * DAY, kind=activity_pb2.CONTACT_KIND_CALL, note="He likes it")
    await contact(world, member_id, now - 3 * DAY)
    await world.scan(await world.code(1), identity)
    reply = await contact(world, member_id, now, guide=1, kind=activity_pb2.CONTACT_KIND_IN_STORE)
    assert reply.last_contact_time == to_timestamp(now)
    for size in (0, 1, 2):
        found = await contacts_of(world, member_id, size)
        assert [(one.guide_id, one.kind, one.note) for one in found] == [
            (world.guides[1], activity_pb2.CONTACT_KIND_IN_STORE, ""),
            (world.guides[0], activity_pb2.CONTACT_KIND_CALL, "He likes it"),
            (world.guides[0], activity_pb2.CONTACT_KIND_OTHER, ""),
        ]
    assert len(await contacts_of(world, member_id, guide_id=world.guides[1])) == 3
    with pytest.raises(grpc.aio.AioRpcError):
        await contacts_of(world, member_id, guide_id=world.guides[0])


async def test_a_contact_that_is_reported_twice_is_one(world: World) -> None:
    """The first report of it stays."""
    member_id, _ = await world.bound()
    time = world.running.now() - DAY
    await asyncio.gather(*(contact(world, member_id, time, note="first") for _ in range(4)))
    await contact(world, member_id, time, note="again", kind=activity_pb2.CONTACT_KIND_VISIT)
    [one] = await contacts_of(world, member_id)
    assert (one.note, one.contact_time) == ("first", to_timestamp(time))


async def test_a_contact_that_counts_for_nothing_is_not_kept(world: World) -> None:
    """By another guide, in the future, with somebody whom nobody knows."""
    member_id, _ = await world.bound(0)
    now = world.running.now()
    with world.running.nothing_written(world.brand_id):
        other = await refusal(contact(world, member_id, now, guide=1, note="mine"))
        early = await refusal(contact(world, member_id, now + DAY))
        unknown = await refusal(contact(world, "a" * 16, now))
    assert (other.reason, early.reason, unknown.reason) == (
        "NOT_HER_MEMBER",
        "ACTIVITY_IN_FUTURE",
        "MEMBER_UNKNOWN",
    )
    assert await contacts_of(world, member_id) == []
