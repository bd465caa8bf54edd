"""Tags over gRPC: given and taken, alone and to many at a time, by those who serve the member."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chassis.ids import new_id
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import member_pb2, merge_pb2, tag_pb2
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from tests.rpc.care import Care
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world

CARD = IdentityKind.IDENTITY_KIND_POS_CARD


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running)


def adding(world: World, member_id: str, *tags: str, guide_id: str = "") -> tag_pb2.AddTagsRequest:
    return tag_pb2.AddTagsRequest(brand_id=world.brand_id, member_id=member_id, guide_id=guide_id, tags=tags)


def removing(world: World, member_id: str, *tags: str, guide_id: str = "") -> tag_pb2.RemoveTagsRequest:
    return tag_pb2.RemoveTagsRequest(
        brand_id=world.brand_id, member_id=member_id, guide_id=guide_id, tags=tags
    )


async def tags_of(world: World, member_id: str, size: int = 0) -> list[str]:
    """All pages of a member's tags."""
    tags: list[str] = []
    token = ""
    while True:
        request = tag_pb2.ListTagsRequest(
            brand_id=world.brand_id, member_id=member_id, page_size=size, page_token=token
        )
        reply = await Care(world.service).tags.ListTags(request)
        tags += reply.tags
        token = reply.next_page_token
        if not token:
            return tags


async def tagged(world: World, member_ids: Sequence[str], *tags: str) -> list[tuple[int, str]]:
    """What became of each when many were tagged: how many tags he has, or why he got none."""
    request = tag_pb2.BatchTagMembersRequest(
        brand_id=world.brand_id,
        items=[tag_pb2.BatchTagMembersRequest.Item(member_id=member_id) for member_id in member_ids],
        tags=tags,
    )
    reply = await Care(world.admin).tags.BatchTagMembers(request)
    return [(result.tag_count, result.error.reason) for result in reply.results]


async def test_tags_are_given_taken_and_listed_in_order(world: World) -> None:
    """Without the spaces around them, each once, in pages of any size."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    for _ in range(2):
        added = await care.tags.AddTags(adding(world, member_id, " VIP ", "vip", "老客", "VIP", "silk"))
        assert added.tag_count == 4
    for size in (0, 1, 2, 4, 1000):
        assert await tags_of(world, member_id, size) == ["VIP", "silk", "vip", "老客"]
    for _ in range(2):
        removed = await care.tags.RemoveTags(removing(world, member_id, "vip", "never"))
        assert removed.tag_count == 3
    assert await tags_of(world, member_id) == ["VIP", "silk", "老客"]


async def test_a_repeat_of_either_writes_nothing(world: World) -> None:
    member_id, _ = await world.bound()
    care = Care(world.connector)
    await care.tags.AddTags(adding(world, member_id, "vip", "silk"))
    await care.tags.RemoveTags(removing(world, member_id, "silk"))
    with world.running.nothing_written(world.brand_id):
        await care.tags.AddTags(adding(world, member_id, "vip"))
        await care.tags.RemoveTags(removing(world, member_id, "silk"))


async def test_a_page_of_tags_goes_on_where_the_last_one_ended_whatever_was_taken(world: World) -> None:
    """Also when the tag is gone at which it ended."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    await care.tags.AddTags(adding(world, member_id, "a", "b", "c", "d"))
    first = tag_pb2.ListTagsRequest(brand_id=world.brand_id, member_id=member_id, page_size=2)
    reply = await care.tags.ListTags(first)
    await care.tags.RemoveTags(removing(world, member_id, "b"))
    first.page_token = reply.next_page_token
    assert list((await care.tags.ListTags(first)).tags) == ["c", "d"]


