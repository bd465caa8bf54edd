"""Activity of members over gRPC: purchases, contacts, and how far they are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.clock import Now
from chassis.errors import DaogouError, Invalid, NotFound, invalid_fields
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import activity_pb2 as pb
from svc_members.binding.store_activity import ActivityStore
from svc_members.care.contacts import Contacts
from svc_members.care.store_contact import ContactStore
from svc_members.care.text_sealer import TextSealer
from svc_members.directory.entities import BRAND, policy_of
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.identities import IdentitySealer
from svc_members.member.store_answering import Answering, AnsweringStore
from svc_members.member.store_identity import changed_meanwhile
from svc_members.member.store_member import MemberStore, unknown
from svc_members.rules.binding import RenewOn

AHEAD_MOST: Final = timedelta(minutes=5)


class ActivityServicer:
    """Implements daogou.members.v1.ActivityService."""

    def __init__(
        self,
        directory: DirectoryStore,
        members: MemberStore,
        activity: ActivityStore,
        answering: AnsweringStore,
        contact_store: ContactStore,
        sealer: IdentitySealer,
        texts: TextSealer,
        now: Now,
    ) -> None:
        self._directory = directory
        self._members = members
        self._activity = activity
        self._answering = answering
        self._contact_store = contact_store
        self._sealer = sealer
        self._contacts = Contacts(texts)
        self._now = now

    async def RecordPurchase(
        self, request: pb.RecordPurchaseRequest, context: Any
    ) -> pb.RecordPurchaseResponse:
        time = self._happened(request.purchase_time, AHEAD_MOST)
        brand = await self._directory.find(BRAND, request.brand_id, request.brand_id)
        member = await self._members.find(request.brand_id, request.member_id)
        if request.HasField("identity"):
            index = self._sealer.index(request.brand_id, request.identity)
            member = await self._members.reached_by(member, index)
        latest = await self._members.record_activity(
            member,
            "purchase",
            time,
            renews=policy_of(brand).renew_on in (RenewOn.PURCHASE, RenewOn.CONTACT),
        )
        return pb.RecordPurchaseResponse(last_purchase_time=to_timestamp(latest))

    async def BatchRecordPurchases(
        self, request: pb.BatchRecordPurchasesRequest, context: Any
    ) -> pb.BatchRecordPurchasesResponse:
        brand = await self._directory.find(BRAND, request.brand_id, request.brand_id)
        found = await self._answering.find(request.brand_id, {one.member_id for one in request.purchases})
        errors: dict[int, DaogouError] = {}
        noted: dict[int, tuple[str, str, datetime]] = {}
        for place, purchase in enumerate(request.purchases):
            try:
                if bad := limits.violations(purchase):
                    raise invalid_fields(bad)
                time = self._happened(purchase.purchase_time, AHEAD_MOST)
                member_id = _answering_for(found.get(purchase.member_id))
            except DaogouError as error:
                errors[place] = error
            else:
                origin_id = "" if member_id == purchase.member_id else purchase.member_id
                noted[place] = (member_id, origin_id, time)
        renews = policy_of(brand).renew_on in (RenewOn.PURCHASE, RenewOn.CONTACT)
        if noted and not await self._members.record_purchases(
            request.brand_id, list(noted.values()), renews=renews
        ):
            errors |= dict.fromkeys(noted, changed_meanwhile())
        result = pb.BatchRecordPurchasesResponse.Result
        return pb.BatchRecordPurchasesResponse(
            results=[
                result(error=to_item_error(errors[place])) if place in errors else result()
                for place in range(len(request.purchases))
            ]
        )

    async def RecordContact(self, request: pb.RecordContactRequest, context: Any) -> pb.RecordContactResponse:
        time = self._happened(request.contact_time, AHEAD_MOST)
        brand = await self._directory.find(BRAND, request.brand_id, request.brand_id)
        member = await self._members.find(request.brand_id, request.member_id)
        latest = await self._members.record_activity(
            member,
            "contact",
            time,
            renews=policy_of(brand).renew_on is RenewOn.CONTACT,
            guide_id=request.guide_id,
        )
        await self._contact_store.record(self._contacts.document(request, member.member_id, self._now()))
        return pb.RecordContactResponse(last_contact_time=to_timestamp(latest))

    async def ReportSyncedThrough(
        self, request: pb.ReportSyncedThroughRequest, context: Any
    ) -> pb.ReportSyncedThroughResponse:
        time = self._happened(request.synced_through_time, timedelta(0))
        await self._directory.find(BRAND, request.brand_id, request.brand_id)
        await self._activity.report(request.brand_id, request.feed_id, time)
        through = await self._activity.synced_through(request.brand_id)
        return pb.ReportSyncedThroughResponse(brand_synced_through_time=to_timestamp(through or time))

    def _happened(self, timestamp: Timestamp, ahead_most: timedelta) -> datetime:
        """Raises: Invalid ACTIVITY_IN_FUTURE."""
        time = from_timestamp(timestamp)
        if time > self._now() + ahead_most:
            raise Invalid("ACTIVITY_IN_FUTURE", "the time is ahead of this service's clock")
        return time


def _answering_for(found: Answering | None) -> str:
    """The id of whoever answers for a member's. Raises: NotFound MEMBER_UNKNOWN, MEMBER_ERASED."""
    if found is None:
        raise unknown()
    if found.erased:
        raise NotFound("MEMBER_ERASED", "the member was erased")
    return found.member_id
