"""Erasure over gRPC: recorded in the audit log first, then done."""

from __future__ import annotations

from typing import Any

from chassis.audit import Audit
from chassis.clock import Now
from chassis.rpc.call import caller
from chassis.times import to_timestamp
from daogou.members.v1 import erasure_pb2 as pb
from svc_members.member.store_erasure import ErasureStore


class ErasureServicer:
    """Implements daogou.members.v1.ErasureService."""

    def __init__(self, erasures: ErasureStore, audit: Audit, now: Now) -> None:
        self._erasures = erasures
        self._audit = audit
        self._now = now

    async def EraseMember(self, request: pb.EraseMemberRequest, context: Any) -> pb.EraseMemberResponse:
        now = self._now()
        subject = {"brand_id": request.brand_id, "member_id": request.member_id}
        await self._audit.record(caller(), "EraseMember", subject, request.purpose, now)
        erased_time, member_ids = await self._erasures.erase(request.brand_id, request.member_id, now)
        return pb.EraseMemberResponse(erased_time=to_timestamp(erased_time), member_ids=member_ids)
