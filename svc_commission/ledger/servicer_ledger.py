"""The ledger over gRPC: balances, the trial balance, and the whole way from events to entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chassis.errors import NotFound
from chassis.mongo.connection import Document
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors, milliseconds, time_of
from chassis.times import from_timestamp, to_timestamp
from daogou.commission.v1 import ledger_pb2 as pb
from daogou.commission.v1.order_event_pb2 import OrderEventKind
from svc_commission.ledger.credit_messages import guide_credits, store_credits
from svc_commission.ledger.explanation import order_explanation
from svc_commission.ledger.messages import (
    attribution_message,
    entry_message,
    former_message,
    line_messages,
    month_of_message,
)
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.order import documents, sales
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import attribution, order
from svc_commission.rules.order import Account


class LedgerServicer:
    """Implements daogou.commission.v1.LedgerService."""

    def __init__(self, orders: OrderStore, journal: JournalStore, plans: PlanStore, cursors: Cursors) -> None:
        self._orders = orders
        self._journal = journal
        self._plans = plans
        self._cursors = cursors

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Any) -> pb.GetBalanceResponse:
        sums = await self._journal.account_sums(request.brand_id, _as_of(request), _asked(request))
        by_account = {one["account"]: -one["amount_minor"] for one in sums}
        return pb.GetBalanceResponse(
            payable_minor=by_account.get(Account.PAYABLE, 0),
            held_minor=by_account.get(Account.HELD, 0),
            currency_code=sums[0]["currency_code"] if sums else "",
        )

    async def GetTrialBalance(
        self, request: pb.GetTrialBalanceRequest, context: Any
    ) -> pb.GetTrialBalanceResponse:
        sums = await self._journal.account_sums(request.brand_id, _as_of(request))
        account_sum = pb.GetTrialBalanceResponse.AccountSum
        return pb.GetTrialBalanceResponse(
            accounts=[
                account_sum(
                    account=pb.Account.Value(f"ACCOUNT_{one['account']}"), amount_minor=one["amount_minor"]
                )
                for one in sums
            ],
            total_minor=sum(one["amount_minor"] for one in sums),
            entry_count=await self._journal.entry_count(request.brand_id, _as_of(request)),
            currency_code=sums[0]["currency_code"] if sums else "",
        )

    async def ExplainOrder(self, request: pb.ExplainOrderRequest, context: Any) -> pb.ExplainOrderResponse:
        channel = documents.channel_name(request.channel)
        key = order_key(request.brand_id, channel, request.order_id)
        stored = (await self._orders.find_many([key])).get(key)
        if stored is None:
            raise NotFound("ORDER_UNKNOWN", "no event of this order has been stored")
        # What a crash left between order and journal is finished before the books are read.
        await self._orders.relay([stored])
        # Those who write the order meanwhile post what the events that were read do not know of.
        entries = [
            entry
            for entry in await self._orders.entries_of(request.brand_id, key)
            if entry["rev"] <= stored["rev"]
        ]
        reply = pb.ExplainOrderResponse(
            events=[_event_message(event) for event in sorted(stored["events"], key=_by_time)],
            entries=[entry_message(entry) for entry in entries],
            currency_code=stored["currency_code"],
            books_agree=not entries,
            credits_agree=True,
        )
        if stored["attribution"] is not None:
            await self._add_books(reply, stored, entries)
        return reply

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        payee, month = _asked(request), None
        if request.HasField("posting_month"):
            month = month_of_message(request.posting_month, "posting_month")
        size, place = request.page_size or PAGE_SIZE_DEFAULT, self._cursors.place(request)
        after = (time_of(place[0]), place[1]) if place else None
        # One more than asked for tells whether there is another page.
        entries = await self._journal.page(request.brand_id, payee, month, after, size + 1)
        page, token = entries[:size], ""
        if len(entries) > size:
            token = self._cursors.token(request, milliseconds(page[-1]["recorded_time"]), page[-1]["_id"])
        return pb.ListEntriesResponse(
            entries=[entry_message(entry, payee) for entry in page],
            next_page_token=token,
            currency_code=page[0]["currency_code"] if page else "",
        )

    async def ExplainEntry(self, request: pb.ExplainEntryRequest, context: Any) -> pb.ExplainEntryResponse:
        brand_id = request.brand_id
        entry = await self._journal.entry(brand_id, request.entry_id)
        reply = pb.ExplainEntryResponse(entry=entry_message(entry), currency_code=entry["currency_code"])
        if documents.is_of_order(entry):
            key = entry["order_key"]
            stored = (await self._orders.find_many([key])).get(key)
            entries = await self._orders.entries_of(brand_id, key)
            plans = await self._plans.plans(brand_id)
            reply.order.CopyFrom(order_explanation(entry, stored, entries, plans))
        return reply

    async def _add_books(
        self, reply: pb.ExplainOrderResponse, stored: Document, entries: Sequence[Document]
    ) -> None:
        """Computes the order afresh, adds how, and compares with what was posted."""
        frozen = documents.attribution_of(stored["attribution"])
        plans = await self._plans.plans(stored["brand_id"])
        plan = next((plan for plan in plans if plan.plan_id == frozen.plan_id), None)
        events = [documents.event_of(event) for event in stored["events"]]
        around = documents.circumstances_of(stored)
        books = order.fold(events, stored["channel"], frozen, plan, around)
        reply.attribution.CopyFrom(attribution_message(frozen))
        reply.former_attributions.extend(former_message(one) for one in stored.get("former_attributions", ()))
        reply.lines.extend(line_messages(books.lines, events))
        reply.sales_credits.extend(store_credits(books.sales_credits))
        reply.guide_sales_credits.extend(guide_credits(books.sales_credits))
        reply.refund_excess_minor = books.refund_excess_minor
        reply.first_purchase = around.first_purchase
        if books.confirm_time is not None:
            reply.confirm_time.CopyFrom(to_timestamp(books.confirm_time))
        reply.books_agree = documents.posted(entries) == books.targets
        told = await self._orders.credits_of(stored["_id"], stored["rev"])
        reply.credits_agree = sales.counted(told) == books.sales_credits.each()


def _asked(request: pb.GetBalanceRequest | pb.ListEntriesRequest) -> str:
    """The payee that was asked about."""
    if request.HasField("guide_id"):
        return attribution.guide_payee(request.guide_id)
    return attribution.pool_payee(request.pool_store_id)


def _as_of(request: pb.GetBalanceRequest | pb.GetTrialBalanceRequest) -> datetime | None:
    return from_timestamp(request.as_of_time) if request.HasField("as_of_time") else None


def _by_time(event: Document) -> tuple[datetime, str]:
    return event["happened_time"], event["event_id"]


def _event_message(event: Document) -> pb.ExplainOrderResponse.StoredEvent:
    return pb.ExplainOrderResponse.StoredEvent(
        event_id=event["event_id"],
        kind=OrderEventKind.Value(f"ORDER_EVENT_KIND_{event['kind']}"),
        happened_time=to_timestamp(event["happened_time"]),
        recorded_time=to_timestamp(event["recorded_time"]),
    )
