"""Tags in the database: each once, never too many, and with whom a merge puts them."""

from __future__ import annotations

import asyncio

import pytest

from chassis.errors import DaogouError
from chassis.mongo import schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from svc_members.care import store_tag
from svc_members.care.store_tag import TagSet, TagStore
from svc_members.care.tagging import Tagging
from svc_members.rules.tag import TAGS_MAX
from tests.contract.owners import let_be

BRAND, OTHER = "a" * 16, "b" * 16
MANY = [f"m{number:03}" for number in range(250)]


@pytest.fixture
async def store(database: Database) -> TagStore:
    await schema.migrate(database, Schema(1, store_tag.INDEXES))
    await let_be(
        database, BRAND, ["ann", "bob", "old", "young", "full", *"abcde", *MANY], {"young": "old", "a2": "a"}
    )
    return TagStore(database)


async def add(store: TagStore, name: str, *tags: str, to: str = "") -> int | str:
    """Gives tags in an id's name to who answers for it; how many he then has, or why he did not get them."""
    [result] = (await Tagging(store).add(BRAND, {name: to or name}, frozenset(tags))).values()
    return result.reason if isinstance(result, DaogouError) else result


async def tags_of(store: TagStore, member: str, brand_id: str = BRAND) -> list[str]:
    """All tags of a member, as often as they stand."""
    sets = (await store.find(brand_id, [member]))[member]
    return sorted(tag for one in sets for tag in one.tags)


def numbered(start: int, end: int) -> list[str]:
    return [f"t{number}" for number in range(start, end)]


@pytest.mark.both_drivers
async def test_a_tag_that_is_given_twice_is_there_once(store: TagStore) -> None:
    assert await add(store, "ann", "vip", "silk") == 2
    assert await add(store, "ann", "vip") == 2
    assert await add(store, "ann", "VIP") == 3
    assert await tags_of(store, "ann") == ["VIP", "silk", "vip"]
    assert await tags_of(store, "ann", OTHER) == []


async def test_a_repeat_writes_nothing(store: TagStore, database: Database) -> None:
    await add(store, "ann", "vip")
    before = await database["tags"].find_one({})
    await add(store, "ann", "vip")
    assert await database["tags"].find_one({}) == before


@pytest.mark.both_drivers
async def test_of_many_who_tag_one_member_at_once_none_is_lost(store: TagStore) -> None:
    """Nor when he had no tag before."""
    await asyncio.gather(*(add(store, "ann", f"t{number}") for number in range(20)))
    assert await tags_of(store, "ann") == sorted(numbered(0, 20))


async def test_tags_given_and_taken_at_once_are_given_or_taken(store: TagStore) -> None:
    """And what neither is about stays."""
    await add(store, "ann", "stays", "goes")
    await asyncio.gather(
        *(add(store, "ann", f"new{number}") for number in range(10)),
        *(store.remove(BRAND, "ann", ["goes"]) for _ in range(10)),
    )
    assert await tags_of(store, "ann") == sorted(["stays", *(f"new{number}" for number in range(10))])


async def test_a_member_gets_no_more_than_three_thousand_whoever_gives_them(store: TagStore) -> None:
    """All of a call's, or none; at once as one after the other."""
    for start in range(0, TAGS_MAX - 50, 1000):
        await add(store, "ann", *numbered(start, min(start + 1000, TAGS_MAX - 50)))
    results = await asyncio.gather(*(add(store, "ann", *numbered(at, at + 30)) for at in (5000, 6000, 7000)))
    assert sorted(map(str, results)) == [str(TAGS_MAX - 20), "TOO_MANY_TAGS", "TOO_MANY_TAGS"]
    assert await add(store, "ann", "t0", "t1") == TAGS_MAX - 20, "he has them"
    assert len(await tags_of(store, "ann")) == TAGS_MAX - 20


async def test_tags_come_in_the_name_of_an_id_and_stand_with_who_answers_for_it(store: TagStore) -> None:
    """So that a merge can move them, and its end move them back."""
    await add(store, "old", "vip")
    assert await add(store, "young", "silk", "vip", to="old") == 2, "vip is one tag"
    sets = (await store.find(BRAND, ["old"]))["old"]
    found = {one.origin_id: (one.member_id, sorted(one.tags)) for one in sets}
    assert found == {"old": ("old", ["vip"]), "young": ("old", ["silk", "vip"])}
    await store.remove(BRAND, "old", ["vip"])
    assert await tags_of(store, "old") == ["silk"], "whoever brought it"


async def test_a_set_that_a_merge_moves_meanwhile_stays_where_it_was_put(
    store: TagStore, database: Database
) -> None:
    await add(store, "young", "silk")
    [read] = (await store.find(BRAND, ["young"]))["young"]
    await database["tags"].update_many({"member_id": "young"}, {"$set": {"member_id": "old"}})
    assert await store.save(BRAND, [TagSet("young", "young", read.rev, read.tags | {"vip"})])
    assert await tags_of(store, "old") == ["silk", "vip"]


async def test_what_somebody_else_has_written_is_not_overwritten(store: TagStore) -> None:
    """The others of the same write are written."""
    await add(store, "ann", "vip")
    [stale] = (await store.find(BRAND, ["ann"]))["ann"]
    await add(store, "ann", "silk")
    new = TagSet("bob", "bob", 0, frozenset({"vip"}))
    first = TagSet("ann", "ann", 0, frozenset({"gone"}))
    for late in (stale, first):
        assert not await store.save(BRAND, [late, new])
    assert await tags_of(store, "ann") == ["silk", "vip"]
    assert await tags_of(store, "bob") == ["vip"]


async def test_many_members_are_tagged_and_each_is_answered_for_himself(store: TagStore) -> None:
    """More of them than are read at once; one of them has no room."""
    await Tagging(store).add(BRAND, {"full": "full"}, frozenset(numbered(0, TAGS_MAX)))
    whom = {name: name for name in [*MANY, "full"]}
    results = await Tagging(store).add(BRAND, whom, frozenset({"campaign"}))
    assert [results[name] for name in MANY] == [1] * 250
    assert isinstance(results["full"], DaogouError)
    assert await store.among(BRAND, "campaign", [*MANY, "full"]) == set(MANY)


async def test_one_who_was_merged_meanwhile_keeps_nobody_else_from_his_tags(
    store: TagStore, database: Database
) -> None:
    """He is told to be asked for again; so is one who was erased."""
    gone = {"m007": {"merged_into": "old"}, "m133": {"erased_time": 1}}
    for name, mark in gone.items():
        await database["members"].update_one({"_id": f"{BRAND}|{name}"}, {"$set": mark})
    results = await Tagging(store).add(BRAND, {name: name for name in MANY}, frozenset({"campaign"}))
    refused = {name: one.reason for name, one in results.items() if isinstance(one, DaogouError)}
    assert refused == dict.fromkeys(gone, "MEMBER_CHANGED")
    assert await store.among(BRAND, "campaign", MANY) == set(MANY) - gone.keys()


async def test_holders_of_a_tag_are_listed_by_id_page_by_page(store: TagStore) -> None:
    for name in ("d", "b", "a", "c"):
        await add(store, name, "vip", "silk")
    await add(store, "e", "silk")
    await add(store, "a2", "vip", to="a")
    assert await store.page(BRAND, "vip", "", 3) == ["a", "a", "b"], "as often as he has it"
    assert await store.page(BRAND, "vip", "b", 3) == ["c", "d"]
    assert await store.page(OTHER, "vip", "", 3) == []
    assert [await store.count(BRAND, "silk", most) for most in (3, 10)] == [3, 5]
