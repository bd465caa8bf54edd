"""The export over gRPC: recorded in the audit log first, then streamed, one thing a message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from chassis.audit import Audit
from chassis.clock import Now
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.times import to_optional_timestamp, to_timestamp
from daogou.members.v1 import export_pb2 as pb
from svc_members.binding.store_binding import BindingStore
from svc_members.care.consents import Consents
from svc_members.care.contacts import Contacts
from svc_members.care.profiles import Profiles
from svc_members.care.tasks import Tasks
from svc_members.care.text_sealer import TextSealer
from svc_members.handover.store_handover import NOT_OFFERED
from svc_members.member.identities import IdentitySealer
from svc_members.member.member_document import Member
from svc_members.member.messages import binding_message, member_message, merge_message, offer_message
from svc_members.member.store_export import ExportStore
from svc_members.member.store_identity import IdentityStore, holders_of, identity_of
from svc_members.member.store_member import MemberStore
from svc_members.member.store_merge import MergeStore
from svc_members.rules import bitemporal

Part = pb.ExportMemberResponse


class _ToPart(Protocol):
    """Makes a part of a document."""

    def __call__(self, document: Document) -> Part: ...


class ExportServicer:
    """Implements daogou.members.v1.ExportService."""

    def __init__(
        self,
        stores: tuple[MemberStore, IdentityStore, BindingStore, MergeStore, ExportStore],
        sealer: IdentitySealer,
        texts: TextSealer,
        audit: Audit,
        now: Now,
    ) -> None:
        self._members, self._identities, self._bindings, self._merges, self._store = stores
        self._sealer = sealer
        self._profiles = Profiles(texts)
        self._audit = audit
        self._now = now
        consents, tasks, contacts = Consents(texts), Tasks(texts), Contacts(texts)
        self._belongings: Mapping[str, _ToPart] = {
            "tags": lambda document: Part(tags=pb.ExportedTags(tags=document["tags"])),
            "consents": lambda document: Part(consent=consents.message(document)),
            "tasks": lambda document: Part(task=tasks.message(document)),
            "contacts": lambda document: Part(contact=contacts.message(document)),
            "offers": lambda document: Part(offer=offer_message(document)),
        }

    async def ExportMember(
        self, request: pb.ExportMemberRequest, context: Any
    ) -> AsyncGenerator[pb.ExportMemberResponse, None]:
        member = await self._members.find(request.brand_id, request.member_id)
        subject = {"brand_id": member.brand_id, "member_id": member.member_id}
        await self._audit.record(caller(), "ExportMember", subject, request.purpose, self._now())
        async for part in self._own(member):
            yield part
        ids = [member.member_id, *member.absorbed]
        for member_id in ids:
            for row in await self._bindings.rows(member.brand_id, member_id):
                yield Part(binding=binding_message(member.brand_id, member_id, row))
        for collection, to_part in self._belongings.items():
            async for document in self._store.belongings(collection, member.brand_id, ids):
                if document.get("state") != NOT_OFFERED:
                    yield to_part(document)
        for merge in await self._merges.of_member(member.brand_id, ids):
            yield Part(merge=merge_message(merge))

    async def _own(self, member: Member) -> AsyncGenerator[pb.ExportMemberResponse, None]:
        """What stands in his own document, and his identities."""
        links = await self._identities.links(member.brand_id, member.member_id)
        yield Part(member=member_message(member, links))
        for document in await self._store.identities(member.brand_id, member.member_id):
            held = bitemporal.standing(holders_of(document))
            assert held is not None, "he holds it"
            yield Part(
                identity=pb.ExportedIdentity(
                    identity=self._sealer.opened(member.brand_id, identity_of(document)),
                    valid_from_time=to_optional_timestamp(held.valid_from_time),
                    linked_time=to_timestamp(document["linked_time"]),
                )
            )
        document = await self._store.document(member.brand_id, member.member_id)
        yield Part(profile=self._profiles.message(member.brand_id, document.get("profile", {})))
        yield Part(
            activity=pb.ExportedActivity(
                last_purchase_time=to_optional_timestamp(document.get("last_purchase_time")),
                last_contact_time=to_optional_timestamp(document.get("last_contact_time")),
            )
        )
