"""Members over gRPC: enrolled, linked, merged, read, and revealed under audit."""

from __future__ import annotations

from typing import Any

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import Invalid, NotFound
from chassis.ids import new_id
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.times import from_timestamp
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import member_pb2 as pb
from svc_members.directory.entities import BRAND
from svc_members.directory.store_directory import DirectoryStore
from svc_members.handover.handovers import Handovers
from svc_members.member.attempts import until_unchanged
from svc_members.member.identities import IdentitySealer
from svc_members.member.member_document import Member
from svc_members.member.messages import member_message, merge_message
from svc_members.member.store_identity import Held, IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.member.store_merge import MergeStore


class MemberServicer:
    """Implements daogou.members.v1.MemberService."""

    def __init__(
        self,
        directory: DirectoryStore,
        identity_store: IdentityStore,
        members: MemberStore,
        merges: MergeStore,
        handovers: Handovers,
        sealer: IdentitySealer,
        audit: Audit,
        now: Now,
    ) -> None:
        self._directory = directory
        self._identities = identity_store
        self._members = members
        self._merges = merges
        self._handovers = handovers
        self._sealer = sealer
        self._audit = audit
        self._now = now

    async def EnrolMember(self, request: pb.EnrolMemberRequest, context: Any) -> pb.EnrolMemberResponse:
        await self._directory.find(BRAND, request.brand_id, request.brand_id)
        stored = {
            identity.index: identity
            for identity in (self._sealer.stored(request.brand_id, given) for given in request.identities)
        }
        member_id, new = await self._identities.enrol(
            request.brand_id, list(stored.values()), new_id, self._now()
        )
        member = await self._members.find(request.brand_id, member_id)
        return pb.EnrolMemberResponse(member=await self._message(member), enrolled=new)

    async def LinkIdentity(self, request: pb.LinkIdentityRequest, context: Any) -> pb.LinkIdentityResponse:
        now, brand_id = self._now(), request.brand_id
        stored = self._sealer.stored(brand_id, request.identity)

        async def linked() -> tuple[Member, Document | None]:
            member = await self._members.find(brand_id, request.member_id)
            held = Held(member.member_id, member.origin_id)
            holder_id = await self._identities.link(brand_id, held, stored, now)
            if holder_id == member.member_id:
                return member, None
            merge = await self._merges.merge(brand_id, member.member_id, holder_id, new_id(), now)
            await self._handovers.release(brand_id, merge["survivor_id"])
            return await self._members.find(brand_id, merge["survivor_id"]), merge

        member, merge = await until_unchanged(linked)
        return pb.LinkIdentityResponse(
            member=await self._message(member), merge=merge_message(merge) if merge else None
        )

    async def UnlinkIdentity(
        self, request: pb.UnlinkIdentityRequest, context: Any
    ) -> pb.UnlinkIdentityResponse:
        now = self._now()
        time = from_timestamp(request.end_time) if request.HasField("end_time") else None
        if time is not None and time > now:
            raise Invalid("UNLINKED_IN_FUTURE", "end_time is ahead of this service's clock")
        index = self._sealer.index(request.brand_id, request.identity)

        async def unlinked() -> Member:
            member = await self._members.find(request.brand_id, request.member_id)
            held = Held(member.member_id, member.origin_id)
            await self._identities.unlink(request.brand_id, held, index, time, now)
            return member

        return pb.UnlinkIdentityResponse(member=await self._message(await until_unchanged(unlinked)))

    async def GetMember(self, request: pb.GetMemberRequest, context: Any) -> pb.GetMemberResponse:
        member_id = request.member_id
        if request.HasField("identity"):
            index = self._sealer.index(request.brand_id, request.identity)
            held = await self._identities.holders(request.brand_id, [index])
            if index not in held:
                raise NotFound("MEMBER_UNKNOWN", "the brand knows nobody by that identity")
            member_id = held[index]
        member = await self._members.find(request.brand_id, member_id)
        return pb.GetMemberResponse(member=await self._message(member))

    async def RevealIdentity(
        self, request: pb.RevealIdentityRequest, context: Any
    ) -> pb.RevealIdentityResponse:
        kind = IdentityKind.Name(request.kind).removeprefix("IDENTITY_KIND_")
        member = await self._members.find(request.brand_id, request.member_id)
        links = await self._identities.links(member.brand_id, member.member_id)
        subject = {"brand_id": member.brand_id, "member_id": member.member_id, "kind": kind}
        await self._audit.record(caller(), "RevealIdentity", subject, request.purpose, self._now())
        return pb.RevealIdentityResponse(
            identities=[
                self._sealer.opened(member.brand_id, link.identity)
                for link in links
                if link.identity.kind == kind
            ]
        )

    async def _message(self, member: Member) -> pb.Member:
        return member_message(member, await self._identities.links(member.brand_id, member.member_id))
