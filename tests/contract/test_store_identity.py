"""Identities in the database: one member each, all or none, and no phone number readable."""

from __future__ import annotations

import asyncio
import hashlib

import bson
import pytest

from chassis.errors import NotFound, Refused
from chassis.mongo.connection import Database
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from svc_members.member.identities import StoredIdentity
from svc_members.member.store_identity import IDENTITIES_MAX
from svc_members.rules.binding import Outcome
from tests.contract.members import BRAND, CLOCK, SEALER, Members, card, members_of, phone, the_standing

OTHER_BRAND = "b" * 16


@pytest.fixture
async def members(database: Database) -> Members:
    return await members_of(database)


@pytest.mark.both_drivers
async def test_the_same_identity_twice_is_the_same_member(members: Members) -> None:
    """By scan, by enrolment, and with further identities."""
    scanned, _ = await members.scan("ann", card(1))
    assert await members.enrol(card(1), phone("13812345678")) == (scanned.member_id, False)
    by_phone, decision = await members.scan("bea", phone("+86 138 1234 5678"))
    assert (by_phone.member_id, decision.outcome) == (scanned.member_id, Outcome.KEPT)
    assert the_standing(by_phone).guide_id == "ann"


async def test_the_same_identity_in_two_brands_is_two_members(members: Members) -> None:
    """Brands share no customers."""
    here, _ = await members.scan("ann", card(1))
    there, decision = await members.scan("bea", card(1, OTHER_BRAND), brand_id=OTHER_BRAND)
    assert decision.outcome is Outcome.BOUND
    assert here.member_id != there.member_id
    with pytest.raises(NotFound):
        await members.store.find(OTHER_BRAND, here.member_id)
    assert await members.holders(card(1), brand_id=OTHER_BRAND) == [""]
    assert await members.store.existing(OTHER_BRAND, [here.member_id]) == set()


async def test_enrolling_again_changes_nothing(members: Members) -> None:
    """Not even the revision, so that nobody who read him must read again."""
    member_id, new = await members.enrol(card(1), card(2))
    first = await members.store.find(BRAND, member_id)
    assert new
    assert await members.enrol(card(2), card(1)) == (member_id, False)
    assert await members.store.find(BRAND, member_id) == first


async def test_identities_of_two_members_are_refused_and_nothing_is_linked(members: Members) -> None:
    """The third, which was nobody's, stays nobody's."""
    for number in (1, 2):
        await members.enrol(card(number))
    with pytest.raises(Refused) as raised:
        await members.enrol(card(1), card(3), card(2))
    assert raised.value.reason == "IDENTITIES_OF_DIFFERENT_MEMBERS"
    assert await members.holders(card(3)) == [""]


async def test_a_member_has_at_most_fifty_identities_and_is_given_all_or_none(members: Members) -> None:
    """By enrolling and by linking."""
    member_id, _ = await members.enrol(*(card(number) for number in range(IDENTITIES_MAX - 5)))
    more = [card(100 + number) for number in range(6)]
    with pytest.raises(Refused) as raised:
        await members.enrol(card(0), *more)
    assert raised.value.reason == "TOO_MANY_IDENTITIES"
    assert await members.holders(*more) == [""] * 6
    await members.enrol(card(0), *more[:5])
    with pytest.raises(Refused) as raised:
        await members.link(member_id, more[5])
    assert raised.value.reason == "TOO_MANY_IDENTITIES"
    assert await members.holders(more[5]) == [""]
    assert await members.count(member_id) == IDENTITIES_MAX


async def test_a_member_whose_enrolment_was_cut_off_has_at_most_fifty_identities_too(
    members: Members,
) -> None:
    """The identity of the cut-off enrolment counts: else he would have one that no list shows."""
    await members.cut_off(card(0), "m" * 16)
    with pytest.raises(Refused) as raised:
        await members.enrol(*(card(number) for number in range(IDENTITIES_MAX + 1)))
    assert raised.value.reason == "TOO_MANY_IDENTITIES"


