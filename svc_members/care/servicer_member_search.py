"""Search over gRPC: the members who match, page by page."""

from __future__ import annotations

from typing import Any

from chassis.mongo.connection import Document
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors
from chassis.times import from_timestamp, to_optional_timestamp
from daogou.members.v1 import member_search_pb2 as pb
from svc_members.care.profiles import Profiles
from svc_members.care.store_member_search import Filters, MemberSearchStore
from svc_members.care.text_sealer import TextSealer


class MemberSearchServicer:
    """Implements daogou.members.v1.MemberSearchService."""

    def __init__(self, store: MemberSearchStore, sealer: TextSealer, cursors: Cursors) -> None:
        self._store = store
        self._profiles = Profiles(sealer)
        self._cursors = cursors

    async def SearchMembers(self, request: pb.SearchMembersRequest, context: Any) -> pb.SearchMembersResponse:
        place = self._cursors.place(request)
        found, after_id = await self._store.page(
            request.brand_id,
            _filters(request),
            place[0] if place else "",
            request.page_size or PAGE_SIZE_DEFAULT,
        )
        return pb.SearchMembersResponse(
            members=[self._message(request.brand_id, member) for member in found],
            next_page_token=self._cursors.token(request, after_id) if after_id else "",
        )

    def _message(self, brand_id: str, member: Document) -> pb.FoundMember:
        profile, standing = member.get("profile", {}), member.get("standing") or {}
        return pb.FoundMember(
            member_id=member["member_id"],
            display_name=self._profiles.display_name(brand_id, profile),
            tier=profile.get("tier", ""),
            guide_id=standing.get("guide_id", ""),
            store_id=standing.get("store_id", ""),
            last_purchase_time=to_optional_timestamp(member.get("last_purchase_time")),
            birthday_month=profile.get("birthday_month", 0),
        )


def _filters(request: pb.SearchMembersRequest) -> Filters:
    return Filters(
        guide_id=request.guide_id,
        store_id=request.store_id,
        tag=request.tag.strip(),
        tier=request.tier,
        purchased_from=from_timestamp(request.last_purchase_from_time)
        if request.HasField("last_purchase_from_time")
        else None,
        purchased_to=from_timestamp(request.last_purchase_to_time)
        if request.HasField("last_purchase_to_time")
        else None,
        birthday_month=request.birthday_month,
    )
