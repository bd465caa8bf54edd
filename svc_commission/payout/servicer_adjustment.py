"""Adjustments and opening balances over gRPC: what is owed beside the orders, and who said so."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import Invalid, NotFound, Violation, invalid_fields
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.rpc.items import to_item_error
from chassis.sealing import Sealer
from daogou.commission.v1 import adjustment_pb2 as pb
from svc_commission.ledger.messages import month_of_message
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.order.documents import channel_name, month_text
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.payout import adjustments
from svc_commission.payout.adjustments import Adjustments
from svc_commission.payout.messages import adjustment_message, payee_of
from svc_commission.payout.opening_balances import OpeningBalances
from svc_commission.payout.store_adjustment import AdjustmentStore
from svc_commission.rules.adjustment import AdjustmentState, check_decidable
from svc_commission.rules.attribution import store_bearer
from svc_commission.rules.month import month_of

_Decision = pb.ApproveAdjustmentRequest | pb.RejectAdjustmentRequest


class AdjustmentServicer:
    """Implements daogou.commission.v1.AdjustmentService."""

    def __init__(
        self,
        store: AdjustmentStore,
        posting: Adjustments,
        opening: OpeningBalances,
        orders: OrderStore,
        members: MembersClient,
        sealer: Sealer,
        audit: Audit,
        now: Now,
    ) -> None:
        self._store = store
        self._posting = posting
        self._opening = opening
        self._orders = orders
        self._members = members
        self._digest = sealer.digest
        self._cursors = Cursors(sealer.digest)
        self._audit = audit
        self._now = now

    async def ProposeAdjustment(
        self, request: pb.ProposeAdjustmentRequest, context: Any
    ) -> pb.ProposeAdjustmentResponse:
        # Its id follows from the request, so that a repeat is the same adjustment.
        adjustment_id = derived_id("adjustment", request.brand_id, request.request_id)
        body = idempotency.body_hash(request, self._digest)
        standing = await self._store.standing(request.brand_id, adjustment_id)
        if standing is None:
            proposed = await self._proposed(request, adjustment_id, body)
            subject = {"brand_id": request.brand_id, "adjustment_id": adjustment_id}
            await self._audit.record(caller(), "ProposeAdjustment", subject, "", proposed["propose_time"])
            standing = await self._store.insert(proposed)
        reply = idempotency.first_reply(standing["receipts"], request.request_id, body, pb.Adjustment)
        return pb.ProposeAdjustmentResponse(adjustment=reply)

    async def ApproveAdjustment(
        self, request: pb.ApproveAdjustmentRequest, context: Any
    ) -> pb.ApproveAdjustmentResponse:
        reply = await self._decide(request, AdjustmentState.APPROVED)
        return pb.ApproveAdjustmentResponse(adjustment=reply)

    async def RejectAdjustment(
        self, request: pb.RejectAdjustmentRequest, context: Any
    ) -> pb.RejectAdjustmentResponse:
        reply = await self._decide(request, AdjustmentState.REJECTED)
        return pb.RejectAdjustmentResponse(adjustment=reply)

    async def ListAdjustments(
        self, request: pb.ListAdjustmentsRequest, context: Any
    ) -> pb.ListAdjustmentsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        after = (time_of(place[0]), place[1]) if place else None
        state = pb.AdjustmentState.Name(request.state).removeprefix("ADJUSTMENT_STATE_")
        wanted = "" if state == "UNSPECIFIED" else state
        # One more than asked for tells whether there is another page.
        found = await self._store.page(request.brand_id, wanted, after, size + 1)
        page, token = found[:size], ""
        if len(found) > size:
            token = self._cursors.token(request, milliseconds(page[-1]["propose_time"]), page[-1]["_id"])
        return pb.ListAdjustmentsResponse(
            adjustments=[adjustment_message(one) for one in page], next_page_token=token
        )

    async def ImportOpeningBalances(
        self, request: pb.ImportOpeningBalancesRequest, context: Any
    ) -> pb.ImportOpeningBalancesResponse:
        now = self._now()
        facts = await self._members.brand(request.brand_id)
        month = month_of_message(request.month, "month")
        if month > month_of(now, ZoneInfo(facts.time_zone)):
            raise _in_future()
        subject = {"brand_id": request.brand_id, "month": month_text(month)}
        purpose = f"{len(request.balances)} balances"
        await self._audit.record(caller(), "ImportOpeningBalances", subject, purpose, now)
        verdicts = await self._opening.take_over(
            request.brand_id, facts.currency_code, month, request.balances
        )
        result = pb.ImportOpeningBalancesResponse.Result
        return pb.ImportOpeningBalancesResponse(
            results=[
                result(error=to_item_error(one.error))
                if one.error
                else result(outcome=one.outcome, entry_id=one.entry_id)
                for one in verdicts
            ]
        )

    async def _proposed(
        self, request: pb.ProposeAdjustmentRequest, adjustment_id: str, body: bytes
    ) -> Document:
        """The adjustment that a request proposes, with its receipt. Raises: DaogouError."""
        now = self._now()
        if found := _problems(request):
            raise invalid_fields(found)
        month = month_of_message(request.month, "month") if request.HasField("month") else None
        facts = await self._members.brand(request.brand_id)
        if month and month > month_of(now, ZoneInfo(facts.time_zone)):
            raise _in_future()
        await self._check_known(request)
        proposed = _document(request, adjustment_id, facts, now)
        proposed["month"] = month_text(month) if month else ""
        receipt = idempotency.receipt(request.request_id, body, adjustment_message(proposed), now)
        return {**proposed, "receipts": [receipt]}

    async def _check_known(self, request: pb.ProposeAdjustmentRequest) -> None:
        """Raises: NotFound GUIDE_UNKNOWN, STORE_UNKNOWN, ORDER_UNKNOWN."""
        guide_id, brand_id = request.guide_id, request.brand_id
        if guide_id and guide_id not in await self._members.find_guides(brand_id, [guide_id]):
            raise NotFound("GUIDE_UNKNOWN", "no guide of this brand has that id")
        named = [one for one in (request.pool_store_id, request.bearing_store_id) if one]
        stores, _ = await self._members.find_stores(brand_id, named, []) if named else ({}, {})
        if not all(store_id in stores for store_id in named):
            raise NotFound("STORE_UNKNOWN", "no store of this brand has that id")
        if request.order_id:
            key = order_key(brand_id, channel_name(request.channel), request.order_id)
            if not await self._orders.find_many([key]):
                raise NotFound("ORDER_UNKNOWN", "no event of this order has been stored")

    async def _decide(self, request: _Decision, state: AdjustmentState) -> pb.Adjustment:
        """Decides on a proposal, once. Raises: NotFound, Refused, Conflict."""
        now, decider = self._now(), caller()
        standing = await self._store.find(request.brand_id, request.adjustment_id)
        key, body = f"{state}|{request.request_id}", idempotency.body_hash(request, self._digest)
        first = idempotency.first_reply(standing["receipts"], key, body, pb.Adjustment)
        if first is not None:
            return first
        check_decidable(AdjustmentState(standing["state"]), standing["proposer"], decider.subject)
        decided: Document = {"state": state.value, "decider": decider.subject, "decide_time": now}
        if state is AdjustmentState.APPROVED:
            decided["post_time"] = now + adjustments.RETRY_AFTER
        reply = adjustment_message({**standing, **decided})
        receipt = idempotency.receipt(key, body, reply, now)
        decided["receipts"] = idempotency.with_receipt(standing["receipts"], receipt)
        subject = {"brand_id": request.brand_id, "adjustment_id": request.adjustment_id}
        action = "ApproveAdjustment" if state is AdjustmentState.APPROVED else "RejectAdjustment"
        await self._audit.record(decider, action, subject, "", now)
        await self._store.change(standing, decided)
        if state is AdjustmentState.APPROVED:
            await self._posting.post(request.brand_id, [{**standing, **decided}])
        return reply


def _problems(request: pb.ProposeAdjustmentRequest) -> list[Violation]:
    """What the limits cannot say of a proposal."""
    found = []
    if not request.amount_minor:
        found.append(Violation("amount_minor", "must not be 0"))
    if bool(request.channel) != bool(request.order_id):
        missing = "channel" if request.order_id else "order_id"
        found.append(Violation(missing, "is required where the other is given: both name the order"))
    return found


def _document(
    request: pb.ProposeAdjustmentRequest, adjustment_id: str, facts: BrandFacts, now: datetime
) -> Document:
    bearer = request.bearing_store_id
    return {
        "_id": f"{request.brand_id}|{adjustment_id}",
        "brand_id": request.brand_id,
        "adjustment_id": adjustment_id,
        "rev": 1,
        "state": AdjustmentState.PROPOSED.value,
        "payee": payee_of(request),
        "amount_minor": request.amount_minor,
        "currency_code": facts.currency_code,
        "time_zone": facts.time_zone,
        "reason": request.reason,
        "bearer": store_bearer(bearer) if bearer else "",
        "channel": channel_name(request.channel) if request.order_id else "",
        "order_id": request.order_id,
        "proposer": caller().subject,
        "propose_time": now,
        "decider": "",
        "decide_time": None,
    }


def _in_future() -> Invalid:
    return Invalid("MONTH_IN_FUTURE", "the month has not begun in the brand's calendar")
