"""Reattributions over gRPC: one person proposes, another approves, and the books follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import Refused
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.sealing import Sealer
from chassis.times import from_timestamp
from daogou.commission.v1 import reattribution_pb2 as pb
from svc_commission.order.documents import channel_name
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.reattribution.messages import reattribution_message, summed
from svc_commission.reattribution.proposals import OrderName, Proposals
from svc_commission.reattribution.store_reattribution import DUE, ReattributionStore, document_id
from svc_commission.rules import reattribution as rules
from svc_commission.rules.reattribution import State

ORDERS_MAX: Final = 1000
"""Most orders of one reattribution."""

Decide = Callable[[Document], Document]
"""What changes of a proposal, if it may."""


class ReattributionServicer:
    """Implements daogou.commission.v1.ReattributionService."""

    def __init__(
        self,
        reattributions: ReattributionStore,
        orders: OrderStore,
        proposals: Proposals,
        sealer: Sealer,
        audit: Audit,
        now: Now,
    ) -> None:
        self._reattributions = reattributions
        self._orders = orders
        self._proposals = proposals
        self._digest = sealer.digest
        self._cursors = Cursors(sealer.digest)
        self._audit = audit
        self._now = now

    async def ProposeReattribution(
        self, request: pb.ProposeReattributionRequest, context: Any
    ) -> pb.ProposeReattributionResponse:
        now, brand_id = self._now(), request.brand_id
        # Its id follows from the request, so that a repeat meets what it wrote.
        reattribution_id = derived_id("reattribution", brand_id, request.request_id)
        body = idempotency.body_hash(request, self._digest)
        standing = await self._reattributions.standing(brand_id, reattribution_id)
        if standing is None:
            proposed = await self._proposed(request, reattribution_id, now)
            proposed["created"] = idempotency.receipt(
                request.request_id, body, reattribution_message(proposed), now
            )
            await self._record("ProposeReattribution", proposed, now)
            standing = await self._reattributions.insert(proposed)
        first = idempotency.first_reply([standing["created"]], request.request_id, body, pb.Reattribution)
        return pb.ProposeReattributionResponse(reattribution=first)

    async def ApproveReattribution(
        self, request: pb.ApproveReattributionRequest, context: Any
    ) -> pb.ApproveReattributionResponse:
        now = self._now()

        def approved(standing: Document) -> Document:
            rules.check_second_person(standing["proposer"], caller().subject)
            return {"state": State.APPROVED, DUE: now}

        return pb.ApproveReattributionResponse(reattribution=await self._decided(request, approved, now))

    async def RejectReattribution(
        self, request: pb.RejectReattributionRequest, context: Any
    ) -> pb.RejectReattributionResponse:
        reply = await self._decided(request, lambda _: {"state": State.REJECTED}, self._now())
        return pb.RejectReattributionResponse(reattribution=reply)

    async def GetReattribution(
        self, request: pb.GetReattributionRequest, context: Any
    ) -> pb.GetReattributionResponse:
        found = await self._reattributions.find(request.brand_id, request.reattribution_id)
        return pb.GetReattributionResponse(reattribution=reattribution_message(found))

    async def ListReattributions(
        self, request: pb.ListReattributionsRequest, context: Any
    ) -> pb.ListReattributionsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        before = (time_of(place[0]), place[1]) if place else None
        found = await self._reattributions.page(request.brand_id, before, size + 1)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._cursors.token(request, milliseconds(last["propose_time"]), last["reattribution_id"])
        return pb.ListReattributionsResponse(
            reattributions=[reattribution_message(one) for one in found[:size]], next_page_token=token
        )

    async def _proposed(
        self, request: pb.ProposeReattributionRequest, reattribution_id: str, now: datetime
    ) -> Document:
        """A new proposal. Raises: Refused TOO_MANY_ORDERS; Unavailable."""
        brand_id = request.brand_id
        names, stored = await self._asked(request)
        items = await self._proposals.looked_at(brand_id, names, stored, now)
        currencies = {one["currency_code"] for one in stored.values()}
        return {
            "_id": document_id(brand_id, reattribution_id),
            "brand_id": brand_id,
            "reattribution_id": reattribution_id,
            "rev": 1,
            "state": State.PROPOSED,
            "reason": request.reason,
            "proposer": caller().subject,
            "propose_time": now,
            "orders": items,
            "changed_count": sum(item.get("after") is not None for item in items),
            "differences": summed(items),
            "currency_code": min(currencies, default=""),
            "receipts": [],
        }

    async def _asked(
        self, request: pb.ProposeReattributionRequest
    ) -> tuple[list[OrderName], Mapping[str, Document]]:
        """The orders that are asked about, and those of them that exist. Raises: Refused TOO_MANY_ORDERS."""
        brand_id = request.brand_id
        if request.HasField("named"):
            named = [(channel_name(one.channel), one.order_id) for one in request.named.orders]
            names = [OrderName(order_key(brand_id, *name), *name) for name in named]
            return names, await self._orders.find_many([name.key for name in names])
        whose = request.of_member
        begin, end = from_timestamp(whose.placed_from_time), from_timestamp(whose.placed_to_time)
        found = await self._orders.of_member(brand_id, whose.member_id, begin, end, ORDERS_MAX + 1)
        if len(found) > ORDERS_MAX:
            raise Refused("TOO_MANY_ORDERS", f"the member has over {ORDERS_MAX} in the range: propose fewer")
        stored = {one["_id"]: one for one in found}
        return [OrderName(key, one["channel"], one["order_id"]) for key, one in stored.items()], stored

    async def _decided(
        self,
        request: pb.ApproveReattributionRequest | pb.RejectReattributionRequest,
        decide: Decide,
        now: datetime,
    ) -> pb.Reattribution:
        """Decides about a proposal, once for each request. Raises: as the contract says."""
        standing = await self._reattributions.find(request.brand_id, request.reattribution_id)
        action = type(request).__name__.removesuffix("Request")
        key, body = f"{action}|{request.request_id}", idempotency.body_hash(request, self._digest)
        first = idempotency.first_reply(standing["receipts"], key, body, pb.Reattribution)
        if first is not None:
            return first
        rules.check_undecided(State(standing["state"]))
        changes = {**decide(standing), "decider": caller().subject, "decide_time": now}
        reply = reattribution_message({**standing, **changes, "orders": []})
        receipt = idempotency.receipt(key, body, reply, now)
        changes["receipts"] = idempotency.with_receipt(standing["receipts"], receipt)
        # Recorded first, so that nothing is decided unrecorded.
        await self._record(action, standing, now)
        await self._reattributions.change(standing, changes)
        return reply

    async def _record(self, action: str, about: Document, now: datetime) -> None:
        subject = {"brand_id": about["brand_id"], "reattribution_id": about["reattribution_id"]}
        await self._audit.record(caller(), action, subject, about["reason"], now)
