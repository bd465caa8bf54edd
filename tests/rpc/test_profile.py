"""Profiles over gRPC: written field by field, once for one request, by those who serve the member."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.times import to_timestamp
from daogou.members.v1 import member_pb2, profile_pb2
from daogou.members.v1.profile_pb2 import Birthday, GetProfileRequest, Profile
from tests.rpc.care import Care, update_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running)


async def read(world: World, member_id: str) -> Profile:
    """The profile as it now is."""
    request = GetProfileRequest(brand_id=world.brand_id, member_id=member_id)
    return (await Care(world.service).profiles.GetProfile(request)).profile


async def test_a_profile_is_written_field_by_field(world: World) -> None:
    """And cleared so: what the mask does not name stays."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    assert await read(world, member_id) == Profile()
    expires = to_timestamp(world.running.now() + timedelta(days=365))
    whole = Profile(
        display_name="王小明",
        gender=profile_pb2.GENDER_MALE,
        birthday=Birthday(month=2, day=29),
        language_code="zh-CN",
        tier="gold",
        tier_expire_time=expires,
        remark="对羊毛过敏",
    )
    reply = await care.profiles.UpdateProfile(update_of(world, member_id, whole))
    assert (reply.member_id, reply.profile) == (member_id, whole)
    assert await read(world, member_id) == whole
    cleared = update_of(
        world,
        member_id,
        Profile(tier="silver", remark="not named"),
        update_mask=FieldMask(paths=["tier", "birthday", "gender", "tier_expire_time"]),
    )
    await Care(world.admin).profiles.UpdateProfile(cleared)
    rest = Profile(display_name="王小明", language_code="zh-CN", tier="silver", remark="对羊毛过敏")
    assert await read(world, member_id) == rest


async def test_a_repeat_has_one_effect_and_the_first_reply(world: World) -> None:
    """Whatever was written in between."""
    member_id, _ = await world.bound()
    care = Care(world.connector)
    first = update_of(world, member_id, Profile(display_name="Ann"))
    replies = await asyncio.gather(*(care.profiles.UpdateProfile(first) for _ in range(5)))
    assert {reply.profile.display_name for reply in replies} == {"Ann"}
    await care.profiles.UpdateProfile(update_of(world, member_id, Profile(display_name="Bea", tier="gold")))
    again = await care.profiles.UpdateProfile(first)
    assert again == replies[0]
    assert await read(world, member_id) == Profile(display_name="Bea", tier="gold")
    other = update_of(world, member_id, Profile(display_name="Cat"), request_id=first.request_id)
    with world.running.nothing_written(world.brand_id):
        reused = await refusal(care.profiles.UpdateProfile(other))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_writers_at_once_lose_nothing_of_each_other(world: World) -> None:
    """Each writes another field; scans of the same member come between."""
    member_id, identity = await world.bound()
    code = await world.code()
    care = Care(world.connector)
    profiles = [
        Profile(display_name="Ann"),
        Profile(tier="gold"),
        Profile(remark="tall"),
        Profile(language_code="zh"),
        Profile(gender=profile_pb2.GENDER_FEMALE),
        Profile(birthday=Birthday(month=5, day=4, year=1990)),
    ]
    await asyncio.gather(
        *(care.profiles.UpdateProfile(update_of(world, member_id, profile)) for profile in profiles),
        *(world.scan(code, identity) for _ in range(10)),
    )
    expected = Profile()
    for profile in profiles:
        expected.MergeFrom(profile)
    assert await read(world, member_id) == expected


async def test_a_guide_reads_and_writes_the_profiles_of_her_own_members_alone(world: World) -> None:
    """Whoever else carries a guide's id is bound by it too."""
    hers, _ = await world.bound(0)
    others, _ = await world.bound(1)
    guide, mine = Care(world.guide(0)), {"guide_id": world.guides[0]}
    await guide.profiles.UpdateProfile(update_of(world, hers, Profile(remark="likes silk"), **mine))
    request = GetProfileRequest(brand_id=world.brand_id, member_id=hers, **mine)
    assert (await guide.profiles.GetProfile(request)).profile.remark == "likes silk"
    with world.running.nothing_written(world.brand_id):
        for care in (guide, Care(world.connector)):
            for member_id in (others, world.member_id):
                for call in (
                    care.profiles.GetProfile(
                        GetProfileRequest(brand_id=world.brand_id, member_id=member_id, **mine)
                    ),
                    care.profiles.UpdateProfile(update_of(world, member_id, Profile(remark="mine!"), **mine)),
                ):
                    found = await refusal(call)
                    assert found.code is grpc.StatusCode.FAILED_PRECONDITION
                    assert found.reason == "NOT_HER_MEMBER"


async def test_what_a_merged_member_brought_is_shown_under_both_ids(world: World) -> None:
    """And a change in the name of either is one of the profile that they share."""
    ids: list[Any] = []
    cards = [world.identity() for _ in range(2)]
    care = Care(world.connector)
    for identity, profile in zip(
        cards, (Profile(tier="gold"), Profile(tier="plain", remark="tall")), strict=True
    ):
        enrolled = await world.connector.members.EnrolMember(
            member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=[identity])
        )
        ids.append(enrolled.member.member_id)
        await care.profiles.UpdateProfile(update_of(world, ids[-1], profile))
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=ids[0], identity=cards[1])
    )
    for member_id in ids:
        request = GetProfileRequest(brand_id=world.brand_id, member_id=member_id)
        reply = await care.profiles.GetProfile(request)
        assert (reply.member_id, reply.profile) == (ids[0], Profile(tier="gold", remark="tall"))
    written = await care.profiles.UpdateProfile(update_of(world, ids[1], Profile(tier="silver")))
    assert written.member_id == ids[0]
    assert (await read(world, ids[0])).tier == "silver"


async def test_a_member_may_be_born_today_but_not_next_year(world: World) -> None:
    today = world.running.now()
    member_id, _ = await world.bound()
    born = Birthday(month=today.month, day=today.day, year=today.year)
    await Care(world.connector).profiles.UpdateProfile(update_of(world, member_id, Profile(birthday=born)))
    later = Birthday(month=1, day=1, year=today.year + 1)
    with world.running.nothing_written(world.brand_id):
        found = await refusal(
            Care(world.connector).profiles.UpdateProfile(
                update_of(world, member_id, Profile(birthday=later), request_id=request_id())
            )
        )
    assert (found.reason, found.fields) == ("INVALID_FIELDS", {"profile.birthday"})
