"""Merges in the database: one of two, two of one again, whatever else is written at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from chassis.errors import Conflict, NotFound, Refused
from chassis.ids import new_id
from chassis.mongo.connection import Database, Document
from svc_members.member.store_identity import IDENTITIES_MAX
from svc_members.member.store_merge import MOVED_WITH_MEMBER
from svc_members.rules import binding
from svc_members.rules.binding import Cause, Outcome, Row
from tests.contract.members import (
    ALWAYS,
    BRAND,
    Members,
    MovingClock,
    card,
    members_of,
    the_standing,
)

DAY: Final = timedelta(days=1)


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
async def members(database: Database, clock: MovingClock) -> Members:
    return await members_of(database, clock)


async def document(members: Members, member_id: str) -> Document:
    """What is stored of a member by his own id."""
    found = await members.database["members"].find_one({"_id": f"{BRAND}|{member_id}"})
    assert found is not None
    return found


async def guide_of(members: Members, member_id: str) -> str:
    """Whose a member is now; `-`: nobody's."""
    standing = binding.standing((await members.store.find(BRAND, member_id)).rows)
    return standing.guide_id if standing else "-"


async def believed(members: Members, member_id: str) -> list[tuple[str, datetime, datetime | None]]:
    """Whose an id was, from when until when, as is believed now."""
    rows = await members.bindings.rows(BRAND, member_id)
    held = [row for row in rows if row.superseded_time is None]
    return sorted((row.guide_id, row.valid_from_time, row.valid_to_time) for row in held)


async def scanned(members: Members, guide: str, number: int | str, **more: Any) -> str:
    """The id of a customer who scanned a guide's code with a card; some time passes."""
    members.later(minutes=1)
    member, _ = await members.scan(guide, card(number), ALWAYS, **more)
    return member.member_id


async def enrolled(members: Members, *numbers: int | str) -> str:
    """The id of a customer with cards; some time passes."""
    members.later(minutes=1)
    return (await members.enrol(*(card(number) for number in numbers)))[0]


# ---- one of two -------------------------------------------------------------------------------------


@pytest.mark.both_drivers
async def test_the_older_survives_and_the_others_id_finds_him(members: Members) -> None:
    """Whichever of the two it was asked for by; identities are one member's, and counted as his."""
    old, young = await enrolled(members, 1, 2), await enrolled(members, 3)
    merge = await members.joined(young, card(1))
    assert merge is not None
    assert (merge["survivor_id"], merge["other_id"], merge["undone_time"]) == (old, young, None)
    by_alias, himself = await members.store.find(BRAND, young), await members.store.find(BRAND, old)
    assert (by_alias.member_id, by_alias.origin_id) == (old, young)
    assert (himself.origin_id, himself.absorbed) == ("", (young,))
    assert await members.holders(card(1), card(2), card(3)) == [old] * 3
    assert (await document(members, old))["identity_count"] == await members.count(old) == 3
    assert await members.count(young) == 0


async def test_linking_an_identity_that_is_his_already_merges_nobody(members: Members) -> None:
    """Nor does linking it again after a merge, to either id."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    assert await members.joined(old, card(1)) is None
    assert await members.joined(old, card(2)) is not None
    for member_id in (old, young):
        assert await members.joined(member_id, card(2)) is None
    assert await members.database["merges"].count_documents({}) == 1


async def test_questions_about_before_the_merge_are_answered_as_before(members: Members) -> None:
    """By id and by identity, as known now and as known then."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    members.later(days=1)
    before = members.clock.now()
    members.later(days=1)
    asked: list[Any] = [old, young, card(1), card(2)]
    known = [(await members.whose(one, before, known)) for one in asked for known in (before, None)]
    await members.merged(old, young)
    members.later(days=1)
    again = [(await members.whose(one, before, known)) for one in asked for known in (before, None)]
    assert [(answer.member_id, answer.guide_id) for answer in again] == [
        (answer.member_id, answer.guide_id) for answer in known
    ]
    now = [await members.whose(one) for one in asked]
    assert {(answer.member_id, answer.guide_id) for answer in now} == {(old, "ann")}
    assert len({answer.binding_id for answer in now}) == 1


