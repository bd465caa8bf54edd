"""The ledger over gRPC: balances, the trial balance, and the whole way from events to entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from chassis.errors import NotFound
from chassis.mongo.connection import Document
from chassis.times import from_timestamp, to_timestamp
from daogou.commission.v1 import ledger_pb2 as pb
from daogou.commission.v1.order_event_pb2 import OrderEventKind
from daogou.commission.v1.plan_pb2 import PayeeRole
from daogou.common.v1.date_pb2 import Date
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.order import documents
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import attribution, order
from svc_commission.rules.line import LineBooks
from svc_commission.rules.order import Account, Books

_PAYEE_FIELDS = {"guide": "guide_id", "pool": "pool_store_id", "store": "bearing_store_id"}


class LedgerServicer:
    """Implements daogou.commission.v1.LedgerService."""

    def __init__(self, orders: OrderStore, journal: JournalStore, plans: PlanStore) -> None:
        self._orders = orders
        self._journal = journal
        self._plans = plans

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Any) -> pb.GetBalanceResponse:
        payee = (
            attribution.guide_payee(request.guide_id)
            if request.HasField("guide_id")
            else attribution.pool_payee(request.pool_store_id)
        )
        sums = await self._journal.account_sums(request.brand_id, _as_of(request), payee)
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
        entries = await self._orders.entries_of(request.brand_id, key)
        reply = pb.ExplainOrderResponse(
            events=[_event_message(event) for event in sorted(stored["events"], key=_by_time)],
            entries=[_entry_message(entry) for entry in entries],
            currency_code=stored["currency_code"],
            books_agree=not entries,
        )
        if stored["attribution"] is not None:
            await self._add_books(reply, stored, entries)
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
        reply.attribution.CopyFrom(_attribution_message(frozen))
        reply.lines.extend(_line_message(line) for line in books.lines)
        reply.sales_credits.extend(
            pb.SalesCredit(store_id=one.store_id, date=_date(one.date), amount_minor=one.amount_minor)
            for one in books.sales_credits
        )
        reply.refund_excess_minor = books.refund_excess_minor
        reply.first_purchase = around.first_purchase
        if books.confirm_time is not None:
            reply.confirm_time.CopyFrom(to_timestamp(books.confirm_time))
        reply.books_agree = _posted(entries) == _wanted(books)


def _wanted(books: Books) -> Counter[tuple[str, str, str, str]]:
    wanted: Counter[tuple[str, str, str, str]] = Counter()
    for target, amount in books.targets.items():
        month = documents.month_text(target.month)
        wanted[target.line_id, target.account.value, target.payee, month] = amount
    return wanted


def _posted(entries: Sequence[Document]) -> Counter[tuple[str, str, str, str]]:
    """What the entries sum to; amounts that sum to nothing are left out."""
    posted: Counter[tuple[str, str, str, str]] = Counter()
    for entry in entries:
        for one in entry["postings"]:
            key = one["line_id"], one["account"], one["payee"], entry["posting_month"]
            posted[key] += one["amount_minor"]
    return Counter({key: amount for key, amount in posted.items() if amount})


def _as_of(request: pb.GetBalanceRequest | pb.GetTrialBalanceRequest) -> datetime | None:
    return from_timestamp(request.as_of_time) if request.HasField("as_of_time") else None


def _by_time(event: Document) -> tuple[datetime, str]:
    return event["happened_time"], event["event_id"]


def _date(day: date) -> Date:
    return Date(year=day.year, month=day.month, day=day.day)


def _payee(payee: str) -> pb.Payee | None:
    kind, _, identifier = payee.partition(":")
    if not kind:
        return None
    return pb.Payee(**{_PAYEE_FIELDS[kind]: identifier})


def _event_message(event: Document) -> pb.ExplainOrderResponse.StoredEvent:
    return pb.ExplainOrderResponse.StoredEvent(
        event_id=event["event_id"],
        kind=OrderEventKind.Value(f"ORDER_EVENT_KIND_{event['kind']}"),
        happened_time=to_timestamp(event["happened_time"]),
        recorded_time=to_timestamp(event["recorded_time"]),
    )


def _entry_message(entry: Document) -> pb.Entry:
    month = documents.month_of(entry["posting_month"])
    return pb.Entry(
        entry_id=entry["_id"],
        posting_month=Date(year=month.year, month=month.month),
        recorded_time=to_timestamp(entry["recorded_time"]),
        cause_event_ids=entry["cause_event_ids"],
        postings=[
            pb.Posting(
                account=pb.Account.Value(f"ACCOUNT_{one['account']}"),
                payee=_payee(one["payee"]),
                line_id=one["line_id"],
                amount_minor=one["amount_minor"],
            )
            for one in entry["postings"]
        ],
    )


def _attribution_message(frozen: attribution.Attribution) -> pb.Attribution:
    return pb.Attribution(
        member_id=frozen.member_id,
        binding_id=frozen.binding_id,
        owner=_payee(frozen.owner),
        owner_basis=pb.OwnerBasis.Value(f"OWNER_BASIS_{frozen.owner_basis}"),
        selling_store_id=frozen.selling_store_id,
        owner_store_id=frozen.owner_store_id,
        flagship_store_id=frozen.flagship_store_id,
        as_of_time=to_timestamp(frozen.as_of_time),
        known_at_time=to_timestamp(frozen.known_at_time),
        plan_id=frozen.plan_id,
        serving=_payee(frozen.serving),
        referrer_1=_payee(frozen.referrer_1),
        referrer_2=_payee(frozen.referrer_2),
        store_manager=_payee(frozen.store_manager),
        member_tier=frozen.member_tier,
        campaign_id=frozen.campaign_id,
    )


def _line_message(line: LineBooks) -> pb.ExplainedLine:
    return pb.ExplainedLine(
        line_id=line.line_id,
        rule_id=line.rule.rule_id if line.rule else "",
        rate_bp=line.rule.rate_bp if line.rule else 0,
        paid_minor=line.paid_minor,
        refunded_minor=line.refunded_minor,
        earned_minor=line.earned_minor,
        distributable_minor=line.distributable_minor,
        reversed_minor=line.reversed_minor,
        per_unit_minor=line.rule.per_unit_minor if line.rule else 0,
        returned_quantity=line.returned,
        shared=[
            pb.SharedLine(
                payee=_payee(part.payee),
                roles=[PayeeRole.Value(f"PAYEE_ROLE_{role}") for role in part.roles],
                share_bp=part.share_bp,
                earned_minor=part.earned_minor,
                reversed_minor=part.reversed_minor,
            )
            for part in line.parts
        ],
    )