async def test_an_enrolment_that_was_cut_off_is_completed_by_the_next(members: Members) -> None:
    """With another identity, or with the same alone: he is the same member, not a second one."""
    for number, named in [(1, [card(1)]), (2, [card(2), card(3)])]:
        member_id = "mn"[number - 1] * 16
        await members.cut_off(card(number), member_id)
        assert await members.enrol(*named) == (member_id, False)
        assert (await members.store.find(BRAND, member_id)).rows == ()
        assert await members.count(member_id) == len(named)


@pytest.mark.both_drivers
async def test_many_enrolments_at_once_make_one_member(members: Members) -> None:
    """Of the same identities, named in any order; one of them is told that he is new."""
    named = [card(1), card(2), phone("13812345678")]
    found = await asyncio.gather(
        *(members.enrol(*named[number % 3 :], *named[: number % 3]) for number in range(8))
    )
    assert len({member_id for member_id, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    assert await members.count(found[0][0]) == 3


async def test_many_links_of_one_identity_at_once_all_succeed(members: Members) -> None:
    """Repeating it changes nothing, also while it is being done."""
    for number in range(5):
        member_id, _ = await members.enrol(card(number))
        linked = card(f"more-{number}")
        await asyncio.gather(*(members.link(member_id, linked) for _ in range(6)))
        assert await members.holders(linked) == [member_id]
        assert await members.count(member_id) == 2


async def test_an_identity_of_another_member_is_not_linked(members: Members) -> None:
    """It stays where it is, and whose it is is told: the two may be one person."""
    one, _ = await members.enrol(card(1))
    other, _ = await members.enrol(card(2))
    assert await members.link(one, card(2)) == other
    assert await members.holders(card(1), card(2)) == [one, other]


async def test_of_two_members_who_claim_one_identity_at_once_one_gets_it(members: Members) -> None:
    """The other is told whose it is; nobody shares it."""
    for number in range(4):
        rivals = [(await members.enrol(card(f"{number}-{rival}")))[0] for rival in range(2)]
        wanted = card(f"wanted-{number}")
        told = await asyncio.gather(*(members.link(rival, wanted) for rival in rivals))
        [holder] = await members.holders(wanted)
        assert holder in rivals
        assert told == [holder, holder]


@pytest.mark.both_drivers
async def test_what_was_given_up_is_nobodys_until_somebody_takes_it(members: Members) -> None:
    """By scan, by enrolment or by linking; it counts for whom it is."""
    takers = []
    for number, take in enumerate(("scan", "enrol", "link")):
        wanted = card(f"wanted {number}")
        first, _ = await members.enrol(wanted, card(f"first {number}"))
        await members.unlink(first, wanted)
        assert await members.holders(wanted) == [""]
        assert await members.count(first) == 1
        second, _ = await members.enrol(card(f"second {number}"))
        match take:
            case "scan":
                taker = (await members.scan("ann", wanted))[0].member_id
            case "enrol":
                taker, _ = await members.enrol(card(f"second {number}"), wanted)
            case _:
                taker = await members.link(second, wanted)
        assert await members.holders(wanted) == [taker]
        assert (taker == second) == (take != "scan")
        takers.append(taker)
    assert [await members.count(taker) for taker in takers] == [1, 2, 2]


async def test_giving_it_up_again_changes_nothing_and_others_cannot(members: Members) -> None:
    """Not even the revision; a stranger is told that it is not his."""
    member_id, _ = await members.enrol(card(1), card(2))
    await members.unlink(member_id, card(2))
    before = await members.store.find(BRAND, member_id)
    await members.unlink(member_id, card(2))
    assert await members.store.find(BRAND, member_id) == before
    stranger, _ = await members.enrol(card(3))
    for one, named in [(stranger, card(1)), (stranger, card(2)), (stranger, card(4))]:
        with pytest.raises(Refused) as refused:
            await members.unlink(one, named)
        assert refused.value.reason == "NOT_HIS_IDENTITY"


async def test_of_many_who_take_what_was_given_up_at_once_one_has_it(members: Members) -> None:
    """By whatever way; the others are told whose it is, or find him."""
    for number in range(4):
        wanted = card(f"wanted {number}")
        first, _ = await members.enrol(wanted)
        await members.unlink(first, wanted)
        rivals = [(await members.enrol(card(f"{number}-{rival}")))[0] for rival in range(2)]

        async def scanned(guide: str, wanted: StoredIdentity = wanted) -> str:
            return (await members.scan(guide, wanted))[0].member_id

        async def enrolled(wanted: StoredIdentity = wanted) -> str:
            return (await members.enrol(wanted))[0]

        found = await asyncio.gather(
            scanned("ann"), scanned("bea"), enrolled(), *(members.link(rival, wanted) for rival in rivals)
        )
        [holder] = await members.holders(wanted)
        assert set(found) == {holder}
        assert holder != first


async def test_an_identity_is_given_up_while_its_holder_is_merged(members: Members) -> None:
    """Whichever is first: it is nobody's, and neither counts it."""
    for number in range(4):
        old, _ = await members.enrol(card(f"old {number}"))
        young, _ = await members.enrol(card(f"young {number}"), card(f"wanted {number}"))
        await asyncio.gather(
            members.unlink(young, card(f"wanted {number}")), members.joined(old, card(f"young {number}"))
        )
        assert await members.holders(card(f"wanted {number}")) == [""]
        stored = await members.database["members"].find_one({"_id": f"{BRAND}|{old}"})
        assert stored is not None
        assert stored["identity_count"] == await members.count(old) == 2


async def test_a_link_of_one_who_is_merged_at_that_moment_is_the_survivors(members: Members) -> None:
    """An enrolment finds a member and links to whoever he has become."""
    for number in range(4):
        old, _ = await members.enrol(card(f"old {number}"))
        young, _ = await members.enrol(card(f"young {number}"))
        (enrolled, new), _ = await asyncio.gather(
            members.enrol(card(f"young {number}"), card(f"more {number}")), members.merged(old, young)
        )
        assert not new
        assert enrolled in (old, young)
        assert await members.holders(card(f"more {number}")) == [old]
        held = await members.identities.holder(BRAND, card(f"more {number}").index)
        assert held is not None
        assert held.origin_id == young, "it came with one of his"


async def test_a_member_is_the_guide_whose_account_he_holds(members: Members) -> None:
    """By the identity that he scanned with, or by any other of his."""
    member_id, _ = await members.enrol(card(1), phone("13812345678"))
    hers = {"accounts": [{"index": phone("13812345678").index}]}
    others = {"accounts": [{"index": phone("13912345678").index}]}
    assert await members.identities.are_of(BRAND, member_id, hers)
    assert await members.identities.are_of(BRAND, "", hers, phone("13812345678").index)
    assert not await members.identities.are_of(BRAND, member_id, others)
    assert not await members.identities.are_of(BRAND, member_id, {"accounts": []}, card(1).index)


async def test_a_link_read_back_opens_to_the_identity(members: Members) -> None:
    """By whoever has the key, in the order in which they were linked."""
    member_id, _ = await members.enrol(phone("13812345678"))
    await asyncio.sleep(0.002)
    open_id = Identity(kind=IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID, value="o-1", app_id="wx1")
    await members.link(member_id, SEALER.stored(BRAND, open_id))
    links = await members.identities.links(BRAND, member_id)
    opened = [SEALER.opened(BRAND, link.identity) for link in links]
    assert opened == [Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value="+8613812345678"), open_id]
    assert all(link.member_id == member_id and link.linked_time <= CLOCK.now() for link in links)


async def test_no_phone_number_is_in_the_database(members: Members) -> None:
    """Neither as it is nor as a hash that can be found by trying all numbers."""
    planted = phone("13812345678")
    member, _ = await members.scan("ann", planted)
    await members.enrol(planted, card(1))
    await members.link(member.member_id, phone("13912345678"))
    content = b""
    for name in await members.database.list_collection_names():
        async for document in members.database[name].find():
            content += bson.encode(document)
    assert planted.index.encode() in content, "the identity itself is there"
    assert b"138****5678" in content
    assert b"12345678" not in content
    for number in ("13812345678", "13912345678"):
        for written in (number, f"+86{number}", f"{BRAND}|PHONE||+86{number}", f"PHONE|+86{number}"):
            for hashed in (hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512, hashlib.blake2b):
                digest = hashed(written.encode())
                assert digest.digest()[:12] not in content
                assert digest.hexdigest()[:24].encode() not in content
