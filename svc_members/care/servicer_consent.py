"""Consents over gRPC: recorded for good, and read as they hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from chassis.clock import Now
from chassis.errors import Invalid, Refused
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.times import from_timestamp
from daogou.members.v1 import consent_pb2 as pb
from svc_members.care.consents import Consents
from svc_members.care.store_consent import ConsentStore
from svc_members.care.text_sealer import TextSealer
from svc_members.member.served import served
from svc_members.member.store_member import MemberStore

AHEAD_MOST: Final = timedelta(minutes=5)
PURPOSES_MAX: Final = 100


class ConsentServicer:
    """Implements daogou.members.v1.ConsentService."""

    def __init__(
        self, members: MemberStore, store: ConsentStore, sealer: TextSealer, cursors: Cursors, now: Now
    ) -> None:
        self._members = members
        self._store = store
        self._consents = Consents(sealer)
        self._cursors = cursors
        self._now = now

    async def RecordConsent(self, request: pb.RecordConsentRequest, context: Any) -> pb.RecordConsentResponse:
        if from_timestamp(request.consent_time) > self._now() + AHEAD_MOST:
            raise Invalid("CONSENT_IN_FUTURE", "consent_time is ahead of this service's clock")
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        purposes = await self._store.purposes(request.brand_id, member.member_id)
        if request.purpose not in purposes and len(purposes) >= PURPOSES_MAX:
            raise Refused("TOO_MANY_PURPOSES", f"a member has said something of {PURPOSES_MAX} purposes")
        stands = await self._store.record(self._consents.document(request, member.member_id))
        return pb.RecordConsentResponse(record=self._consents.message(stands))

    async def GetConsents(self, request: pb.GetConsentsRequest, context: Any) -> pb.GetConsentsResponse:
        member = await served(self._members, request.brand_id, request.member_id, request.guide_id)
        found = await self._store.latest(request.brand_id, member.member_id)
        return pb.GetConsentsResponse(consents=[self._consents.message(record) for record in found])

    async def ListConsentRecords(
        self, request: pb.ListConsentRecordsRequest, context: Any
    ) -> pb.ListConsentRecordsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        before = (time_of(place[0]), place[1]) if place else None
        member = await self._members.find(request.brand_id, request.member_id)
        found = await self._store.page(request.brand_id, member.member_id, before, size + 1)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._cursors.token(request, milliseconds(last["consent_time"]), last["_id"])
        return pb.ListConsentRecordsResponse(
            records=[self._consents.message(record) for record in found[:size]], next_page_token=token
        )