async def test_a_scan_by_the_others_identity_is_the_survivors(members: Members) -> None:
    """From the merge on, however late it is reported; and it says through whom it came."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    merge = await members.merged(old, young)
    assert await scanned(members, "ann", 2, age=timedelta(hours=5)) == old
    standing = the_standing(await members.store.find(BRAND, old))
    assert (standing.origin_id, standing.valid_from_time) == (young, merge["merge_time"])
    assert (await members.whose(card(2), merge["merge_time"] - DAY)).guide_id == ""


async def test_a_member_has_at_most_fifty_identities_by_a_merge_too(members: Members) -> None:
    """Else nothing is written."""
    half = IDENTITIES_MAX // 2 + 1
    old = await enrolled(members, *(f"old {number}" for number in range(half)))
    young = await enrolled(members, *(f"young {number}" for number in range(half)))
    before = [await document(members, one) for one in (old, young)]
    with pytest.raises(Refused) as refused:
        await members.merged(old, young)
    assert refused.value.reason == "TOO_MANY_IDENTITIES"
    assert [await document(members, one) for one in (old, young)] == before
    assert await members.database["merges"].count_documents({}) == 0


async def test_whoever_is_merged_or_erased_already_is_not_merged_again(members: Members) -> None:
    """The caller is to read again."""
    old, young, third = [await enrolled(members, number) for number in (1, 2, 3)]
    await members.merged(old, young)
    with pytest.raises(Conflict) as conflict:
        await members.merged(young, third)
    assert conflict.value.reason == "MEMBER_CHANGED"
    with pytest.raises(Conflict):
        await members.merged(third, "x" * 16)


async def test_a_member_whose_enrolment_was_cut_off_is_completed_and_merged(members: Members) -> None:
    """His identity was linked, and no more of him written."""
    old = await enrolled(members, 1)
    await members.cut_off(card(2), "m" * 16)
    merge = await members.joined(old, card(2))
    assert merge is not None
    assert merge["other_id"] == "m" * 16
    assert await members.holders(card(2)) == [old]
    assert await members.count(old) == (await document(members, old))["identity_count"] == 2


# ---- two of one -------------------------------------------------------------------------------------


@pytest.mark.both_drivers
async def test_undone_both_have_what_they_had(members: Members) -> None:
    """Identities, rows, counts; and the ids are two again."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    rows = [await believed(members, one) for one in (old, young)]
    undone = await members.undo(await members.merged(young, old))
    assert undone["undone_time"] is not None
    assert [await believed(members, one) for one in (old, young)] == rows
    assert await members.holders(card(1), card(2)) == [old, young]
    for one in (old, young):
        stored = await document(members, one)
        assert stored["identity_count"] == await members.count(one) == 1
        assert not {"merged_into", "absorbed", "activity_by_origin"} & stored.keys()
        assert (await members.store.find(BRAND, one)).origin_id == ""


