"""Merges over gRPC: listed and undone. They are made by linking an identity (`servicer_member`)."""

from __future__ import annotations

from typing import Any

from chassis.clock import Now
from daogou.members.v1 import merge_pb2 as pb
from svc_members.handover.handovers import Handovers
from svc_members.member.attempts import until_unchanged
from svc_members.member.messages import merge_message
from svc_members.member.store_member import MemberStore
from svc_members.member.store_merge import MergeStore


class MergeServicer:
    """Implements daogou.members.v1.MergeService."""

    def __init__(self, members: MemberStore, merges: MergeStore, handovers: Handovers, now: Now) -> None:
        self._members = members
        self._merges = merges
        self._handovers = handovers
        self._now = now

    async def UndoMerge(self, request: pb.UndoMergeRequest, context: Any) -> pb.UndoMergeResponse:
        now = self._now()
        merge = await until_unchanged(lambda: self._merges.undo(request.brand_id, request.merge_id, now))
        for member_id in (merge["survivor_id"], merge["other_id"]):
            await self._handovers.release(request.brand_id, member_id)
        return pb.UndoMergeResponse(merge=merge_message(merge))

    async def ListMerges(self, request: pb.ListMergesRequest, context: Any) -> pb.ListMergesResponse:
        member = await self._members.find(request.brand_id, request.member_id)
        merges = await self._merges.of_member(
            request.brand_id, [member.member_id, member.origin_id or member.member_id]
        )
        return pb.ListMergesResponse(merges=[merge_message(merge) for merge in merges])
