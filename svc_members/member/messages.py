"""Members and bindings as messages."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.mongo.connection import Document
from chassis.times import to_optional_timestamp, to_timestamp
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1.binding_pb2 import Binding, BindingCause
from daogou.members.v1.handover_pb2 import Offer, OfferState
from daogou.members.v1.member_pb2 import LinkedIdentity
from daogou.members.v1.member_pb2 import Member as MemberMessage
from daogou.members.v1.merge_pb2 import Merge
from svc_members.member.identities import Link
from svc_members.member.member_document import Member
from svc_members.rules import binding
from svc_members.rules.binding import Row


def binding_message(brand_id: str, member_id: str, row: Row) -> Binding:
    """One row."""
    return Binding(
        binding_id=row.binding_id,
        brand_id=brand_id,
        member_id=member_id,
        guide_id=row.guide_id,
        store_id=row.store_id,
        valid_from_time=to_timestamp(row.valid_from_time),
        valid_to_time=to_optional_timestamp(row.valid_to_time),
        recorded_time=to_optional_timestamp(row.recorded_time),
        superseded_time=to_optional_timestamp(row.superseded_time),
        protected_until_time=to_optional_timestamp(row.protected_until_time),
        cause=BindingCause.Value(f"BINDING_CAUSE_{row.cause}"),
        campaign=row.campaign,
        origin_member_id=row.origin_id,
        reason=row.reason,
    )


def member_message(member: Member, links: Sequence[Link]) -> MemberMessage:
    """A member with his identities masked and his standing binding."""
    standing = binding.standing(member.rows)
    return MemberMessage(
        member_id=member.member_id,
        brand_id=member.brand_id,
        identities=[_linked_identity(link) for link in links],
        binding=binding_message(member.brand_id, member.member_id, standing) if standing else None,
        create_time=to_timestamp(member.create_time),
        merged_member_ids=member.absorbed,
    )


def offer_message(offer: Document) -> Offer:
    """An offer of a handover, from its document."""
    return Offer(
        handover_id=offer["handover_id"],
        member_id=offer["member_id"],
        taker_guide_id=offer["taker_guide_id"],
        state=OfferState.Value(f"OFFER_STATE_{offer['state']}"),
        offer_time=to_timestamp(offer["offer_time"]),
        answer_by_time=to_timestamp(offer["answer_by_time"]),
        end_time=to_optional_timestamp(offer["end_time"]),
        answered_by_member=offer["answered_by_member"],
    )


def merge_message(merge: Document) -> Merge:
    """A merge, from its document."""
    return Merge(
        merge_id=merge["merge_id"],
        brand_id=merge["brand_id"],
        survivor_member_id=merge["survivor_id"],
        merged_member_id=merge["other_id"],
        merge_time=to_timestamp(merge["merge_time"]),
        undone_time=to_optional_timestamp(merge["undone_time"]),
    )


def _linked_identity(link: Link) -> LinkedIdentity:
    return LinkedIdentity(
        kind=IdentityKind.Value(f"IDENTITY_KIND_{link.identity.kind}"),
        masked_value=link.identity.masked,
        app_id=link.identity.app_id,
        linked_time=to_timestamp(link.linked_time),
    )