async def test_what_came_since_goes_with_the_identity_that_it_came_through(members: Members) -> None:
    """Cat's row came through the other's card, Dan's through the survivor's: each had displaced the last."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    merge = await members.merged(old, young)
    await scanned(members, "cat", 2)
    await scanned(members, "dan", 1)
    assert await guide_of(members, young) == "dan"
    await members.undo(merge)
    assert await guide_of(members, old) == "dan"
    assert await guide_of(members, young) == "cat"
    assert [guide for guide, _, _ in await believed(members, young)] == ["bea", "cat"]
    assert [guide for guide, _, _ in await believed(members, old)] == ["ann", "dan"]


async def test_identities_linked_and_given_up_since_go_with_whose_name_they_came_in(
    members: Members,
) -> None:
    """By enrolling with one of his, by linking to his id; and the one that was given up was his till then."""
    old, young = await enrolled(members, 1, "old 2"), await enrolled(members, 2, 3)
    merge = await members.merged(old, young)
    await members.joined(young, card("linked"))
    await members.enrol(card(2), card("enrolled"))
    await members.enrol(card(1), card("own"))
    await members.enrol(card(1), card(2), card("either's"))
    members.later(days=1)
    held, gave_up = members.clock.now(), members.later(days=1)
    await members.unlink(old, card(3))
    await members.unlink(young, card("old 2"))
    await members.undo(merge)
    named = [card(2), card("linked"), card("enrolled"), card(1), card("own"), card("either's")]
    assert await members.holders(*named) == [young] * 3 + [old] * 3
    assert await members.holders(card(3), card("old 2")) == ["", ""]
    assert (await members.whose(card(3), held)).member_id == young
    assert (await members.whose(card("old 2"), held)).member_id == old
    assert (await members.whose(card(3), gave_up + DAY)).member_id == ""
    for one in (old, young):
        assert (await document(members, one))["identity_count"] == await members.count(one) == 3


async def test_what_belongs_to_him_goes_over_and_back_by_the_name_that_it_came_in(members: Members) -> None:
    """Tags, consents, tasks, contacts."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)

    async def add(collection: str, name: str, owner: str, origin: str) -> None:
        whose = {"_id": f"{BRAND}|{name}", "brand_id": BRAND, "member_id": owner, "origin_id": origin}
        await members.database[collection].insert_one(whose)

    async def owners(collection: str) -> dict[str, str]:
        found = await members.database[collection].find().to_list(None)
        return {one["_id"].partition("|")[2]: one["member_id"] for one in found}

    for collection in MOVED_WITH_MEMBER:
        await add(collection, "his", old, old)
        await add(collection, "the other's", young, young)
    merge = await members.merged(old, young)
    for collection in MOVED_WITH_MEMBER:
        assert set((await owners(collection)).values()) == {old}
        await add(collection, "his since", old, old)
        await add(collection, "the other's since", old, young)
    await members.undo(merge)
    for collection in MOVED_WITH_MEMBER:
        assert await owners(collection) == {
            "his": old,
            "his since": old,
            "the other's": young,
            "the other's since": young,
        }


async def test_the_latest_activity_goes_over_and_back(members: Members) -> None:
    """Of all who are one; after the undoing each has his own, what came since included."""
    store = members.store
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)

    async def bought(member_id: str) -> datetime:
        time = members.later(hours=1)
        member = await store.find(BRAND, member_id)
        await store.record_activity(member, "purchase", time, renews=False)
        return time

    async def latest(member_id: str) -> datetime | None:
        return (await document(members, member_id)).get("last_purchase_time")

    olds = await bought(old)
    youngs = await bought(young)
    merge = await members.merged(old, young)
    assert await latest(old) == youngs
    youngs = await bought(young)
    assert await latest(old) == youngs
    await store.record_activity(await store.find(BRAND, old), "contact", olds, renews=False)
    await members.undo(merge)
    assert [await latest(one) for one in (old, young)] == [olds, youngs]
    assert "last_contact_time" not in await document(members, young)
    assert (await document(members, old))["last_contact_time"] == olds


async def active_time(members: Members, member_id: str) -> datetime:
    """When the standing row of a member was last active."""
    found: datetime = (await document(members, member_id))["standing"]["active_time"]
    return found


async def test_a_merge_is_no_activity(members: Members) -> None:
    """A binding that was idle for a month is idle for a month still, with whomever it goes on."""
    old = await enrolled(members, 1)
    young = await scanned(members, "bea", 2)
    bound = await active_time(members, young)
    members.later(days=30)
    merge = await members.merged(old, young)
    assert await active_time(members, old) == bound
    members.later(days=10)
    await members.undo(merge)
    assert await active_time(members, young) == bound


async def test_who_is_active_through_either_is_active_and_keeps_it_when_they_are_separated(
    members: Members,
) -> None:
    """The other's purchase renewed the survivor's binding; undone, it renewed his own."""
    store = members.store
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    bound = await active_time(members, old)
    members.later(days=10)
    merge = await members.merged(old, young)
    bought = members.later(days=10)
    await store.record_activity(await store.find(BRAND, young), "purchase", bought, renews=True)
    assert await active_time(members, old) == bought
    await members.undo(merge)
    assert [await active_time(members, one) for one in (old, young)] == [bound, bought]


