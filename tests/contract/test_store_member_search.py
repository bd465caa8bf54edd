"""Search in the database: who matches is found once, whatever is written meanwhile, and none read in vain."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.ids import derived_id
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_members.care import store_member_search, store_tag
from svc_members.care.store_member_search import Filters, MemberSearchStore
from svc_members.care.store_tag import TagStore
from svc_members.member import store_member

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
DAY = timedelta(days=1)
COUNT = 3_000
TIERS = ("silver", "gold", *["silver"] * 8, *["plain"] * 90)


def member(number: int, **more: Any) -> Document:
    """One of the brand's members. Of each 30 one is of the same guide; of each 100 one is of tier gold."""
    member_id = derived_id("member", str(number))
    guide = number % 30
    made: Document = {
        "_id": f"{BRAND}|{member_id}",
        "brand_id": BRAND,
        "member_id": member_id,
        "rev": 1,
        "standing": {"guide_id": f"g{guide}", "store_id": f"s{guide % 10}", "active_time": NOON},
        "profile": {"tier": TIERS[number % 100], "birthday_month": number % 12 + 1},
    }
    if number % 4:
        made["last_purchase_time"] = NOON - number * DAY / 10
    return {**made, **more}


def tags(number: int) -> list[str]:
    """A tag that all have, one that every third has, one that few have."""
    return ["all", *["third"] * (number % 3 == 0), *["rare"] * (number % 500 == 1)]


@pytest.fixture
async def store(database: Database) -> MemberSearchStore:
    """A brand of 3,000 members, beside another that has some of the same ids."""
    indexes = [*store_member.INDEXES, *store_tag.INDEXES, *store_member_search.INDEXES]
    await schema.migrate(database, Schema(1, indexes))
    ours = [member(number) for number in range(COUNT)]
    theirs = [{**one, "_id": f"{OTHER}|{one['member_id']}", "brand_id": OTHER} for one in ours[:200]]
    await database["members"].insert_many([*ours, *theirs])
    sets = [
        {
            "_id": f"{brand_id}|{one['member_id']}",
            "brand_id": brand_id,
            "member_id": one["member_id"],
            "origin_id": one["member_id"],
            "rev": 1,
            "tags": tags(number),
        }
        for number, one in enumerate(ours)
        for brand_id in (BRAND, OTHER)[: 2 if number < 200 else 1]
    ]
    await database["tags"].insert_many(sets)
    return MemberSearchStore(database, TagStore(database))


def one_by_one(filters: Filters) -> list[Callable[[int, Document], bool]]:
    """Whether a member matches, by each of the filters that are given."""
    start, end = filters.purchased_from or NOON - 1000 * DAY, filters.purchased_to or NOON + DAY
    alone: list[tuple[object, Callable[[int, Document], bool]]] = [
        (filters.guide_id, lambda _, one: one["standing"]["guide_id"] == filters.guide_id),
        (filters.store_id, lambda _, one: one["standing"]["store_id"] == filters.store_id),
        (filters.tag, lambda number, _: filters.tag in tags(number)),
        (filters.tier, lambda _, one: one["profile"]["tier"] == filters.tier),
        (filters.birthday_month, lambda _, one: one["profile"]["birthday_month"] == filters.birthday_month),
        (
            filters.purchased_from or filters.purchased_to,
            lambda _, one: start <= one.get("last_purchase_time", end) < end,
        ),
    ]
    return [matches for wanted, matches in alone if wanted]


def ids(matches: Callable[[int, Document], bool]) -> list[str]:
    """The ids of those of the members who match, in order."""
    return sorted(one["member_id"] for number in range(COUNT) if matches(number, one := member(number)))


def matching(filters: Filters) -> Callable[[int, Document], bool]:
    """Whether a member matches all filters."""
    alone = one_by_one(filters)
    return lambda number, one: all(matches(number, one) for matches in alone)


async def listed(
    store: MemberSearchStore, filters: Filters, size: int = 100, brand_id: str = BRAND
) -> list[str]:
    """All pages of a search."""
    found, after_id = [], ""
    while True:
        page, after_id = await store.page(brand_id, filters, after_id, size)
        assert len(page) <= size
        found += [one["member_id"] for one in page]
        if not after_id:
            return found


