"""Bindings over gRPC: whose member somebody was, at any moment, as known at any moment."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from chassis.clock import Now
from chassis.errors import DaogouError, Refused, invalid_fields
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from chassis.times import from_timestamp
from daogou.members.v1 import binding_pb2 as pb
from svc_members.binding.corrections import Corrections
from svc_members.binding.store_binding import Answer, BindingStore, Question
from svc_members.directory.entities import BRAND, Kind, check_employed, guide_kind, policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.identities import IdentitySealer
from svc_members.member.member_document import Member
from svc_members.member.messages import binding_message
from svc_members.member.store_identity import IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding


class BindingServicer:
    """Implements daogou.members.v1.BindingService."""

    def __init__(
        self,
        directory: DirectoryStore,
        identity_store: IdentityStore,
        members: MemberStore,
        bindings: BindingStore,
        corrections: Corrections,
        sealer: IdentitySealer,
        now: Now,
    ) -> None:
        self._directory = directory
        self._identities = identity_store
        self._members = members
        self._bindings = bindings
        self._guide: Kind[Any] = guide_kind(sealer)
        self._sealer = sealer
        self._corrections = corrections
        self._now = now

    async def ResolveBinding(
        self, request: pb.ResolveBindingRequest, context: Any
    ) -> pb.ResolveBindingResponse:
        question = self._question(request.brand_id, request.query, self._now())
        [answer] = await self._bindings.resolve(request.brand_id, [question])
        reply = pb.ResolveBindingResponse()
        _tell(reply.resolved, answer)
        return reply

    async def BatchResolveBindings(
        self, request: pb.BatchResolveBindingsRequest, context: Any
    ) -> pb.BatchResolveBindingsResponse:
        now, brand_id = self._now(), request.brand_id
        refused: dict[int, DaogouError] = {}
        questions = []
        for place, query in enumerate(request.queries):
            try:
                if found := limits.violations(query):
                    raise invalid_fields(found)
                questions.append(self._question(brand_id, query, now))
            except DaogouError as error:
                refused[place] = error
        answers = iter(await self._bindings.resolve(brand_id, questions))
        reply = pb.BatchResolveBindingsResponse()
        for place in range(len(request.queries)):
            # Made in its place: what is given to the reply is copied.
            resolved = reply.resolved.add()
            if place in refused:
                resolved.error.CopyFrom(to_item_error(refused[place]))
            else:
                _tell(resolved, next(answers))
        return reply

    async def ClaimMember(self, request: pb.ClaimMemberRequest, context: Any) -> pb.ClaimMemberResponse:
        now = self._now()
        brand, guide = await asyncio.gather(
            self._directory.find(BRAND, request.brand_id, request.brand_id),
            self._directory.find(self._guide, request.brand_id, request.guide_id),
        )

        check_employed(guide)

        async def read() -> Member:
            return await self._members.find(request.brand_id, request.member_id)

        async def claimed(member: Member, next_id: str) -> binding.Decision:
            claim = binding.Scan(
                guide_id=guide["guide_id"],
                store_id=guide["store_id"],
                campaign="",
                scanned_time=now,
                by_herself=await self._identities.are_of(member.brand_id, member.member_id, guide),
                origin_id=member.origin_id,
            )
            return binding.claim(member.rows, claim, policy_of(brand), next_id)

        member, _ = await self._members.decided(read, claimed)
        standing = binding.standing(member.rows)
        assert standing is not None, "whoever was claimed is somebody's"
        return pb.ClaimMemberResponse(binding=binding_message(member.brand_id, member.member_id, standing))

    async def CorrectBinding(
        self, request: pb.CorrectBindingRequest, context: Any
    ) -> pb.CorrectBindingResponse:
        return await self._corrections.correct(request, self._now())

    async def ListBindingRows(
        self, request: pb.ListBindingRowsRequest, context: Any
    ) -> pb.ListBindingRowsResponse:
        rows = await self._bindings.rows(request.brand_id, request.member_id)
        return pb.ListBindingRowsResponse(
            rows=[binding_message(request.brand_id, request.member_id, row) for row in rows]
        )

    def _question(self, brand_id: str, query: pb.BindingQuery, now: datetime) -> Question:
        """Raises: Refused KNOWN_AT_TOO_RECENT."""
        by_identity = query.HasField("identity")
        known_at = from_timestamp(query.known_at_time) if query.HasField("known_at_time") else None
        if known_at is not None and now - known_at < binding.KNOWN_AT_AGE_LEAST:
            wait_s = (binding.KNOWN_AT_AGE_LEAST - (now - known_at)).total_seconds()
            raise Refused(
                "KNOWN_AT_TOO_RECENT", "known_at_time must be at least 5 s ago", retry_after_s=wait_s
            )
        return Question(
            index=self._sealer.index(brand_id, query.identity) if by_identity else "",
            member_id="" if by_identity else query.member_id,
            as_of=from_timestamp(query.as_of_time) if query.HasField("as_of_time") else now,
            known_at=known_at,
        )


def _tell(resolved: pb.ResolvedBinding, answer: Answer) -> None:
    """Puts an answer into a reply."""
    resolved.member_id = answer.member_id
    resolved.binding_id = answer.binding_id
    resolved.guide_id = answer.guide_id
    resolved.store_id = answer.store_id