async def test_gaps_of_a_profile_are_filled_and_open_again(members: Members) -> None:
    """A tier comes with its end or not at all."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    profiles = members.database["members"]
    ends = members.clock.now()
    theirs = {"tier": "gold", "tier_expire_time": ends, "gender": "FEMALE"}
    await profiles.update_one({"_id": f"{BRAND}|{old}"}, {"$set": {"profile": {"tier": "silver"}}})
    await profiles.update_one({"_id": f"{BRAND}|{young}"}, {"$set": {"profile": theirs}})
    merge = await members.merged(old, young)
    assert (await document(members, old))["profile"] == {"tier": "silver", "gender": "FEMALE"}
    await members.undo(merge)
    assert (await document(members, old))["profile"] == {"tier": "silver"}
    assert (await document(members, young))["profile"] == theirs


async def test_undoing_again_changes_nothing(members: Members) -> None:
    """Though much has happened since."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    merge = await members.merged(old, young)
    undone = await members.undo(merge)
    await scanned(members, "cat", 2)
    before = [await document(members, one) for one in (old, young)]
    assert await members.undo(merge) == undone
    assert [await document(members, one) for one in (old, young)] == before


async def test_a_merge_is_undone_for_thirty_days(members: Members) -> None:
    """To the millisecond."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    merge = await members.merged(old, young)
    last = merge["merge_time"] + 30 * DAY
    with pytest.raises(Refused) as refused:
        await members.merges.undo(BRAND, merge["merge_id"], last + timedelta(milliseconds=1))
    assert refused.value.reason == "MERGE_TOO_OLD"
    await members.merges.undo(BRAND, merge["merge_id"], last)
    assert await members.holders(card(2)) == [young]


async def test_what_cannot_be_undone_is_told_why(members: Members) -> None:
    """And nothing is written."""
    old, middle, young = [await enrolled(members, number) for number in (1, 2, 3)]
    first = await members.merged(middle, young)
    second = await members.merged(old, middle)
    with pytest.raises(Refused) as refused:
        await members.undo(first)
    assert refused.value.reason == "MERGED_AGAIN"
    with pytest.raises(NotFound) as unknown:
        await members.merges.undo(BRAND, "x" * 16, members.clock.now())
    assert unknown.value.reason == "MERGE_UNKNOWN"
    with pytest.raises(NotFound):
        await members.merges.undo("b" * 16, second["merge_id"], members.clock.now())
    assert await members.holders(card(1), card(2), card(3)) == [old] * 3


# ---- many merges ------------------------------------------------------------------------------------


async def test_a_chain_is_undone_link_by_link(members: Members) -> None:
    """The youngest into the middle one, that one into the old one, that one into the oldest."""
    ids = [await scanned(members, f"guide {number}", number) for number in range(4)]
    rows = [await believed(members, one) for one in ids]
    merges = [await members.merged(ids[place], ids[place + 1]) for place in (2, 1, 0)]
    assert [(await members.store.find(BRAND, one)).member_id for one in ids] == [ids[0]] * 4
    assert set((await members.store.find(BRAND, ids[0])).absorbed) == set(ids[1:])
    assert {await guide_of(members, one) for one in ids} == {"guide 0"}
    await scanned(members, "new", 3)
    for place, merge in enumerate(reversed(merges), start=1):
        await members.undo(merge)
        assert await members.holders(*(card(number) for number in range(4))) == [
            *ids[:place],
            *[ids[place]] * (4 - place),
        ]
    assert [await believed(members, one) for one in ids[:3]] == rows[:3]
    assert [guide for guide, _, _ in await believed(members, ids[3])] == ["guide 3", "new"]


async def test_two_who_were_merged_into_one_are_separated_in_either_order(members: Members) -> None:
    """What each brought goes with him, also what the other's had displaced."""
    for first in (0, 1):
        old = await scanned(members, "ann", f"old {first}")
        youngs = [await scanned(members, f"guide {place}", f"young {first} {place}") for place in (0, 1)]
        merges = [await members.merged(old, young) for young in youngs]
        for place in (0, 1):
            await scanned(members, f"new {place}", f"young {first} {place}")
        for place in (first, 1 - first):
            await members.undo(merges[place])
        assert [guide for guide, _, _ in await believed(members, old)] == ["ann"]
        for place, young in enumerate(youngs):
            assert [guide for guide, _, _ in await believed(members, young)] == [
                f"guide {place}",
                f"new {place}",
            ]


