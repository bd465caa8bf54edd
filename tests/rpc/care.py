"""The services that look after members, as callers of the tests call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from daogou.members.v1 import member_search_pb2, profile_pb2
from daogou.members.v1.activity_pb2_grpc import ActivityServiceStub
from daogou.members.v1.consent_pb2_grpc import ConsentServiceStub
from daogou.members.v1.follow_up_pb2_grpc import FollowUpServiceStub
from daogou.members.v1.member_search_pb2_grpc import MemberSearchServiceStub
from daogou.members.v1.profile_pb2_grpc import ProfileServiceStub
from daogou.members.v1.tag_pb2_grpc import TagServiceStub
from tests.rpc.running import Caller
from tests.rpc.world import World, request_id

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.activity_pb2_grpc import ActivityServiceAsyncStub
    from daogou.members.v1.consent_pb2_grpc import ConsentServiceAsyncStub
    from daogou.members.v1.follow_up_pb2_grpc import FollowUpServiceAsyncStub
    from daogou.members.v1.member_search_pb2_grpc import MemberSearchServiceAsyncStub
    from daogou.members.v1.profile_pb2_grpc import ProfileServiceAsyncStub
    from daogou.members.v1.tag_pb2_grpc import TagServiceAsyncStub


class Care:
    """The stubs, in somebody's name."""

    def __init__(self, caller: Caller) -> None:
        channel: Any = caller.channel("members")
        self.profiles: ProfileServiceAsyncStub = ProfileServiceStub(channel)
        self.tags: TagServiceAsyncStub = TagServiceStub(channel)
        self.consents: ConsentServiceAsyncStub = ConsentServiceStub(channel)
        self.follow_up: FollowUpServiceAsyncStub = FollowUpServiceStub(channel)
        self.search: MemberSearchServiceAsyncStub = MemberSearchServiceStub(channel)
        self.activity: ActivityServiceAsyncStub = ActivityServiceStub(channel)


def update_of(
    world: World, member_id: str, profile: profile_pb2.Profile, **more: Any
) -> profile_pb2.UpdateProfileRequest:
    """A request that writes all fields that are set, or those that the mask names."""
    paths = [field.name for field, _ in profile.ListFields()]
    return profile_pb2.UpdateProfileRequest(
        **{
            "brand_id": world.brand_id,
            "member_id": member_id,
            "request_id": request_id(),
            "profile": profile,
            "update_mask": FieldMask(paths=paths),
            **more,
        }
    )


async def found(
    care: Care, world: World, size: int = 100, **filters: Any
) -> list[member_search_pb2.FoundMember]:
    """All pages of a search."""
    members: list[member_search_pb2.FoundMember] = []
    token = ""
    while True:
        reply = await care.search.SearchMembers(
            member_search_pb2.SearchMembersRequest(
                brand_id=world.brand_id, page_size=size, page_token=token, **filters
            )
        )
        assert len(reply.members) <= size
        members += reply.members
        token = reply.next_page_token
        if not token:
            return members
