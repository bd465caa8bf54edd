"""Tasks and contacts in the database: each once, changed by one at a time, listed in their order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.errors import Conflict, NotFound
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_members.care import store_contact, store_follow_up
from svc_members.care.store_contact import ContactStore
from svc_members.care.store_follow_up import FollowUpStore
from svc_members.rules.follow_up import TaskState
from tests.contract.owners import let_be

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: Database) -> FollowUpStore:
    await schema.migrate(database, Schema(1, [*store_follow_up.INDEXES, *store_contact.INDEXES]))
    await let_be(database, BRAND, ["bob", "eve"])
    await let_be(database, OTHER, ["bob"])
    return FollowUpStore(database)


def task(name: str, hours: int = 0, **more: Any) -> Document:
    """An open task of Ann's."""
    return {
        "_id": f"{BRAND}|{name}",
        "brand_id": BRAND,
        "task_id": name,
        "guide_id": "ann",
        "member_id": "bob",
        "origin_id": "bob",
        "state": "OPEN",
        "due_time": NOON + hours * HOUR,
        "rev": 1,
        "receipts": [],
        **more,
    }


async def test_creating_a_task_again_returns_the_first(store: FollowUpStore) -> None:
    assert (await store.insert(task("t1", title=b"first")))["title"] == b"first"
    again = await asyncio.gather(*(store.insert(task("t1", title=b"again")) for _ in range(4)))
    assert {one["title"] for one in again} == {b"first"}


async def test_a_task_is_found_by_the_guide_whose_it_is(store: FollowUpStore) -> None:
    await store.insert(task("t1"))
    assert (await store.find(BRAND, "t1"))["task_id"] == "t1"
    assert (await store.find(BRAND, "t1", "ann"))["task_id"] == "t1"
    for brand_id, guide_id in [(BRAND, "bea"), (OTHER, "ann")]:
        with pytest.raises(NotFound) as unknown:
            await store.find(brand_id, "t1", guide_id)
        assert unknown.value.reason == "TASK_UNKNOWN"


@pytest.mark.both_drivers
async def test_of_many_who_end_a_task_at_once_one_does(store: FollowUpStore) -> None:
    await store.insert(task("t1"))
    read = await store.find(BRAND, "t1")
    states = [TaskState.DONE, TaskState.CANCELLED] * 4
    outcomes = await asyncio.gather(*(store.end(read, state, NOON) for state in states))
    [ended] = [one for one in outcomes if one is not None]
    assert await store.find(BRAND, "t1") == ended
    assert ended["end_time"] == NOON


async def test_of_two_who_change_a_task_at_once_one_must_look_again(store: FollowUpStore) -> None:
    """And so must who changes one that has ended meanwhile."""
    await store.insert(task("t1"))
    read = await store.find(BRAND, "t1")
    await store.change(read, {"title": b"new"}, [])
    with pytest.raises(Conflict) as changed:
        await store.change(read, {"title": b"other"}, [])
    assert changed.value.reason == "TASK_CHANGED"
    read = await store.find(BRAND, "t1")
    await store.end(read, TaskState.DONE, NOON)
    with pytest.raises(Conflict):
        await store.change(read, {"title": b"late"}, [])
    assert (await store.find(BRAND, "t1"))["title"] == b"new"


async def test_a_change_leaves_alone_whose_task_it_is(store: FollowUpStore, database: Database) -> None:
    """A merge may have given it to another since it was read."""
    await store.insert(task("t1"))
    read = await store.find(BRAND, "t1")
    await database["tasks"].update_many({"member_id": "bob"}, {"$set": {"member_id": "old"}})
    await store.change(read, {"title": b"new"}, [])
    assert (await store.find(BRAND, "t1"))["member_id"] == "old"


async def all_tasks(
    store: FollowUpStore, state: TaskState | None = None, due_before: datetime | None = None
) -> list[str]:
    """Ann's tasks, two at a time."""
    found: list[Document] = []
    while page := await store.page(
        BRAND,
        "ann",
        (state, due_before),
        (found[-1]["due_time"], found[-1]["task_id"]) if found else None,
        2,
    ):
        found += page
    return [one["task_id"] for one in found]


async def test_tasks_are_listed_by_due_time_then_by_id(store: FollowUpStore) -> None:
    """Several are due at one moment; pages end among them."""
    for name, hours in [("e", 1), ("c", 0), ("a", 1), ("d", 1), ("b", 2), ("f", 0)]:
        await store.insert(task(name, hours))
    await store.insert(task("other", guide_id="bea"))
    await store.insert({**task("c"), "_id": f"{OTHER}|c", "brand_id": OTHER})
    assert await all_tasks(store) == ["c", "f", "a", "d", "e", "b"]
    assert await all_tasks(store, due_before=NOON + HOUR) == ["c", "f"]
    await store.end(await store.find(BRAND, "d"), TaskState.DONE, NOON)
    assert await all_tasks(store, TaskState.OPEN) == ["c", "f", "a", "e", "b"]
    assert await all_tasks(store, TaskState.OPEN, NOON + 2 * HOUR) == ["c", "f", "a", "e"]
    assert await all_tasks(store, TaskState.DONE) == ["d"]
    assert await all_tasks(store, TaskState.CANCELLED) == []


def contact(name: str, hours: int, member: str = "bob", **more: Any) -> Document:
    """A contact with Bob."""
    return {
        "_id": f"{BRAND}|{member}|{name}|{hours}",
        "brand_id": BRAND,
        "member_id": member,
        "origin_id": member,
        "guide_id": name,
        "contact_time": NOON + hours * HOUR,
        **more,
    }


async def test_a_contact_that_is_reported_twice_is_one(store: FollowUpStore, database: Database) -> None:
    """The first report stays; at once as one after the other."""
    contacts = ContactStore(database)
    await contacts.record(contact("ann", 0, note=b"first"))
    await asyncio.gather(*(contacts.record(contact("ann", 0, note=b"again")) for _ in range(4)))
    await asyncio.gather(*(contacts.record(contact("ann", 1)) for _ in range(4)))
    found = await contacts.page(BRAND, "bob", None, 10)
    assert [one.get("note") for one in found] == [None, b"first"]


async def test_contacts_are_listed_newest_first(store: FollowUpStore, database: Database) -> None:
    """Whoever made them; several of one moment are told apart by their ids."""
    contacts = ContactStore(database)
    for name, hours in [("ann", 0), ("bea", 2), ("ann", 2), ("cat", 2), ("ann", 1)]:
        await contacts.record(contact(name, hours))
    await contacts.record(contact("ann", 5, member="eve"))
    found: list[Document] = []
    while page := await contacts.page(
        BRAND, "bob", (found[-1]["contact_time"], found[-1]["_id"]) if found else None, 2
    ):
        found += page
    assert [one["_id"].split("|", 2)[2] for one in found] == ["cat|2", "bea|2", "ann|2", "ann|1", "ann|0"]
    assert await contacts.page(OTHER, "bob", None, 10) == []