async def test_the_same_two_again_and_again(members: Members) -> None:
    """Every time both get back what they had; ids of rows are never used twice."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)
    for number in range(4):
        merge = await members.merged(old, young)
        await scanned(members, f"through {number}", 2)
        await members.undo(merge)
        assert await guide_of(members, old) == "ann"
        assert await guide_of(members, young) == f"through {number}"
        members.later(minutes=1)
    rows: list[Row] = [row for one in (old, young) for row in await members.bindings.rows(BRAND, one)]
    assert len({row.binding_id for row in rows}) == len(rows)
    assert len(await members.merges.of_member(BRAND, [young])) == 4


async def test_merges_of_one_moment_follow_each_other(members: Members, database: Database) -> None:
    """One clock, one millisecond: each still begins after the last, so that nobody holds anything twice."""
    old, middle, young = [await scanned(members, f"guide {number}", number) for number in range(3)]
    now = members.clock.now()
    first = await members.merges.merge(BRAND, middle, young, new_id(), now)
    second = await members.merges.merge(BRAND, old, middle, new_id(), now)
    assert second["merge_time"] > first["merge_time"]
    stored = await database["identities"].find_one({"_id": f"{BRAND}|{card(2).index}"})
    assert stored is not None
    held = [row for row in stored["holders"] if row["superseded_time"] is None]
    assert [row["member_id"] for row in held] == [young, middle, old]
    assert all(row["valid_to_time"] is None or row["valid_from_time"] != row["valid_to_time"] for row in held)


@pytest.mark.parametrize("bound", ["both", "old", "young", "none", "lapsed", "pools"])
async def test_whoever_had_whom_gets_it_back(members: Members, bound: str) -> None:
    """Members of guides, of nobody, of pools, and those whose bindings had lapsed."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    guide = "" if bound == "pools" else "ann"
    for number, name in [(1, "old"), (2, "young")]:
        if bound in ("both", "lapsed", "pools", name):
            await scanned(members, guide, number)
        if bound == "lapsed":
            members.later(days=1)
            await members.lapse((old, young)[number - 1])
    rows = [await believed(members, one) for one in (old, young)]
    merge = await members.merged(old, young)
    assert await guide_of(members, young) == ("-" if bound in ("none", "lapsed") else guide)
    await members.undo(merge)
    assert [await believed(members, one) for one in (old, young)] == rows


async def test_members_with_a_long_history_are_merged_and_separated(members: Members) -> None:
    """The rows that stand apart count as the others do, on both sides and in between."""
    old, young = "", ""
    for number in range(10):
        old = await scanned(members, f"old's {number}", 1)
        young = await scanned(members, f"young's {number}", 2)
    rows = [await believed(members, one) for one in (old, young)]
    assert [len(one) for one in rows] == [10, 10]
    merge = await members.merged(old, young)
    for number in range(12):
        await scanned(members, f"since {number}", 1 + number % 2)
    await members.undo(merge)
    for one, before, since in zip((old, young), rows, (range(0, 12, 2), range(1, 12, 2)), strict=True):
        guides = [guide for guide, _, _ in await believed(members, one)]
        assert guides == sorted(
            [*(guide for guide, _, _ in before), *(f"since {number}" for number in since)]
        )
        stored = await document(members, one)
        assert len(stored["rows"]) < 24
        assert stored["history_count"] > 0


