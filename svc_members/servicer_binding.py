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
from svc_members.entities import BRAND, Kind, check_employed, guide_kind, policy_of
from svc_members.identities import IdentitySealer
from svc_members.messages import binding_message
from svc_members.rules import binding
from svc_members.rules.binding import Row
from svc_members.store_directory import DirectoryStore
from svc_members.store_identity import IdentityStore
from svc_members.store_member import Member, MemberStore


class BindingServicer:
    """Implements daogou.members.v1.BindingService."""

    def __init__(
        self,
        directory: DirectoryStore,
        identity_store: IdentityStore,
        members: MemberStore,
        sealer: IdentitySealer,
        now: Now,
    ) -> None:
        self._directory = directory
        self._identities = identity_store
        self._members = members
        self._guide: Kind[Any] = guide_kind(sealer)
        self._sealer = sealer
        self._now = now

    async def ResolveBinding(
        self, request: pb.ResolveBindingRequest, context: Any
    ) -> pb.ResolveBindingResponse:
        now = self._now()
        _check(request.query, now)
        [resolved] = await self._resolved(request.brand_id, [request.query], now)
        return pb.ResolveBindingResponse(resolved=resolved)

    async def BatchResolveBindings(
        self, request: pb.BatchResolveBindingsRequest, context: Any
    ) -> pb.BatchResolveBindingsResponse:
        now = self._now()
        answers: list[pb.ResolvedBinding | None] = []
        asked = []
        for query in request.queries:
            try:
                if found := limits.violations(query):
                    raise invalid_fields(found)
                _check(query, now)
            except DaogouError as error:
                answers.append(pb.ResolvedBinding(error=to_item_error(error)))
            else:
                answers.append(None)
                asked.append(query)
        resolved = iter(await self._resolved(request.brand_id, asked, now))
        return pb.BatchResolveBindingsResponse(resolved=[answer or next(resolved) for answer in answers])

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
            )
            return binding.claim(member.rows, claim, policy_of(brand), next_id)

        member, _ = await self._members.decided(read, claimed)
        standing = binding.standing(member.rows)
        assert standing is not None, "whoever was claimed is somebody's"
        return pb.ClaimMemberResponse(binding=binding_message(member, standing))

    async def ListBindingRows(
        self, request: pb.ListBindingRowsRequest, context: Any
    ) -> pb.ListBindingRowsResponse:
        member = await self._members.find(request.brand_id, request.member_id)
        return pb.ListBindingRowsResponse(rows=[binding_message(member, row) for row in member.rows])

    async def _resolved(
        self, brand_id: str, queries: list[pb.BindingQuery], now: datetime
    ) -> list[pb.ResolvedBinding]:
        """The answers, in order. Two reads whatever their number: identities, then members."""
        indexes = [
            self._sealer.index(brand_id, query.identity) if query.HasField("identity") else ""
            for query in queries
        ]
        asked = [index for index in indexes if index]
        held = await self._identities.holders(brand_id, asked) if asked else {}
        member_ids = [
            held.get(index, "") if index else query.member_id
            for index, query in zip(indexes, queries, strict=True)
        ]
        rows = await self._members.find_many(brand_id, [member_id for member_id in member_ids if member_id])
        return [
            _answer(member_id, rows.get(member_id), query, now)
            for member_id, query in zip(member_ids, queries, strict=True)
        ]


def _check(query: pb.BindingQuery, now: datetime) -> None:
    """Raises: Refused KNOWN_AT_TOO_RECENT."""
    if query.HasField("known_at_time"):
        age = now - from_timestamp(query.known_at_time)
        if age < binding.KNOWN_AT_AGE_LEAST:
            wait_s = (binding.KNOWN_AT_AGE_LEAST - age).total_seconds()
            raise Refused(
                "KNOWN_AT_TOO_RECENT", "known_at_time must be at least 5 s ago", retry_after_s=wait_s
            )


def _answer(
    member_id: str, rows: tuple[Row, ...] | None, query: pb.BindingQuery, now: datetime
) -> pb.ResolvedBinding:
    if rows is None:
        return pb.ResolvedBinding()
    as_of = from_timestamp(query.as_of_time) if query.HasField("as_of_time") else now
    known_at = from_timestamp(query.known_at_time) if query.HasField("known_at_time") else None
    row = binding.resolve(rows, as_of, known_at)
    if row is None:
        return pb.ResolvedBinding(member_id=member_id)
    return pb.ResolvedBinding(
        member_id=member_id, binding_id=row.binding_id, guide_id=row.guide_id, store_id=row.store_id
    )
