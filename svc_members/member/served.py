"""Whom a call is about that serves one member: whoever answers for the id, and whether he is the guide's."""

from __future__ import annotations

from chassis.errors import Refused
from svc_members.member.member_document import Member
from svc_members.member.store_member import MemberStore
from svc_members.rules import binding


async def served(members: MemberStore, brand_id: str, member_id: str, guide_id: str) -> Member:
    """The member who answers for an id. With `guide_id`, only where he is that guide's.

    Raises: NotFound MEMBER_UNKNOWN, MEMBER_ERASED; Refused NOT_HER_MEMBER.
    """
    member = await members.find(brand_id, member_id)
    check_hers(member, guide_id)
    return member


def check_hers(member: Member, guide_id: str) -> None:
    """Raises: Refused NOT_HER_MEMBER where a guide is named and the member is not hers."""
    standing = binding.standing(member.rows)
    if guide_id and (standing is None or standing.guide_id != guide_id):
        raise Refused("NOT_HER_MEMBER", "the member is not this guide's")
