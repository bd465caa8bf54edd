"""Which members guides are as customers: whether they exist, and who answers for them by now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chassis.errors import NotFound
from chassis.ids import is_id
from daogou.members.v1.directory_pb2 import Guide
from svc_members.member.store_answering import AnsweringStore


async def refusal(
    answering: AnsweringStore, brand_id: str, guides: Sequence[Guide]
) -> Callable[[Guide], NotFound | None]:
    """What refuses those of the guides who name a member of whom there is none."""
    named = {guide.member_id for guide in guides if is_id(guide.member_id)}
    known = await answering.find(brand_id, named) if named else {}

    def refused(guide: Guide) -> NotFound | None:
        if not guide.member_id:
            return None
        if guide.member_id not in known:
            return NotFound("MEMBER_UNKNOWN", "the guide is no member of this brand by that id")
        if known[guide.member_id].erased:
            return NotFound("MEMBER_ERASED", "the member was erased")
        return None

    return refused


async def follow(answering: AnsweringStore, brand_id: str, guides: Sequence[Guide]) -> None:
    """Has the messages name who answers for the guides' members now, and all who were merged into these."""
    named = {guide.member_id for guide in guides if guide.member_id}
    known = await answering.find(brand_id, named) if named else {}
    for guide in guides:
        one = known.get(guide.member_id)
        answers = one is not None and not one.erased
        guide.member_id = one.member_id if one and answers else ""
        guide.merged_member_ids[:] = one.absorbed if one and answers else ()