SEARCHES: dict[str, Filters] = {
    "guide": Filters(guide_id="g7"),
    "store": Filters(store_id="s7"),
    "tag": Filters(tag="third"),
    "rare tag": Filters(tag="rare"),
    "tier": Filters(tier="gold"),
    "birthday": Filters(birthday_month=4),
    "bought since": Filters(purchased_from=NOON - 100 * DAY),
    "bought before": Filters(purchased_to=NOON - 100 * DAY),
    "bought on two days": Filters(purchased_from=NOON - 3 * DAY, purchased_to=NOON - DAY),
    "tag and guide": Filters(tag="third", guide_id="g9"),
    "rare tag and store": Filters(tag="rare", store_id="s1"),
    "tag and tier": Filters(tag="third", tier="silver"),
    "everything": Filters(
        guide_id="g7",
        store_id="s7",
        tag="all",
        tier="plain",
        purchased_from=NOON - 200 * DAY,
        purchased_to=NOON - 10 * DAY,
        birthday_month=8,
    ),
}


@pytest.mark.both_drivers
async def test_a_search_finds_exactly_those_who_match(store: MemberSearchStore) -> None:
    """Each once, in the order of their ids, on pages of any size."""
    for name, filters in SEARCHES.items():
        expected = ids(matching(filters))
        assert expected, name
        for size in (1, 7, 200) if len(expected) < 40 else (100, 199):
            assert await listed(store, filters, size) == expected, name
        assert await listed(store, filters, brand_id="c" * 16) == [], name


async def test_where_nobody_matches_nobody_is_found(store: MemberSearchStore) -> None:
    """Whichever of the filters it is that nobody matches."""
    assert await listed(store, Filters(tag="all", tier="none")) == []
    assert await listed(store, Filters(tag="none", tier="gold")) == []
    assert await listed(store, Filters(purchased_from=NOON + DAY)) == []
    assert await listed(store, Filters(guide_id="g1", store_id="s2")) == []
    with pytest.raises(ValueError):
        await store.page(BRAND, Filters(), "", 10)


