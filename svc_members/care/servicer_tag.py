"""Tags over gRPC: given and taken, one member or many at a time."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from chassis.errors import DaogouError, NotFound, invalid_fields
from chassis.rpc import limits
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors
from chassis.rpc.items import to_item_error
from daogou.members.v1 import tag_pb2 as pb
from svc_members.care.store_tag import TagStore
from svc_members.care.tagging import Tagging
from svc_members.member.served import served
from svc_members.member.store_answering import Answering, AnsweringStore
from svc_members.member.store_member import MemberStore
from svc_members.rules import tag

_Result = pb.BatchTagMembersResponse.Result


class TagServicer:
    """Implements daogou.members.v1.TagService."""

    def __init__(
        self, members: MemberStore, answering: AnsweringStore, store: TagStore, cursors: Cursors
    ) -> None:
        self._members = members
        self._answering = answering
        self._store = store
        self._tagging = Tagging(store)
        self._cursors = cursors

    async def AddTags(self, request: pb.AddTagsRequest, context: Any) -> pb.AddTagsResponse:
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        whom = {request.member_id: member.member_id}
        [result] = (await self._tagging.add(request.brand_id, whom, tag.trimmed(request.tags))).values()
        if isinstance(result, DaogouError):
            raise result
        return pb.AddTagsResponse(tag_count=result)

    async def RemoveTags(self, request: pb.RemoveTagsRequest, context: Any) -> pb.RemoveTagsResponse:
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        await self._store.remove(request.brand_id, member.member_id, tag.trimmed(request.tags))
        return pb.RemoveTagsResponse(tag_count=len(await self._tags(request.brand_id, member.member_id)))

    async def ListTags(self, request: pb.ListTagsRequest, context: Any) -> pb.ListTagsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        tags = sorted(await self._tags(request.brand_id, member.member_id))
        start = bisect_right(tags, place[0]) if place else 0
        page = tags[start : start + size]
        token = self._cursors.token(request, page[-1]) if len(tags) > start + size else ""
        return pb.ListTagsResponse(tags=page, next_page_token=token)

    async def BatchTagMembers(
        self, request: pb.BatchTagMembersRequest, context: Any
    ) -> pb.BatchTagMembersResponse:
        bad = {place: found for place, item in enumerate(request.items) if (found := limits.violations(item))}
        asked = {item.member_id for place, item in enumerate(request.items) if place not in bad}
        known = await self._answering.find(request.brand_id, asked)
        whom = {name: found.member_id for name, found in known.items() if not found.erased}
        results = await self._tagging.add(request.brand_id, whom, tag.trimmed(request.tags))

        def result(place: int, item: pb.BatchTagMembersRequest.Item) -> pb.BatchTagMembersResponse.Result:
            if place in bad:
                return _Result(error=to_item_error(invalid_fields(bad[place])))
            found = results.get(item.member_id) or _absent(known.get(item.member_id))
            if isinstance(found, DaogouError):
                return _Result(error=to_item_error(found))
            return _Result(tag_count=found)

        return pb.BatchTagMembersResponse(
            results=[result(place, item) for place, item in enumerate(request.items)]
        )

    async def _tags(self, brand_id: str, member_id: str) -> frozenset[str]:
        sets = (await self._store.find(brand_id, [member_id]))[member_id]
        return frozenset[str]().union(*(one.tags for one in sets))


def _absent(found: Answering | None) -> NotFound:
    if found is None:
        return NotFound("MEMBER_UNKNOWN", "the brand knows no such member")
    return NotFound("MEMBER_ERASED", "the member was erased")