async def test_a_member_has_at_most_three_thousand_tags(world: World) -> None:
    """A call over it gives none of its own."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    for start in range(0, 2950, 50):
        await care.tags.AddTags(adding(world, member_id, *(f"t{start + number}" for number in range(50))))
    full = adding(world, member_id, *(f"u{number}" for number in range(51)))
    with world.running.nothing_written(world.brand_id):
        assert (await refusal(care.tags.AddTags(full))).reason == "TOO_MANY_TAGS"
        assert await tagged(world, [member_id], *full.tags) == [(0, "TOO_MANY_TAGS")]
    del full.tags[-1]
    assert (await care.tags.AddTags(full)).tag_count == 3000
    assert len(await tags_of(world, member_id, 1000)) == 3000


async def test_many_members_get_a_tag_and_each_is_answered_for_himself(world: World) -> None:
    """Bad items spoil no others; a member who is named twice is tagged once."""
    one, _ = await world.bound()
    two, _ = await world.bound(1)
    asked = [one, new_id(), "nobody", two, one, ""]
    expected = [
        (1, ""),
        (0, "MEMBER_UNKNOWN"),
        (0, "INVALID_FIELDS"),
        (1, ""),
        (1, ""),
        (0, "INVALID_FIELDS"),
    ]
    assert await tagged(world, asked, "spring ") == expected
    with world.running.nothing_written(world.brand_id):
        assert await tagged(world, asked, "spring") == expected
    assert await tags_of(world, one) == await tags_of(world, two) == ["spring"]


async def test_of_many_who_tag_one_member_at_once_all_are_heard(world: World) -> None:
    member_id, _ = await world.bound()
    care = Care(world.connector)
    await asyncio.gather(
        *(care.tags.AddTags(adding(world, member_id, f"t{number}")) for number in range(16)),
        *(tagged(world, [member_id], f"u{number}") for number in range(4)),
    )
    assert len(await tags_of(world, member_id)) == 20


async def test_a_guide_tags_her_own_members_alone(world: World) -> None:
    hers, _ = await world.bound(0)
    others, _ = await world.bound(1)
    guide, mine = Care(world.guide(0)), world.guides[0]
    await guide.tags.AddTags(adding(world, hers, "silk", guide_id=mine))
    await guide.tags.RemoveTags(removing(world, hers, "wool", guide_id=mine))
    listing = tag_pb2.ListTagsRequest(brand_id=world.brand_id, member_id=hers, guide_id=mine)
    assert list((await guide.tags.ListTags(listing)).tags) == ["silk"]
    listing.member_id = others
    with world.running.nothing_written(world.brand_id):
        for call in (
            guide.tags.AddTags(adding(world, others, "mine", guide_id=mine)),
            guide.tags.RemoveTags(removing(world, others, "silk", guide_id=mine)),
            guide.tags.ListTags(listing),
        ):
            assert (await refusal(call)).reason == "NOT_HER_MEMBER"


async def test_a_merge_shows_the_tags_of_both_and_its_end_parts_them(world: World) -> None:
    """What was added since goes with the id in whose name it came."""
    cards = [world.identity(CARD) for _ in range(2)]
    ids = []
    for identity in cards:
        enrolled = await world.connector.members.EnrolMember(
            member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=[identity])
        )
        ids.append(enrolled.member.member_id)
    old, young = ids
    # Bound apart, so that each has a row of his own to go back to.
    for identity, guide in zip(cards, (0, 1), strict=True):
        await world.scan(await world.code(guide), identity)
    care = Care(world.connector)
    await care.tags.AddTags(adding(world, old, "vip", "both"))
    await care.tags.AddTags(adding(world, young, "silk", "both"))
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=old, identity=cards[1])
    )
    assert await tags_of(world, old) == await tags_of(world, young) == ["both", "silk", "vip"]
    assert (await care.tags.AddTags(adding(world, young, "since"))).tag_count == 4
    assert await tagged(world, [young, old], "spring") == [(5, ""), (5, "")]
    merges = MergeServiceStub(world.connector.channel("members"))
    [merge] = (
        await merges.ListMerges(merge_pb2.ListMergesRequest(brand_id=world.brand_id, member_id=old))
    ).merges
    await merges.UndoMerge(merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=merge.merge_id))
    assert await tags_of(world, old) == ["both", "spring", "vip"]
    assert await tags_of(world, young) == ["both", "silk", "since", "spring"]
