"""Payouts over gRPC: recorded once, gone on with until all are posted."""

from __future__ import annotations

from typing import Any

from chassis import crash
from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import AlreadyExists
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.sealing import Sealer
from daogou.commission.v1 import payout_pb2 as pb
from svc_commission.ledger.messages import month_of_message
from svc_commission.month.leases import Leases
from svc_commission.month.store_month import CLOSED, MonthStore
from svc_commission.order.documents import month_text
from svc_commission.payout.messages import payout_message
from svc_commission.payout.payouts import HELD, Payouts
from svc_commission.payout.store_payout import RUNNING, PayoutStore
from svc_commission.rules.month import next_month
from svc_commission.rules.payout import check_payable

_RECORDED = crash.point("payout_recorded")


class PayoutServicer:
    """Implements daogou.commission.v1.PayoutService."""

    def __init__(
        self,
        store: PayoutStore,
        payouts: Payouts,
        months: MonthStore,
        leases: Leases,
        sealer: Sealer,
        audit: Audit,
        now: Now,
    ) -> None:
        self._store = store
        self._payouts = payouts
        self._months = months
        self._leases = leases
        self._digest = sealer.digest
        self._cursors = Cursors(sealer.digest)
        self._audit = audit
        self._now = now

    async def MarkPaid(self, request: pb.MarkPaidRequest, context: Any) -> pb.MarkPaidResponse:
        recorded = _recorded(request)
        recorded["body_hash"] = self._body_hash(request, recorded["guide_ids"])
        standing = await self._store.standing(request.brand_id, request.batch_id)
        if standing is None:
            await self._check_payable(request)
            now, recorder = self._now(), caller()
            subject = {name: recorded[name] for name in ("brand_id", "batch_id", "month")}
            await self._audit.record(recorder, "MarkPaid", subject, "", now)
            fields = {"record_time": now, "due_time": now + HELD, "recorder": recorder.subject}
            standing = await self._store.insert({**recorded, **fields})
            _RECORDED.reached()
        if bytes(standing["body_hash"]) != recorded["body_hash"]:
            raise AlreadyExists("BATCH_ID_REUSED", "this batch_id was used for another month or other guides")
        return pb.MarkPaidResponse(payout=payout_message(await self._payouts.go_on(standing)))

    async def GetPayout(self, request: pb.GetPayoutRequest, context: Any) -> pb.GetPayoutResponse:
        found = await self._store.find(request.brand_id, request.batch_id)
        return pb.GetPayoutResponse(payout=payout_message(found))

    async def ListPayouts(self, request: pb.ListPayoutsRequest, context: Any) -> pb.ListPayoutsResponse:
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        after = (time_of(place[0]), place[1]) if place else None
        # One more than asked for tells whether there is another page.
        found = await self._store.page(request.brand_id, after, size + 1)
        page, token = found[:size], ""
        if len(found) > size:
            token = self._cursors.token(request, milliseconds(page[-1]["record_time"]), page[-1]["_id"])
        return pb.ListPayoutsResponse(payouts=[payout_message(one) for one in page], next_page_token=token)

    async def _check_payable(self, request: pb.MarkPaidRequest) -> None:
        """Raises: Refused MONTH_NOT_CLOSED, MONTH_CARRIED_ON."""
        month = month_of_message(request.month, "month")
        close = await self._months.close_of(request.brand_id, month)
        lease = await self._leases.held(request.brand_id)
        check_payable(
            closed=close is not None and close["state"] == CLOSED,
            carried_on=lease.first_open != next_month(month),
        )

    def _body_hash(self, request: pb.MarkPaidRequest, guide_ids: list[str]) -> bytes:
        """Of what a batch is, in whatever order its guides were named."""
        body = pb.MarkPaidRequest(brand_id=request.brand_id, month=request.month, guide_ids=guide_ids)
        return idempotency.body_hash(body, self._digest)


def _recorded(request: pb.MarkPaidRequest) -> Document:
    """The payout that a request records, before anybody is paid. Raises: Invalid INVALID_FIELDS."""
    return {
        "_id": f"{request.brand_id}|{request.batch_id}",
        "brand_id": request.brand_id,
        "batch_id": request.batch_id,
        "month": month_text(month_of_message(request.month, "month")),
        "guide_ids": sorted(set(request.guide_ids)),
        "state": RUNNING,
        "through": "",
        "paid_count": 0,
        "paid_minor": 0,
        "currency_code": "",
        "refused_count": 0,
        "refused": [],
    }
