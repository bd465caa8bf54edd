"""What members told of themselves and what was noted of them: read by those who serve them, by no others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.times import to_timestamp
from daogou.members.v1 import activity_pb2, consent_pb2, follow_up_pb2, profile_pb2
from daogou.members.v1.follow_up_pb2 import Task
from daogou.members.v1.profile_pb2 import Birthday, Profile
from tests.rpc.care import Care, found, update_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id

BIRTHDAY = Birthday(month=11, day=23, year=1887)
"""Of a year in which nobody else here was born."""


@dataclass
class Planted:
    """A member of whom things are known that nobody else may come to know."""

    world: World
    member_id: str
    texts: dict[str, str]
    """What was planted, by where."""


@pytest.fixture(scope="module")
async def planted(running: Running) -> Planted:
    """Every text that is personal, written, changed, repeated, and refused."""
    world = await a_world(running)
    member_id, _ = await world.bound(0)
    care, guide, now = Care(world.connector), Care(world.guide(0)), to_timestamp(running.now())
    texts = {
        name: f"planted-{name}-{secrets.token_hex(8)}"
        for name in ("name", "remark", "evidence", "title", "note", "changed", "contact", "refused")
    }
    profile = Profile(display_name=texts["name"], remark=texts["remark"], birthday=BIRTHDAY, tier="gold")
    update = update_of(world, member_id, profile)
    for _ in range(2):
        await care.profiles.UpdateProfile(update)
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
    consent = consent_pb2.RecordConsentRequest(
        purpose="marketing-sms",
        state=consent_pb2.CONSENT_STATE_GIVEN,
        version="1",
        consent_time=now,
        channel=consent_pb2.CONSENT_CHANNEL_PAPER,
        evidence=texts["evidence"],
        **named,
    )
    await care.consents.RecordConsent(consent)
    hers = {**named, "guide_id": world.guides[0]}
    task = Task(title=texts["title"], note=texts["note"], due_time=now)
    made = await guide.follow_up.CreateTask(
        follow_up_pb2.CreateTaskRequest(request_id=request_id(), task=task, **hers)
    )
    change = follow_up_pb2.UpdateTaskRequest(
        brand_id=world.brand_id,
        task_id=made.task.task_id,
        request_id=request_id(),
        task=Task(note=texts["changed"]),
    )
    change.update_mask.paths.append("note")
    await care.follow_up.UpdateTask(change)
    await guide.activity.RecordContact(
        activity_pb2.RecordContactRequest(contact_time=now, note=texts["contact"], **hers)
    )
    wrong = Profile(display_name=texts["refused"], remark=texts["refused"] + "\x00")
    await refusal(care.profiles.UpdateProfile(update_of(world, member_id, wrong)))
    return Planted(world, member_id, texts)


async def test_those_who_serve_him_read_all_of_it(planted: Planted) -> None:
    """Else it would be no wonder that nobody else finds it."""
    world, member_id, texts = planted.world, planted.member_id, planted.texts
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
    care, guide = Care(world.admin), Care(world.guide(0))
    replies = await asyncio.gather(
        care.profiles.GetProfile(profile_pb2.GetProfileRequest(**named)),
        care.consents.ListConsentRecords(consent_pb2.ListConsentRecordsRequest(**named)),
        care.follow_up.ListContacts(follow_up_pb2.ListContactsRequest(**named)),
        guide.follow_up.ListTasks(
            follow_up_pb2.ListTasksRequest(brand_id=world.brand_id, guide_id=world.guides[0])
        ),
    )
    told = "\n".join(str(reply) for reply in replies)
    missing = {name for name, text in texts.items() if text not in told}
    assert missing == {"note", "refused"}, "the note was changed"
    assert replies[0].profile.birthday == BIRTHDAY
    [shown] = await found(care, world, tier="gold")
    assert shown.display_name == texts["name"]


async def test_no_log_tells_any_of_it(planted: Planted, running: Running) -> None:
    for name in ("members", "commission", "mongod"):
        log = running.log(name)
        assert log
        assert [where for where, text in planted.texts.items() if text in log] == [], name
        assert "1887-11-23" not in log


async def test_no_document_holds_any_of_it_in_the_clear(planted: Planted, running: Running) -> None:
    """Whoever steals a dump has nobody's name, birthday or story."""
    forms = [b"1887-11-23", BIRTHDAY.SerializeToString()]
    size = 0
    for collection, document in running.dump():
        size += len(document)
        held = document.decode("latin-1")
        assert [where for where, text in planted.texts.items() if text in held] == [], collection
        assert not [form for form in forms if form in document], collection
    assert size > 5_000


async def test_of_the_birthday_only_the_month_is_in_the_clear(planted: Planted, running: Running) -> None:
    key = f"{planted.world.brand_id}|{planted.member_id}"
    [document] = running.documents("members", "members", {"_id": key})
    assert document["profile"]["birthday_month"] == 11
    numbers = set(numbers_in(document))
    assert 11 in numbers
    assert not numbers & {23, 1887, 1123}


def numbers_in(value: Any) -> Iterator[int]:
    """Every whole number of a document, at any depth."""
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers_in(part)
    elif isinstance(value, int):
        yield value
