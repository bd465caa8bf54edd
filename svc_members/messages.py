"""Members and bindings as messages."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.times import to_optional_timestamp, to_timestamp
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1.binding_pb2 import Binding, BindingCause
from daogou.members.v1.member_pb2 import LinkedIdentity
from daogou.members.v1.member_pb2 import Member as MemberMessage
from svc_members.identities import Link
from svc_members.rules import binding
from svc_members.rules.binding import Row
from svc_members.store_member import Member


def binding_message(member: Member, row: Row) -> Binding:
    """One row."""
    return Binding(
        binding_id=row.binding_id,
        brand_id=member.brand_id,
        member_id=member.member_id,
        guide_id=row.guide_id,
        store_id=row.store_id,
        valid_from_time=to_timestamp(row.valid_from_time),
        valid_to_time=to_optional_timestamp(row.valid_to_time),
        recorded_time=to_optional_timestamp(row.recorded_time),
        superseded_time=to_optional_timestamp(row.superseded_time),
        protected_until_time=to_optional_timestamp(row.protected_until_time),
        cause=BindingCause.Value(f"BINDING_CAUSE_{row.cause}"),
        campaign=row.campaign,
    )


def member_message(member: Member, links: Sequence[Link]) -> MemberMessage:
    """A member with his identities masked and his standing binding."""
    standing = binding.standing(member.rows)
    return MemberMessage(
        member_id=member.member_id,
        brand_id=member.brand_id,
        identities=[_linked_identity(link) for link in links],
        binding=binding_message(member, standing) if standing else None,
        create_time=to_timestamp(member.create_time),
    )


def _linked_identity(link: Link) -> LinkedIdentity:
    return LinkedIdentity(
        kind=IdentityKind.Value(f"IDENTITY_KIND_{link.identity.kind}"),
        masked_value=link.identity.masked,
        app_id=link.identity.app_id,
        linked_time=to_timestamp(link.linked_time),
    )
