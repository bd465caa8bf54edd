"""Search over gRPC: every member who matches, once, whatever is scanned and tagged meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1 import activity_pb2, member_pb2, member_search_pb2, tag_pb2
from daogou.members.v1.directory_pb2 import SNATCH_ALWAYS, BindingPolicy
from daogou.members.v1.member_search_pb2 import FoundMember, SearchMembersRequest
from daogou.members.v1.profile_pb2 import Birthday, Profile
from tests.rpc.care import Care, found, update_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world

DAY = timedelta(days=1)


@dataclass
class Crowd:
    """A brand with members of whom something is known."""

    world: World
    members: Mapping[str, str]
    """Their ids, by their names."""
    identities: Mapping[str, Identity]

    def ids(self, *names: str) -> list[str]:
        return sorted(self.members[name] for name in names)

    async def ids_found(self, size: int = 100, **filters: Any) -> list[str]:
        return [one.member_id for one in await found(Care(self.world.connector), self.world, size, **filters)]


PEOPLE: Mapping[str, tuple[int, Profile, tuple[str, ...], int | None]] = {
    # By name: the guide, the profile, the tags, and how many days ago he bought.
    "ann": (0, Profile(display_name="Ann", tier="gold", birthday=Birthday(month=3, day=1)), ("vip",), 1),
    "bob": (0, Profile(tier="plain", birthday=Birthday(month=3, day=31, year=1990)), ("vip", "silk"), 10),
    "cat": (1, Profile(tier="gold"), ("silk",), None),
    "dan": (2, Profile(tier="gold", birthday=Birthday(month=12, day=5)), ("vip",), 3),
    "eve": (2, Profile(), (), 100),
}


async def a_crowd(running: Running) -> Crowd:
    world = await a_world(running, policy=BindingPolicy(snatch=SNATCH_ALWAYS))
    members, identities, now = {}, {}, running.now()
    care = Care(world.connector)
    for name, (guide, profile, tags, bought) in PEOPLE.items():
        member_id, identities[name] = await world.bound(guide)
        members[name] = member_id
        if profile.ListFields():
            await care.profiles.UpdateProfile(update_of(world, member_id, profile))
        if tags:
            await care.tags.AddTags(
                tag_pb2.AddTagsRequest(brand_id=world.brand_id, member_id=member_id, tags=tags)
            )
        if bought is not None:
            purchase = activity_pb2.RecordPurchaseRequest(
                brand_id=world.brand_id,
                member_id=member_id,
                purchase_time=to_timestamp(now - bought * DAY),
            )
            await care.activity.RecordPurchase(purchase)
    return Crowd(world, members, identities)


@pytest.fixture(scope="module")
async def crowd(running: Running) -> Crowd:
    return await a_crowd(running)


async def test_each_filter_finds_those_who_match_and_all_together_those_who_match_all(crowd: Crowd) -> None:
    """On pages of any size."""
    world, now = crowd.world, crowd.world.running.now()

    def ago(days: int) -> Timestamp:
        return to_timestamp(now - days * DAY)

    expected: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"guide_id": world.guides[0]}, ("ann", "bob")),
        ({"store_id": world.nanjing_road}, ("ann", "bob", "cat")),
        ({"store_id": world.xintiandi}, ("dan", "eve")),
        ({"store_id": world.flagship}, ()),
        ({"tag": "vip"}, ("ann", "bob", "dan")),
        ({"tag": " silk "}, ("bob", "cat")),
        ({"tag": "VIP"}, ()),
        ({"tier": "gold"}, ("ann", "cat", "dan")),
        ({"birthday_month": 3}, ("ann", "bob")),
        ({"last_purchase_from_time": ago(20)}, ("ann", "bob", "dan")),
        ({"last_purchase_to_time": ago(5)}, ("bob", "eve")),
        ({"last_purchase_from_time": ago(20), "last_purchase_to_time": ago(2)}, ("bob", "dan")),
        ({"tag": "vip", "tier": "gold"}, ("ann", "dan")),
        ({"tag": "vip", "guide_id": world.guides[0], "birthday_month": 3, "tier": "plain"}, ("bob",)),
        ({"tag": "silk", "last_purchase_from_time": ago(20)}, ("bob",)),
        ({"guide_id": world.guides[0], "store_id": world.xintiandi}, ()),
    ]
    for filters, names in expected:
        for size in (1, 2, 200):
            assert await crowd.ids_found(size, **filters) == crowd.ids(*names), filters


async def test_a_member_is_shown_with_what_is_known_of_him(crowd: Crowd) -> None:
    """And nothing is made up for one of whom nothing is."""
    world = crowd.world
    members = await found(Care(world.admin), world, last_purchase_to_time=to_timestamp(world.running.now()))
    by_id = {one.member_id: one for one in members}
    ann, eve = by_id[crowd.members["ann"]], by_id[crowd.members["eve"]]
    assert ann == FoundMember(
        member_id=crowd.members["ann"],
        display_name="Ann",
        tier="gold",
        guide_id=world.guides[0],
        store_id=world.nanjing_road,
        last_purchase_time=ann.last_purchase_time,
        birthday_month=3,
    )
    assert ann.HasField("last_purchase_time")
    assert (eve.display_name, eve.tier, eve.birthday_month) == ("", "", 0)


async def test_a_manager_searches_his_store_and_a_guide_her_members(crowd: Crowd) -> None:
    """Whatever else they ask for."""
    world = crowd.world
    manager, guide = Care(world.manager()), Care(world.guide(0))
    in_store = await found(manager, world, store_id=world.nanjing_road, tier="gold")
    assert [one.member_id for one in in_store] == crowd.ids("ann", "cat")
    hers = await found(guide, world, guide_id=world.guides[0], tag="vip")
    assert [one.member_id for one in hers] == crowd.ids("ann", "bob")
    denied: list[tuple[Care, dict[str, Any], str]] = [
        (manager, {"tier": "gold"}, "NOT_YOUR_STORE"),
        (manager, {"store_id": world.xintiandi}, "NOT_YOUR_STORE"),
        (guide, {"tag": "vip"}, "NOT_YOURS"),
        (guide, {"guide_id": world.guides[1]}, "NOT_YOURS"),
        (guide, {"store_id": world.nanjing_road}, "NOT_YOURS"),
    ]
    for care, filters, reason in denied:
        refused = await refusal(found(care, world, **filters))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)


async def test_a_page_token_is_good_for_the_same_filters_only(crowd: Crowd) -> None:
    """For pages of another size it is."""
    world, care = crowd.world, Care(crowd.world.connector)
    asked = SearchMembersRequest(brand_id=world.brand_id, tag="vip", page_size=1)
    asked.page_token = (await care.search.SearchMembers(asked)).next_page_token
    assert asked.page_token
    asked.page_size = 200
    assert len((await care.search.SearchMembers(asked)).members) == 2
    for change in (
        SearchMembersRequest(tag="silk"),
        SearchMembersRequest(tier="gold"),
        SearchMembersRequest(guide_id=world.guides[0]),
        SearchMembersRequest(birthday_month=1),
    ):
        other = SearchMembersRequest()
        other.CopyFrom(asked)
        other.MergeFrom(change)
        refused = await refusal(care.search.SearchMembers(other))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_what_changes_of_a_member_changes_by_what_he_is_found(running: Running) -> None:
    """At once."""
    crowd = await a_crowd(running)
    world, ann = crowd.world, crowd.members["ann"]
    care = Care(world.connector)
    await world.scan(await world.code(2), crowd.identities["ann"])
    assert await crowd.ids_found(guide_id=world.guides[0]) == crowd.ids("bob")
    assert await crowd.ids_found(store_id=world.xintiandi) == crowd.ids("ann", "dan", "eve")
    profile = Profile(tier="black", birthday=Birthday(month=7, day=7))
    await care.profiles.UpdateProfile(update_of(world, ann, profile))
    assert await crowd.ids_found(tier="gold") == crowd.ids("cat", "dan")
    assert await crowd.ids_found(birthday_month=7, tier="black") == crowd.ids("ann")
    await care.tags.RemoveTags(
        tag_pb2.RemoveTagsRequest(brand_id=world.brand_id, member_id=ann, tags=["vip"])
    )
    assert await crowd.ids_found(tag="vip") == crowd.ids("bob", "dan")


async def test_of_two_merged_members_one_is_found_by_what_either_brought(running: Running) -> None:
    crowd = await a_crowd(running)
    world, old, young = crowd.world, crowd.members["ann"], crowd.identities["cat"]
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=old, identity=young)
    )
    assert await crowd.ids_found(tag="silk") == crowd.ids("ann", "bob")
    assert await crowd.ids_found(tag="vip") == crowd.ids("ann", "bob", "dan")
    assert await crowd.ids_found(tier="gold") == crowd.ids("ann", "dan")
    assert await crowd.ids_found(store_id=world.nanjing_road) == crowd.ids("ann", "bob")


async def test_who_matches_throughout_is_listed_once_while_others_scan_and_tag(running: Running) -> None:
    """Members come and go between guides and tags as fast as the service can take it."""
    world = await a_world(running, policy=BindingPolicy(snatch=SNATCH_ALWAYS))
    care = Care(world.connector)
    codes = [await world.code(index) for index in range(3)]
    everybody = [await world.bound(0) for _ in range(60)]
    steady = {member_id for member_id, _ in everybody[::2]}
    items = [tag_pb2.BatchTagMembersRequest.Item(member_id=member_id) for member_id, _ in everybody]
    await care.tags.BatchTagMembers(
        tag_pb2.BatchTagMembersRequest(brand_id=world.brand_id, items=items, tags=["vip", "steady"])
    )
    over = False

    async def disturb(worker: int) -> int:
        """Those of odd number go to another guide and back, and lose the tag and get it again."""
        rounds = 0
        while not over:
            member_id, identity = everybody[1 + 2 * ((7 * rounds + worker) % 30)]
            named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
            await world.scan(codes[1 + rounds % 2], identity)
            await care.tags.RemoveTags(tag_pb2.RemoveTagsRequest(tags=["vip"], **named))
            await world.scan(codes[0], identity)
            await care.tags.AddTags(tag_pb2.AddTagsRequest(tags=["vip", f"t{rounds % 40}"], **named))
            rounds += 1
        return rounds

    async def touch() -> int:
        """Those of even number stay where they are, but are written all the time."""
        rounds = 0
        while not over:
            member_id, identity = everybody[2 * (rounds % 30)]
            await world.scan(codes[0], identity)
            await care.profiles.UpdateProfile(update_of(world, member_id, Profile(display_name=f"n{rounds}")))
            await care.tags.AddTags(
                tag_pb2.AddTagsRequest(brand_id=world.brand_id, member_id=member_id, tags=[f"t{rounds % 40}"])
            )
            rounds += 1
        return rounds

    work = [asyncio.create_task(one) for one in (disturb(0), disturb(3), touch())]
    try:
        for _ in range(8):
            for filters in (
                {"guide_id": world.guides[0]},
                {"store_id": world.nanjing_road},
                {"tag": "vip"},
                {"tag": "vip", "guide_id": world.guides[0]},
            ):
                listed = [one.member_id for one in await found(care, world, 7, **filters)]
                assert listed == sorted(set(listed)), filters
                assert steady <= set(listed), filters
    finally:
        over = True
        rounds = await asyncio.gather(*work)
    assert min(rounds) > 3, "too little was written meanwhile"


async def test_the_most_a_page_may_hold_is_two_hundred(crowd: Crowd) -> None:
    request = member_search_pb2.SearchMembersRequest(
        brand_id=crowd.world.brand_id, tier="gold", page_size=201
    )
    refused = await refusal(Care(crowd.world.connector).search.SearchMembers(request))
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", {"page_size"})