# ---- at the same moment -----------------------------------------------------------------------------


@pytest.mark.both_drivers
async def test_of_two_merges_of_one_pair_at_once_one_is_made(members: Members) -> None:
    """The other finds that they are one."""
    for number in range(4):
        old, young = await enrolled(members, f"old {number}"), await enrolled(members, f"young {number}")
        made = await asyncio.gather(
            *(members.joined(old, card(f"young {number}")) for _ in range(2)),
            *(members.joined(young, card(f"old {number}")) for _ in range(2)),
        )
        assert len([one for one in made if one is not None]) == 1
        assert (await members.store.find(BRAND, young)).member_id == old
        assert await members.database["merges"].count_documents({"other_id": young}) == 1


async def test_three_who_are_merged_crosswise_at_once_become_one(members: Members) -> None:
    """Whichever merge was first."""
    for number in range(3):
        ids = [await scanned(members, f"guide {place}", f"{number} {place}") for place in range(3)]
        await asyncio.gather(
            *(members.joined(ids[place], card(f"{number} {(place + 1) % 3}")) for place in range(3))
        )
        assert {(await members.store.find(BRAND, one)).member_id for one in ids} == {ids[0]}
        assert await members.holders(*(card(f"{number} {place}") for place in range(3))) == [ids[0]] * 3
        assert await guide_of(members, ids[2]) == "guide 0"


@pytest.mark.both_drivers
async def test_scans_by_the_youngers_identity_while_he_is_merged_bind_once(members: Members) -> None:
    """Before it they are his and win or lose by the merge; after it they are the survivor's."""
    for number in range(4):
        old, young = await enrolled(members, f"old {number}"), await enrolled(members, f"young {number}")
        found = await asyncio.gather(
            *(members.scan(f"guide {guide}", card(f"young {number}")) for guide in range(4)),
            members.merged(old, young),
            *(members.scan(f"guide {guide}", card(f"old {number}")) for guide in range(4)),
            return_exceptions=True,
        )
        outcomes = [one for one in found if isinstance(one, tuple)]
        assert not [one for one in found if isinstance(one, Exception) and not isinstance(one, Conflict)]
        assert Counter(decision.outcome for _, decision in outcomes)[Outcome.SNATCHED] == 0
        guide = await guide_of(members, old)
        assert guide != "-"
        assert await guide_of(members, young) == guide
        assert binding.standing(await members.bindings.rows(BRAND, young)) is None
        standing = binding.standing(await members.bindings.rows(BRAND, old))
        assert standing is not None
        assert standing.guide_id == guide


async def test_a_scan_that_was_decided_before_an_undoing_is_decided_again(members: Members) -> None:
    """The identity was read while it was the survivor's: his rows are not the other's any more."""
    old, young = await enrolled(members, 1), await enrolled(members, 2)
    merge = await members.merged(old, young)
    read = await members.store.holder_of(BRAND, card(2), new_id, members.clock.now())
    assert (read.member_id, read.origin_id) == (old, young)
    await members.undo(merge)
    scan = binding.Scan("ann", "east", "", members.clock.now(), False, read.origin_id)
    with pytest.raises(Conflict):
        await members.store.save_rows(read, binding.scan(read.rows, scan, ALWAYS, read.next_id))
    assert await guide_of(members, old) == "-"


async def test_scans_links_and_purchases_while_a_merge_is_undone_are_of_one_of_the_two(
    members: Members,
) -> None:
    """What comes through the other's card is with the other afterwards, or was refused; nothing is lost."""
    store = members.store
    for number in range(4):
        old, young = await enrolled(members, f"old {number}"), await enrolled(members, f"young {number}")
        merge = await members.merged(old, young)

        async def bought(young: str = young) -> None:
            member = await store.find(BRAND, young)
            await store.record_activity(member, "purchase", members.clock.now(), renews=False)

        outcomes = await asyncio.gather(
            members.scan("ann", card(f"young {number}")),
            members.undo(merge),
            members.enrol(card(f"young {number}"), card(f"new {number}")),
            members.joined(young, card(f"linked {number}")),
            bought(),
            return_exceptions=True,
        )
        assert not [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, Conflict)]
        # It may have been refused because others kept writing: to undo it again changes nothing else.
        await members.undo(merge)
        linked = [card(f"{name} {number}") for name in ("young", "new", "linked")]
        assert set(await members.holders(*linked)) <= {young, ""}
        assert await guide_of(members, young) == "ann"
        assert await guide_of(members, old) == "-"
        assert "last_purchase_time" not in await document(members, old)
        assert (await document(members, young))["identity_count"] == await members.count(young)


