"""Handovers over gRPC: begun here, carried out in `handovers.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chassis.clock import Now
from chassis.errors import Invalid, NotFound, Refused, Violation, invalid_fields
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import handover_pb2 as pb
from svc_members.directory.entities import Kind, check_employed, guide_kind
from svc_members.directory.paging import opened_page_token, page_token
from svc_members.directory.store_directory import DirectoryStore
from svc_members.handover.handovers import Handovers
from svc_members.handover.store_handover import LEASE, NOT_OFFERED, HandoverStore
from svc_members.member.identities import IdentitySealer
from svc_members.member.messages import offer_message
from svc_members.rules.handover import OfferState


class HandoverServicer:
    """Implements daogou.members.v1.HandoverService."""

    def __init__(
        self,
        directory: DirectoryStore,
        store: HandoverStore,
        handovers: Handovers,
        sealer: IdentitySealer,
        now: Now,
    ) -> None:
        self._directory = directory
        self._store = store
        self._handovers = handovers
        self._guide: Kind[Any] = guide_kind(sealer)
        self._digest = sealer.digest
        self._now = now

    async def ResignGuide(self, request: pb.ResignGuideRequest, context: Any) -> pb.ResignGuideResponse:
        now = self._now()
        resign_time = from_timestamp(request.resign_time) if request.HasField("resign_time") else now
        if resign_time > now:
            raise Invalid("RESIGN_IN_FUTURE", "resign_time is ahead of this service's clock")
        begun = self._document(request, "RESIGNATION", now, resign_time)
        # Held back until she is marked as resigned, which the background does if this call is cut off.
        begun["lease_time"] = now + LEASE
        stands, new = await self._begun(request, begun)
        if new:
            await self._handovers.resign(stands)
            await self._store.release(stands, {"lease_time": now})
        return pb.ResignGuideResponse(handover=await self._message(stands))

    async def HandOverMembers(
        self, request: pb.HandOverMembersRequest, context: Any
    ) -> pb.HandOverMembersResponse:
        now = self._now()
        stands, _ = await self._begun(request, self._document(request, "IN_SERVICE", now, now))
        return pb.HandOverMembersResponse(handover=await self._message(stands))

    async def AnswerOffer(self, request: pb.AnswerOfferRequest, context: Any) -> pb.AnswerOfferResponse:
        offer = await self._handovers.answer(
            request.brand_id, request.handover_id, request.member_id, accept=request.accept
        )
        return pb.AnswerOfferResponse(offer=offer_message(offer))

    async def GetHandover(self, request: pb.GetHandoverRequest, context: Any) -> pb.GetHandoverResponse:
        found = await self._store.find(request.brand_id, request.handover_id)
        return pb.GetHandoverResponse(handover=await self._message(found))

    async def ListOffers(self, request: pb.ListOffersRequest, context: Any) -> pb.ListOffersResponse:
        size = request.page_size or PAGE_SIZE_DEFAULT
        found = await self._store.page(
            request.brand_id, request.handover_id, opened_page_token(request.page_token), size + 1
        )
        token = page_token(found[size - 1]["member_id"]) if len(found) > size else ""
        return pb.ListOffersResponse(
            offers=[offer_message(offer) for offer in found[:size]], next_page_token=token
        )

    async def _begun(
        self, request: pb.ResignGuideRequest | pb.HandOverMembersRequest, begun: Document
    ) -> tuple[Document, bool]:
        """The handover that the request began, and whether it did so just now.

        Raises: NotFound GUIDE_UNKNOWN; Refused GUIDE_RESIGNED, TAKER_NOT_FIT; AlreadyExists
        REQUEST_ID_REUSED.
        """
        new = False
        try:
            stands = await self._store.find(request.brand_id, begun["handover_id"])
        except NotFound:
            check_employed(await self._directory.find(self._guide, request.brand_id, request.guide_id))
            await self._check_takers(request.brand_id, request.guide_id, request.taker_guide_ids)
            stands, new = await self._store.insert(begun), True
        body = begun["created"]["body_hash"]
        idempotency.first_reply([stands["created"]], "created", body, pb.Handover)
        return stands, new

    async def _check_takers(self, brand_id: str, giver_id: str, takers: Sequence[str]) -> None:
        """Raises: NotFound GUIDE_UNKNOWN; Refused TAKER_NOT_FIT."""
        if len(set(takers)) < len(takers):
            raise invalid_fields([Violation("taker_guide_ids", "names a guide twice")])
        found = await self._directory.find_many(self._guide, brand_id, takers)
        if len(found) < len(takers):
            raise NotFound("GUIDE_UNKNOWN", "a taker does not exist in this brand")
        if giver_id in found or any(taker["state"] == "RESIGNED" for taker in found.values()):
            raise Refused("TAKER_NOT_FIT", "a taker has resigned, or is the guide herself")

    def _document(
        self,
        request: pb.ResignGuideRequest | pb.HandOverMembersRequest,
        kind: str,
        now: datetime,
        resign_time: datetime,
    ) -> Document:
        """A handover about to begin. Its id follows from the request."""
        handover_id = derived_id("handover", request.brand_id, kind, request.request_id)
        body = idempotency.body_hash(request, self._digest)
        return {
            "_id": f"{request.brand_id}|{handover_id}",
            "brand_id": request.brand_id,
            "handover_id": handover_id,
            "guide_id": request.guide_id,
            "kind": kind,
            "state": "OFFERING",
            "taker_guide_ids": list(request.taker_guide_ids),
            "spread": "LOAD" if request.spread == pb.SPREAD_LOAD else "TURN",
            "resign_time": resign_time,
            "after_id": "",
            "lease_time": now,
            "create_time": now,
            "created": idempotency.receipt("created", body, pb.Handover(), now),
        }

    async def _message(self, handover: Document) -> pb.Handover:
        counts = await self._store.counts(handover["brand_id"], handover["handover_id"])
        state = handover["state"]
        if state == "OFFERED" and not counts[OfferState.OFFERED]:
            state = "DONE"
        return pb.Handover(
            handover_id=handover["handover_id"],
            brand_id=handover["brand_id"],
            guide_id=handover["guide_id"],
            kind=pb.HandoverKind.Value(f"HANDOVER_KIND_{handover['kind']}"),
            state=pb.HandoverState.Value(f"HANDOVER_STATE_{state}"),
            member_count=counts.total(),
            offer_count=counts.total() - counts[NOT_OFFERED],
            accepted_count=counts[OfferState.ACCEPTED],
            refused_count=counts[OfferState.REFUSED],
            lost_count=counts[OfferState.LOST],
            create_time=to_timestamp(handover["create_time"]),
        )
