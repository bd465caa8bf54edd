"""Activity of members over gRPC: purchases, contacts, and how far they are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.clock import Now
from chassis.errors import Invalid
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import activity_pb2 as pb
from svc_members.entities import BRAND, policy_of
from svc_members.rules.binding import RenewOn
from svc_members.store_activity import ActivityStore
from svc_members.store_directory import DirectoryStore
from svc_members.store_member import MemberStore

AHEAD_MOST: Final = timedelta(minutes=5)


class ActivityServicer:
    """Implements daogou.members.v1.ActivityService."""

    def __init__(
        self, directory: DirectoryStore, members: MemberStore, activity: ActivityStore, now: Now
    ) -> None:
        self._directory = directory
        self._members = members
        self._activity = activity
        self._now = now

    async def RecordPurchase(
        self, request: pb.RecordPurchaseRequest, context: Any
    ) -> pb.RecordPurchaseResponse:
        time = self._happened(request.purchase_time, AHEAD_MOST)
        brand = await self._directory.find(BRAND, request.brand_id, request.brand_id)
        latest = await self._members.record_activity(
            request.brand_id,
            request.member_id,
            "purchase",
            time,
            renews=policy_of(brand).renew_on in (RenewOn.PURCHASE, RenewOn.CONTACT),
        )
        return pb.RecordPurchaseResponse(last_purchase_time=to_timestamp(latest))

    async def RecordContact(self, request: pb.RecordContactRequest, context: Any) -> pb.RecordContactResponse:
        time = self._happened(request.contact_time, AHEAD_MOST)
        brand = await self._directory.find(BRAND, request.brand_id, request.brand_id)
        latest = await self._members.record_activity(
            request.brand_id,
            request.member_id,
            "contact",
            time,
            renews=policy_of(brand).renew_on is RenewOn.CONTACT,
            guide_id=request.guide_id,
        )
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
