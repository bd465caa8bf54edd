"""Profiles in the members' documents, and who answers for many ids at once."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import Conflict
from chassis.mongo.connection import Database, Document
from svc_members.care.store_profile import ProfileStore
from svc_members.member.member_document import Member
from svc_members.member.store_answering import Answering, AnsweringStore
from svc_members.rules import binding
from svc_members.rules.binding import Scan
from tests.contract.members import ALWAYS, BRAND, CLOCK, Members, card, members_of, the_standing


@pytest.fixture
async def members(database: Database) -> Members:
    return await members_of(database)


@pytest.fixture
async def store(database: Database) -> ProfileStore:
    return ProfileStore(database)


async def read(members: Members, member: Member) -> Member:
    """The member as he is by now."""
    return await members.store.find(BRAND, member.member_id)


async def document(members: Members, member: Member) -> Document:
    """The member's document."""
    found = await members.database["members"].find_one({"_id": member.key})
    assert found is not None
    return found


@pytest.mark.both_drivers
async def test_fields_are_set_and_cleared_one_by_one(members: Members, store: ProfileStore) -> None:
    """Nothing stays of what was cleared, and all of what was not named."""
    member, _ = await members.scan("ann", card(1))
    assert await store.find(member) == ({}, [])
    await store.save(member, {"tier": "gold", "birthday_month": 3}, [{"key": "one"}])
    await store.save(await read(members, member), {"tier": None, "gender": "FEMALE"}, [{"key": "two"}])
    assert await store.find(member) == ({"birthday_month": 3, "gender": "FEMALE"}, [{"key": "two"}])
    assert (await document(members, member))["profile"] == {"birthday_month": 3, "gender": "FEMALE"}


@pytest.mark.both_drivers
async def test_who_read_before_somebody_wrote_must_read_again(members: Members, store: ProfileStore) -> None:
    """A profile and a scan are writes of one document, and neither loses the other's."""
    member, _ = await members.scan("ann", card(1), ALWAYS)
    await members.scan("bea", card(1), ALWAYS)
    with pytest.raises(Conflict) as stale:
        await store.save(member, {"tier": "gold"}, [])
    assert stale.value.reason == "MEMBER_CHANGED"
    assert await store.find(member) == ({}, [])

    member = await read(members, member)
    await store.save(member, {"tier": "gold"}, [])
    scan = Scan("cat", "east", "", CLOCK.now(), False)
    with pytest.raises(Conflict):
        await members.store.save_rows(member, binding.scan(member.rows, scan, ALWAYS, "stale"))
    await members.scan("cat", card(1), ALWAYS)
    assert the_standing(await read(members, member)).guide_id == "cat"
    assert await store.find(member) == ({"tier": "gold"}, [])


async def test_what_is_written_anew_is_the_members_own(members: Members, store: ProfileStore) -> None:
    """A merge notes which fields the other brought, to take them away again."""
    old, _ = await members.scan("ann", card(1))
    young, _ = await members.scan("ann", card(2))
    await store.save(young, {"tier": "gold", "gender": "FEMALE", "language_code": "zh"}, [])
    await members.merges.merge(BRAND, old.member_id, young.member_id, "merge", CLOCK.now())
    both = await read(members, young)
    assert both.member_id == old.member_id
    assert (await document(members, both))["profile_from"].keys() == {"tier", "gender", "language_code"}
    await store.save(both, {"tier": "silver", "gender": None}, [])
    assert (await document(members, both))["profile_from"] == {"language_code": young.member_id}
    await members.merges.undo(BRAND, "merge", CLOCK.now())
    assert (await store.find(old))[0] == {"tier": "silver"}
    assert (await store.find(young))[0] == {"tier": "gold", "gender": "FEMALE", "language_code": "zh"}


async def test_who_answers_for_many_ids_is_told_at_once(members: Members, database: Database) -> None:
    """Also along a chain of merges; unknown ids are left out."""
    found: list[Any] = [(await members.scan("ann", card(number)))[0].member_id for number in range(4)]
    old, middle, young, erased = found
    await members.merges.merge(BRAND, middle, young, "one", CLOCK.now())
    await members.merges.merge(BRAND, old, middle, "two", CLOCK.now())
    await database["members"].update_one(
        {"_id": f"{BRAND}|{erased}"}, {"$set": {"erased_time": CLOCK.now(), "standing": None}}
    )
    answering = AnsweringStore(database)
    answers = await answering.find(BRAND, [*found, "nobody"])
    assert answers.pop(erased) == Answering(erased, "", True)
    assert answers.keys() == {old, middle, young}
    for hers in answers.values():
        assert (hers.member_id, hers.guide_id, hers.erased) == (old, "ann", False)
        assert sorted(hers.absorbed) == sorted([middle, young])
    assert await answering.find("another", found) == {}
    assert await answering.find(BRAND, []) == {}