async def test_where_every_filter_is_broad_pages_are_still_whole(
    store: MemberSearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many, and too many to look at for one page: what is lowered here are the numbers alone."""
    monkeypatch.setattr(store_member_search, "MANY", 50)
    monkeypatch.setattr(store_member_search, "_BATCH", 20)
    monkeypatch.setattr(store_member_search, "LOOKED_AT_MAX", 40)
    for name in ("bought since", "bought before", "tag and tier", "rare tag and store", "everything", "tag"):
        filters = SEARCHES[name]
        assert await listed(store, filters, 10) == ids(matching(filters)), name


async def test_a_page_for_which_too_many_are_looked_at_ends_early_and_the_next_goes_on(
    store: MemberSearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that matches hardly anybody holds up nobody else's."""
    monkeypatch.setattr(store_member_search, "MANY", 10)
    monkeypatch.setattr(store_member_search, "_BATCH", 100)
    monkeypatch.setattr(store_member_search, "LOOKED_AT_MAX", 300)
    page, after_id = await store.page(BRAND, Filters(tag="all", birthday_month=1, tier="gold"), "", 50)
    assert len(page) < 50
    assert after_id > max([one["member_id"] for one in page], default="")


async def test_merged_and_erased_members_are_not_found(store: MemberSearchStore, database: Database) -> None:
    """By whatever filter, though the rest of them still matches."""
    gone = ids(lambda number, _: number in (1, 3))
    for member_id, mark in zip(gone, ({"merged_into": "x"}, {"erased_time": NOON}), strict=True):
        await database["members"].update_one({"_id": f"{BRAND}|{member_id}"}, {"$set": mark})
    searches = [Filters(guide_id="g1"), Filters(tier="gold"), Filters(tag="all"), Filters(birthday_month=4)]
    for filters in searches:
        matched = set(ids(matching(filters)))
        assert matched & set(gone)
        assert set(await listed(store, filters, 200)) == matched - set(gone)


async def test_a_member_whose_tag_two_merged_ids_brought_is_found_once(
    store: MemberSearchStore, database: Database
) -> None:
    some = ids(matching(Filters(tag="rare")))
    extra = [
        {
            "_id": f"{BRAND}|alias-{place}-{number}",
            "brand_id": BRAND,
            "member_id": member_id,
            "origin_id": f"alias-{place}-{number}",
            "rev": 1,
            "tags": ["rare"],
        }
        for place, member_id in enumerate(some)
        for number in range(3)
    ]
    await database["tags"].insert_many(extra)
    for size in (1, 2, 3, 100):
        assert await listed(store, Filters(tag="rare"), size) == some
    with_guide = Filters(tag="rare", guide_id="g1")
    assert await listed(store, with_guide, 1) == ids(matching(with_guide))


# ---- while others write -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def disturbed(database: Database) -> AsyncIterator[Callable[[], int]]:
    """Members of even number are written as fast as can be, in every field that a search looks at.

    Tells how many were written so far.
    """
    draw = random.Random(7)
    over = False
    written = 0

    async def write() -> None:
        nonlocal written
        while not over:
            number = draw.randrange(COUNT // 2) * 2
            key = f"{BRAND}|{derived_id('member', str(number))}"
            guide = draw.randrange(30)
            changes = {
                "standing": {"guide_id": f"g{guide}", "store_id": f"s{guide % 10}", "active_time": NOON},
                "profile": {"tier": draw.choice(TIERS), "birthday_month": draw.randint(1, 12)},
                "last_purchase_time": NOON - draw.randrange(COUNT) * DAY / 10,
            }
            await database["members"].update_one({"_id": key}, {"$set": changes, "$inc": {"rev": 1}})
            some = draw.sample(["all", "third", "rare", "new"], 2)
            await database["tags"].update_one({"_id": key}, {"$set": {"tags": some}, "$inc": {"rev": 1}})
            written += 1

    async def touch() -> None:
        """Those of odd number are written as well, but match what they matched."""
        while not over:
            number = draw.randrange(COUNT // 2) * 2 + 1
            one = member(number)
            changes: Document = {"standing.active_time": NOON + draw.randrange(100) * DAY}
            if "last_purchase_time" in one:
                # Later by less than the ranges are apart.
                changes["last_purchase_time"] = one["last_purchase_time"] + draw.randrange(60) * DAY / 10_000
            await database["members"].update_one({"_id": one["_id"]}, {"$set": changes})
            some = [*tags(number), f"new-{draw.randrange(100)}"]
            draw.shuffle(some)
            await database["tags"].update_one({"_id": one["_id"]}, {"$set": {"tags": some}})

    writers = [asyncio.create_task(work()) for work in (write, write, touch, touch)]
    try:
        yield lambda: written
    finally:
        over = True
        await asyncio.gather(*writers)


@pytest.mark.parametrize("many", [50, 10_000])
async def test_who_matches_throughout_is_listed_once_whatever_is_written(
    many: int, store: MemberSearchStore, database: Database, monkeypatch: pytest.MonkeyPatch, soak: bool
) -> None:
    """Half of all members change in every way; the other half match what they matched."""
    monkeypatch.setattr(store_member_search, "MANY", many)
    odd = {member(number)["member_id"] for number in range(1, COUNT, 2)}
    async with disturbed(database) as written:
        for name, filters in SEARCHES.items():
            throughout = odd & set(ids(matching(filters)))
            assert throughout, name
            until = written() + (2000 if soak else 40)
            while written() < until:
                found = await listed(store, filters, 13)
                assert found == sorted(set(found)), name
                assert throughout <= set(found), name


# ---- what it costs ----------------------------------------------------------------------------------


async def done_for(database: Database, search: Awaitable[object]) -> list[Document]:
    """What the server did for each read of a search, as it says itself."""
    await database["system.profile"].drop()
    await database.command("profile", 2)
    try:
        await search
    finally:
        await database.command("profile", 0)
    names = [f"{database.name}.{collection}" for collection in ("members", "tags")]
    return await database["system.profile"].find({"ns": {"$in": names}}).to_list(None)


async def test_a_search_uses_an_index_and_reads_no_more_than_it_must(
    store: MemberSearchStore, database: Database
) -> None:
    """Of one filter, a page and the one after it; of several, whom the narrowest leaves."""
    for name, filters in SEARCHES.items():
        done = await done_for(database, store.page(BRAND, filters, "", 100))
        context = name, [(one["planSummary"], one["docsExamined"], one["keysExamined"]) for one in done]
        assert len(done) >= 2, context
        assert not [one for one in done if "COLLSCAN" in one["planSummary"]], context
        counts = [len(ids(matches)) for matches in one_by_one(filters)]
        alone = len(counts) == 1
        assert sum(one["docsExamined"] for one in done) <= min(*counts, 101 if alone else COUNT), context
        keys = sum(one["keysExamined"] for one in done)
        if alone and not (filters.purchased_from or filters.purchased_to):
            # Each id in the index that leads, and then by itself, for which the next key is looked at, too.
            assert keys <= 3 * 101, context
        else:
            # Besides, those whom each filter matches are counted, and those of the narrowest looked at.
            assert keys <= 2 * sum(counts) + 3 * 101, context
