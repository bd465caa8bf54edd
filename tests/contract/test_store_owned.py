"""What is added to a member while he is merged or erased is merged or erased with him, or not added."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from chassis.clock import Clock
from chassis.errors import Conflict, DaogouError
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_members.care import care
from svc_members.care.store_consent import ConsentStore
from svc_members.care.store_contact import ContactStore
from svc_members.care.store_follow_up import FollowUpStore
from svc_members.care.store_tag import TagStore
from svc_members.care.tagging import Tagging
from svc_members.member.store_erasure import ErasureStore
from tests.contract.members import BRAND, CLOCK, Members, card, members_of

COLLECTIONS = ("tags", "consents", "tasks", "contacts")


@pytest.fixture
async def members(database: Database) -> Members:
    await schema.migrate(database, Schema(1, care.INDEXES))
    return await members_of(database)


def additions(database: Database, member_id: str, number: int) -> list[Awaitable[Any]]:
    """One record of each kind, in a member's own name."""
    tagging, consents = Tagging(TagStore(database)), ConsentStore(database, Clock())

    def record(kind: str) -> Document:
        return {
            "_id": f"{BRAND}|{member_id}|{kind}|{number}",
            "brand_id": BRAND,
            "member_id": member_id,
            "origin_id": member_id,
        }

    return [
        tagging.add(BRAND, {member_id: member_id}, frozenset({f"t{number}"})),
        consents.record({**record("consent"), "purpose": f"p{number}", "consent_time": CLOCK.now()}),
        ContactStore(database).record({**record("contact"), "contact_time": CLOCK.now()}),
        FollowUpStore(database).insert({**record("task"), "task_id": f"{member_id}|task|{number}"}),
    ]


async def added_until_refused(database: Database, member_id: str, begun: asyncio.Event) -> int:
    """Adds records of all kinds, all the time, until he is merged or erased; how many. `begun`: some are."""
    for number in range(1000):
        if number:
            begun.set()
        outcomes = await asyncio.gather(*additions(database, member_id, number), return_exceptions=True)
        tagged = [one for one in outcomes if isinstance(one, dict)]
        refusals = [one for one in outcomes if isinstance(one, BaseException)]
        refusals += [one for results in tagged for one in results.values() if isinstance(one, DaogouError)]
        if refusals:
            assert all(isinstance(one, Conflict) and one.reason == "MEMBER_CHANGED" for one in refusals)
            return number
    raise AssertionError("he was never refused")


@pytest.mark.both_drivers
async def test_a_merge_misses_nothing_that_is_added_meanwhile(members: Members) -> None:
    """All of it is the survivor's, by the name that it came in."""
    for attempt in range(3):
        old, _ = await members.enrol(card(f"old {attempt}"))
        young, _ = await members.enrol(card(f"young {attempt}"))
        begun = asyncio.Event()
        adding = asyncio.create_task(added_until_refused(members.database, young, begun))
        await begun.wait()
        await asyncio.sleep(0.03 * attempt)
        await members.merges.merge(BRAND, old, young, f"merge-{attempt}", CLOCK.now())
        assert await adding > 0
        for name in COLLECTIONS:
            owners = await members.database[name].distinct("member_id", {"origin_id": young})
            assert owners == [old], name


async def test_an_erasure_misses_nothing_that_is_added_meanwhile(members: Members) -> None:
    """Nothing of him is left, and nothing is added any more."""
    member_id, _ = await members.enrol(card(1))
    begun = asyncio.Event()
    adding = asyncio.create_task(added_until_refused(members.database, member_id, begun))
    await begun.wait()
    await ErasureStore(members.database, members.store).erase(BRAND, member_id, CLOCK.now())
    assert await adding > 0
    for name in COLLECTIONS:
        assert await members.database[name].count_documents({"origin_id": member_id}) == 0, name


async def test_what_is_there_already_is_not_refused_for_it(members: Members) -> None:
    """A repeat after the merge finds what the first call added, with whom it is now."""
    old, _ = await members.enrol(card("old"))
    young, _ = await members.enrol(card("young"))
    await asyncio.gather(*additions(members.database, young, 1))
    await members.merges.merge(BRAND, old, young, "merge", CLOCK.now())
    _, consent, *_ = await asyncio.gather(*additions(members.database, young, 1), return_exceptions=True)
    assert isinstance(consent, dict)
    assert consent["member_id"] == old


async def test_undoing_a_merge_misses_nothing_that_is_added_meanwhile_in_the_others_name(
    members: Members,
) -> None:
    """It is his again, or it was not added."""
    for attempt in range(3):
        old, _ = await members.enrol(card(f"old {attempt}"))
        young, _ = await members.enrol(card(f"young {attempt}"))
        await members.merges.merge(BRAND, old, young, f"undone-{attempt}", CLOCK.now())
        contacts = ContactStore(members.database)

        async def add(number: int, young: str = young, old: str = old, store: Any = contacts) -> None:
            record = {"_id": f"{BRAND}|{young}|{number}", "brand_id": BRAND, "member_id": old}
            await store.record({**record, "origin_id": young, "contact_time": CLOCK.now()})

        undoing = members.merges.undo(BRAND, f"undone-{attempt}", CLOCK.now())
        outcomes = await asyncio.gather(
            *(add(number) for number in range(5)), undoing, return_exceptions=True
        )
        refused = [one for one in outcomes if isinstance(one, BaseException)]
        assert all(isinstance(one, Conflict) and one.reason == "MEMBER_CHANGED" for one in refused)
        with pytest.raises(Conflict):
            await add(99)
        owners = await members.database["contacts"].distinct("member_id", {"origin_id": young})
        assert owners in ([young], [])
