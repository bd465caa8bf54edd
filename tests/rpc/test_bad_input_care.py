"""What is refused about profiles, tags, consents, tasks, searches: every field at once, nothing written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.ids import new_id
from chassis.times import to_timestamp
from daogou.members.v1 import (
    activity_pb2,
    consent_pb2,
    follow_up_pb2,
    member_search_pb2,
    profile_pb2,
    tag_pb2,
)
from daogou.members.v1.follow_up_pb2 import Task
from daogou.members.v1.profile_pb2 import Birthday, Profile
from tests.rpc.care import Care, update_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id

Call = Callable[[World], Awaitable[object]]
NOBODY: Final = new_id()
NEVER: Final = Timestamp(seconds=-1)


def update_profile(world: World, profile: Profile, **more: Any) -> Awaitable[object]:
    request = update_of(world, world.member_id, profile, **more)
    return Care(world.connector).profiles.UpdateProfile(request)


def add_tags(world: World, *tags: str, **more: Any) -> Awaitable[object]:
    request = tag_pb2.AddTagsRequest(
        **{"brand_id": world.brand_id, "member_id": world.member_id, "tags": tags, **more}
    )
    return Care(world.connector).tags.AddTags(request)


def remove_tags(world: World, *tags: str, **more: Any) -> Awaitable[object]:
    request = tag_pb2.RemoveTagsRequest(
        **{"brand_id": world.brand_id, "member_id": world.member_id, "tags": tags, **more}
    )
    return Care(world.connector).tags.RemoveTags(request)


def tag_members(world: World, count: int, *tags: str) -> Awaitable[object]:
    item = tag_pb2.BatchTagMembersRequest.Item(member_id=world.member_id)
    request = tag_pb2.BatchTagMembersRequest(brand_id=world.brand_id, items=[item] * count, tags=tags)
    return Care(world.connector).tags.BatchTagMembers(request)


def record_consent(world: World, **more: Any) -> Awaitable[object]:
    request = consent_pb2.RecordConsentRequest(
        **{
            "brand_id": world.brand_id,
            "member_id": world.member_id,
            "purpose": "marketing-sms",
            "state": consent_pb2.CONSENT_STATE_GIVEN,
            "version": "1",
            "consent_time": to_timestamp(world.running.now()),
            "channel": consent_pb2.CONSENT_CHANNEL_WEB,
            **more,
        }
    )
    return Care(world.connector).consents.RecordConsent(request)


def record_contact(world: World, **more: Any) -> Awaitable[object]:
    request = activity_pb2.RecordContactRequest(
        **{
            "brand_id": world.brand_id,
            "member_id": world.member_id,
            "guide_id": world.guides[0],
            "contact_time": to_timestamp(world.running.now()),
            **more,
        }
    )
    return Care(world.connector).activity.RecordContact(request)


def create_task(world: World, task: Task | None, **more: Any) -> Awaitable[object]:
    request = follow_up_pb2.CreateTaskRequest(
        **{
            "brand_id": world.brand_id,
            "request_id": request_id(),
            "guide_id": world.guides[0],
            "member_id": world.member_id,
            "task": task,
            **more,
        }
    )
    return Care(world.connector).follow_up.CreateTask(request)


def update_task(world: World, task: Task, *paths: str, **more: Any) -> Awaitable[object]:
    request = follow_up_pb2.UpdateTaskRequest(
        **{
            "brand_id": world.brand_id,
            "task_id": NOBODY,
            "request_id": request_id(),
            "task": task,
            "update_mask": FieldMask(paths=paths),
            **more,
        }
    )
    return Care(world.connector).follow_up.UpdateTask(request)


def search(world: World, **filters: Any) -> Awaitable[object]:
    request = member_search_pb2.SearchMembersRequest(**{"brand_id": world.brand_id, **filters})
    return Care(world.connector).search.SearchMembers(request)


INVALID: Final[Mapping[str, tuple[Call, set[str]]]] = {
    # ---- profiles
    "a profile of which all is wrong": (
        lambda w: update_profile(
            w,
            Profile(
                display_name="x" * 101,
                gender=9,  # type: ignore[arg-type]
                birthday=Birthday(month=13, day=32, year=1879),
                language_code="zh_CN",
                tier="a tier",
                tier_expire_time=NEVER,
                remark="名" * 501,
            ),
            request_id="short",
            guide_id="she",
        ),
        {
            "guide_id",
            "request_id",
            "profile.display_name",
            "profile.gender",
            "profile.birthday.month",
            "profile.birthday.day",
            "profile.birthday.year",
            "profile.language_code",
            "profile.tier",
            "profile.tier_expire_time",
            "profile.remark",
        },
    ),
    "a tier of 33 characters": (lambda w: update_profile(w, Profile(tier="x" * 33)), {"profile.tier"}),
    "a language of 36 characters, and one line feed": (
        lambda w: update_profile(w, Profile(language_code="a" * 36, remark="a\nb")),
        {"profile.language_code", "profile.remark"},
    ),
    "30 February": (
        lambda w: update_profile(w, Profile(birthday=Birthday(month=2, day=30))),
        {"profile.birthday.day"},
    ),
    "29 February 2026": (
        lambda w: update_profile(w, Profile(birthday=Birthday(month=2, day=29, year=2026))),
        {"profile.birthday.day"},
    ),
    "a birthday without month and day": (
        lambda w: update_profile(w, Profile(birthday=Birthday(year=1987))),
        {"profile.birthday.month", "profile.birthday.day"},
    ),
    "a birthday to come": (
        lambda w: update_profile(w, Profile(birthday=Birthday(month=1, day=1, year=9999))),
        {"profile.birthday"},
    ),
    "fields that a profile has not": (
        lambda w: update_profile(
            w, Profile(tier="gold"), update_mask=FieldMask(paths=["tier", "phone", "birthday.year"])
        ),
        {"update_mask"},
    ),
    "a profile without mask": (
        lambda w: update_profile(w, Profile(tier="gold"), update_mask=None),
        {"update_mask"},
    ),
    "a profile of nobody in no brand": (
        lambda w: Care(w.service).profiles.GetProfile(profile_pb2.GetProfileRequest(guide_id="x")),
        {"brand_id", "member_id", "guide_id"},
    ),
    # ---- tags
    "no tags": (add_tags, {"tags"}),
    "101 tags": (lambda w: add_tags(w, *(f"t{number}" for number in range(101))), {"tags"}),
    "tags that are none": (
        lambda w: add_tags(w, "good", "", "   ", "x" * 65, "a\tb", "\u3000"),
        {"tags[1]", "tags[2]", "tags[3]", "tags[4]", "tags[5]"},
    ),
    "tags that are none, taken": (
        lambda w: remove_tags(w, "", "good", "a\x00b", member_id="he", guide_id="she"),
        {"tags[0]", "tags[2]", "member_id", "guide_id"},
    ),
    "1,001 members to tag": (lambda w: tag_members(w, 1001, "good"), {"items"}),
    "nobody to tag with nothing": (lambda w: tag_members(w, 0), {"items", "tags"}),
    "many to tag with nothing": (lambda w: tag_members(w, 2, " ", "good"), {"tags[0]"}),
    "tags by the 1,001": (
        lambda w: Care(w.service).tags.ListTags(
            tag_pb2.ListTagsRequest(brand_id=w.brand_id, page_size=1001, page_token="x" * 513)
        ),
        {"member_id", "page_size", "page_token"},
    ),
    # ---- consents
    "a consent of which all is wrong": (
        lambda w: record_consent(
            w,
            member_id="he",
            guide_id="she",
            purpose="to all",
            state=3,
            version="v" * 65,
            consent_time=NEVER,
            channel=7,
            evidence="x" * 201,
        ),
        {
            "member_id",
            "guide_id",
            "purpose",
            "state",
            "version",
            "consent_time",
            "channel",
            "evidence",
        },
    ),
    "a consent of nothing": (
        lambda w: Care(w.connector).consents.RecordConsent(
            consent_pb2.RecordConsentRequest(brand_id=w.brand_id)
        ),
        {"member_id", "purpose", "state", "consent_time", "channel"},
    ),
    "a consent to no text, said nowhere": (
        lambda w: record_consent(w, version="", channel=0),
        {"version", "channel"},
    ),
    "consents by the minus one": (
        lambda w: Care(w.admin).consents.ListConsentRecords(
            consent_pb2.ListConsentRecordsRequest(brand_id=w.brand_id, member_id="he", page_size=-1)
        ),
        {"member_id", "page_size"},
    ),
    # ---- contacts and tasks
    "a contact that is too long and of no kind": (
        lambda w: record_contact(w, kind=99, note="x" * 501),
        {"kind", "note"},
    ),
    "a task of which all is wrong": (
        lambda w: create_task(
            w,
            Task(title="x" * 101, note="x" * 501, due_time=NEVER),
            request_id="a b",
            guide_id="she",
            member_id="he",
        ),
        {"request_id", "guide_id", "member_id", "task.title", "task.note", "task.due_time"},
    ),
    "a task of nothing": (lambda w: create_task(w, Task()), {"task.title", "task.due_time"}),
    "no task": (lambda w: create_task(w, None, guide_id="", member_id=""), {"guide_id", "member_id", "task"}),
    "a task's title taken away, and what cannot be changed": (
        lambda w: update_task(w, Task(), "title", "member_id", "state"),
        {"task.title", "update_mask"},
    ),
    "a task changed in nothing that there is": (
        lambda w: update_task(w, Task(title="x"), "colour", task_id="it", request_id=""),
        {"task_id", "request_id", "update_mask"},
    ),
    "a task that is done and has no id": (
        lambda w: Care(w.connector).follow_up.CompleteTask(
            follow_up_pb2.CompleteTaskRequest(brand_id=w.brand_id, guide_id="she")
        ),
        {"task_id", "guide_id"},
    ),
    "nobody's tasks in no state": (
        lambda w: Care(w.connector).follow_up.ListTasks(
            follow_up_pb2.ListTasksRequest(
                brand_id=w.brand_id,
                state=9,  # type: ignore[arg-type]
                due_before_time=NEVER,
                page_size=1001,
            )
        ),
        {"guide_id", "state", "due_before_time", "page_size"},
    ),
    "contacts with nobody": (
        lambda w: Care(w.connector).follow_up.ListContacts(
            follow_up_pb2.ListContactsRequest(brand_id=w.brand_id, page_size=2000)
        ),
        {"member_id", "page_size"},
    ),
    # ---- search
    "a search for anybody": (lambda w: search(w, page_size=10), {"filters"}),
    "a search of which all is wrong": (
        lambda w: search(
            w,
            guide_id="she",
            store_id="there",
            tag="x" * 65,
            tier="a tier",
            last_purchase_from_time=NEVER,
            last_purchase_to_time=Timestamp(nanos=-1),
            birthday_month=13,
            page_size=201,
        ),
        {
            "guide_id",
            "store_id",
            "tag",
            "tier",
            "last_purchase_from_time",
            "last_purchase_to_time",
            "birthday_month",
            "page_size",
        },
    ),
    "a search that ends before it begins, for a tag of spaces and a long tier": (
        lambda w: search(
            w,
            tag="  ",
            tier="x" * 33,
            last_purchase_from_time=to_timestamp(w.running.now()),
            last_purchase_to_time=to_timestamp(w.running.now() - timedelta(days=1)),
        ),
        {"tag", "tier", "last_purchase_to_time"},
    ),
    "a search in an empty span": (
        lambda w: search(w, last_purchase_from_time=Timestamp(), last_purchase_to_time=Timestamp()),
        {"last_purchase_to_time"},
    ),
}


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running)


@pytest.mark.parametrize("name", INVALID)
async def test_every_offending_field_is_named_and_nothing_is_written(name: str, world: World) -> None:
    call, fields = INVALID[name]
    with world.running.nothing_written(world.brand_id):
        found = await refusal(call(world))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert found.fields == fields


async def in_the_name_of(world: World, member_id: str) -> dict[str, Awaitable[object]]:
    """Every call about one member, by its name."""
    care = Care(world.connector)
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
    task = Task(title="Call him", due_time=to_timestamp(world.running.now()))
    return {
        "GetProfile": care.profiles.GetProfile(profile_pb2.GetProfileRequest(**named)),
        "UpdateProfile": care.profiles.UpdateProfile(update_of(world, member_id, Profile(tier="gold"))),
        "AddTags": add_tags(world, "vip", member_id=member_id),
        "RemoveTags": remove_tags(world, "vip", member_id=member_id),
        "ListTags": care.tags.ListTags(tag_pb2.ListTagsRequest(**named)),
        "RecordConsent": record_consent(world, member_id=member_id),
        "GetConsents": care.consents.GetConsents(consent_pb2.GetConsentsRequest(**named)),
        "ListConsentRecords": care.consents.ListConsentRecords(
            consent_pb2.ListConsentRecordsRequest(**named)
        ),
        "CreateTask": create_task(world, task, member_id=member_id),
        "RecordContact": record_contact(world, member_id=member_id),
        "ListContacts": care.follow_up.ListContacts(follow_up_pb2.ListContactsRequest(**named)),
    }


async def test_an_unknown_member_and_another_brands_are_unknown_to_every_call(
    running: Running, world: World
) -> None:
    """And nothing is written in their names."""
    other = await a_world(running)
    with running.nothing_written(world.brand_id, other.brand_id):
        for member_id in (NOBODY, other.member_id):
            for name, call in (await in_the_name_of(world, member_id)).items():
                found = await refusal(call)
                assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBER_UNKNOWN"), name


async def test_a_token_that_no_list_gave_is_refused_by_every_list(world: World) -> None:
    """Also one of another list."""
    care, named = Care(world.connector), {"brand_id": world.brand_id, "member_id": world.member_id}
    await add_tags(world, "a", "b")
    asked = tag_pb2.ListTagsRequest(brand_id=world.brand_id, member_id=world.member_id, page_size=1)
    real = (await care.tags.ListTags(asked)).next_page_token
    assert real
    for token in ("x", "导购", "A" * 64, real):
        paged: dict[str, Any] = {**named, "page_token": token}
        calls: list[Awaitable[object]] = [
            care.consents.ListConsentRecords(consent_pb2.ListConsentRecordsRequest(**paged)),
            care.follow_up.ListContacts(follow_up_pb2.ListContactsRequest(**paged)),
            care.follow_up.ListTasks(
                follow_up_pb2.ListTasksRequest(
                    brand_id=world.brand_id, guide_id=world.guides[0], page_token=token
                )
            ),
            search(world, tier="gold", page_token=token),
        ]
        if token != real:
            calls.append(care.tags.ListTags(tag_pb2.ListTagsRequest(**paged)))
        for call in calls:
            found = await refusal(call)
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_an_unknown_task_is_unknown_to_every_call(running: Running, world: World) -> None:
    """Another brand's as well."""
    other = await a_world(running)
    member_id, _ = await other.bound()
    task = Task(title="Call him", due_time=to_timestamp(running.now()))
    made = await Care(other.connector).follow_up.CreateTask(
        follow_up_pb2.CreateTaskRequest(
            brand_id=other.brand_id,
            request_id=request_id(),
            guide_id=other.guides[0],
            member_id=member_id,
            task=task,
        )
    )
    care = Care(world.connector)
    with running.nothing_written(world.brand_id, other.brand_id):
        for task_id in (NOBODY, made.task.task_id):
            named: dict[str, Any] = {"brand_id": world.brand_id, "task_id": task_id}
            for call in (
                update_task(world, task, "title", task_id=task_id),
                care.follow_up.CompleteTask(follow_up_pb2.CompleteTaskRequest(**named)),
                care.follow_up.CancelTask(follow_up_pb2.CancelTaskRequest(**named)),
            ):
                found = await refusal(call)
                assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN")