async def test_links_while_a_merge_is_made_are_the_survivors_and_counted(members: Members) -> None:
    """To either id."""
    for number in range(4):
        old, young = await enrolled(members, f"old {number}"), await enrolled(members, f"young {number}")
        named = [card(f"{side} {number} {place}") for side in ("a", "b") for place in range(3)]
        await asyncio.gather(
            *(members.joined(young if place < 3 else old, one) for place, one in enumerate(named)),
            members.joined(old, card(f"young {number}")),
        )
        assert await members.holders(*named) == [old] * 6
        assert (await document(members, old))["identity_count"] == await members.count(old) == 8


@pytest.mark.both_drivers
async def test_undoing_twice_at_once_is_undoing_once(members: Members) -> None:
    """Both are told the same."""
    for number in range(4):
        old = await scanned(members, "ann", f"old {number}")
        young = await scanned(members, "bea", f"young {number}")
        rows = [await believed(members, one) for one in (old, young)]
        merge = await members.merged(old, young)
        first, second = await asyncio.gather(members.undo(merge), members.undo(merge))
        assert first == second
        assert [await believed(members, one) for one in (old, young)] == rows


async def test_a_merge_and_its_undoing_are_written_whole_or_not_at_all(
    members: Members, failing: Any
) -> None:
    """The server refuses the last command of each: nothing of the others is there."""
    old, young = await scanned(members, "ann", 1), await scanned(members, "bea", 2)

    async def everything() -> list[Document]:
        names = ("members", "identities", "merges", "binding_history")
        return [one for name in names for one in await members.database[name].find().to_list(None)]

    before = await everything()
    async with failing("commitTransaction", times=1, errorCode=11601):
        with pytest.raises(Exception, match="11601"):
            await members.merged(old, young)
    assert await everything() == before
    merge = await members.merged(old, young)
    before = await everything()
    async with failing("commitTransaction", times=1, errorCode=11601):
        with pytest.raises(Exception, match="11601"):
            await members.undo(merge)
    assert await everything() == before
    await members.undo(merge)


async def test_the_merges_of_a_member_are_listed_on_either_side(members: Members) -> None:
    """Oldest first, undone ones too; those of others are not."""
    old, middle, young = [await enrolled(members, number) for number in (1, 2, 3)]
    await members.merged(await enrolled(members, 4), await enrolled(members, 5))
    first = await members.merged(middle, young)
    await members.undo(first)
    members.later(hours=1)
    second = await members.merged(old, middle)
    listed = {name: await members.merges.of_member(BRAND, [name]) for name in (old, middle, young)}
    assert [one["merge_id"] for one in listed[old]] == [second["merge_id"]]
    assert [one["merge_id"] for one in listed[middle]] == [first["merge_id"], second["merge_id"]]
    assert [one["merge_id"] for one in listed[young]] == [first["merge_id"]]
    assert listed[young][0]["undone_time"] is not None


async def test_causes_tell_what_a_merge_did(members: Members) -> None:
    """In the rows of both, for whoever reads them."""
    old, young = await enrolled(members, 1), await scanned(members, "bea", 2)
    merge = await members.merged(old, young)
    await members.undo(merge)
    causes = [[row.cause for row in await members.bindings.rows(BRAND, one)] for one in (old, young)]
    assert causes == [[Cause.MERGED], [Cause.SCAN, Cause.MERGED, Cause.SEPARATED]]
