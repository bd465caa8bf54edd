"""How an order came to one of its entries: what was known then, computed afresh, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chassis.mongo.connection import Document
from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2 as pb
from daogou.commission.v1.order_event_pb2 import OrderEventKind
from svc_commission.ledger.messages import attribution_message, compared_message, line_messages
from svc_commission.order import documents
from svc_commission.rules import order
from svc_commission.rules.comparison import compared
from svc_commission.rules.plan import Plan

Explanation = pb.ExplainEntryResponse.OrderExplanation


def order_explanation(
    entry: Document, stored: Document | None, entries: Sequence[Document], plans: Sequence[Plan]
) -> Explanation:
    """Explains an entry by its order as it is stored, which None is where there is no such order.

    `entries`: all of the order. What had been posted before is taken from them, not computed, so that an
    error in an earlier one shows.
    """
    rev = entry["rev"]
    known = [event for event in stored["events"] if event.get("rev", 0) <= rev] if stored else []
    around = documents.circumstances_of(entry.get("around", {}))
    reply = Explanation(
        events=[_event_message(event, entry) for event in sorted(known, key=_by_time)],
        first_purchase=around.first_purchase,
        too_old="around" not in entry,
    )
    if around.confirmed_through is not None:
        reply.confirmed_through_time.CopyFrom(to_timestamp(around.confirmed_through))
    frozen = documents.attribution_at(stored, rev) if stored else None
    if stored is None or frozen is None or reply.too_old:
        return reply
    events = [documents.event_of(event) for event in known]
    plan = next((plan for plan in plans if plan.plan_id == frozen.plan_id), None)
    books = order.fold(events, stored["channel"], frozen, plan, around)
    before = documents.posted(one for one in entries if one["rev"] < rev)
    amounts = compared(books.targets, before, documents.posted(one for one in entries if one["rev"] == rev))
    reply.attribution.CopyFrom(attribution_message(frozen))
    reply.lines.extend(line_messages(books.lines, events))
    reply.amounts.extend(compared_message(one) for one in amounts)
    reply.agrees = documents.balances(entry) and all(one.agrees for one in amounts)
    return reply


def _by_time(event: Document) -> tuple[datetime, str]:
    return event["happened_time"], event["event_id"]


def _event_message(event: Document, entry: Document) -> pb.ExplainEntryResponse.KnownEvent:
    return pb.ExplainEntryResponse.KnownEvent(
        event_id=event["event_id"],
        kind=OrderEventKind.Value(f"ORDER_EVENT_KIND_{event['kind']}"),
        happened_time=to_timestamp(event["happened_time"]),
        recorded_time=to_timestamp(event["recorded_time"]),
        is_cause=event["event_id"] in entry["cause_event_ids"],
    )
