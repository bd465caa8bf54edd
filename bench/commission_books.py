"""The gates of `bench.commission`: what makes a speed worth nothing if it does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.measure import gate
from chassis.mongo.connection import Database, Document, aggregated
from daogou.commission.v1.order_event_pb2 import EventOutcome, IngestOrderEventsResponse
from svc_commission.order import documents
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import order
from svc_commission.rules.plan import Plan

Sums = Counter[tuple[str, str, str]]
"""By account, payee and posting month."""


def check_outcomes(replies: Sequence[bytes], events: int, wanted: EventOutcome.ValueType) -> None:
    """Every event must have come to the same. Raises: GateFailed."""
    outcomes: Counter[str] = Counter()
    for reply in replies:
        for result in IngestOrderEventsResponse.FromString(reply).results:
            outcomes[f"{EventOutcome.Name(result.outcome)} {result.error.reason}".strip()] += 1
    name = EventOutcome.Name(wanted)
    gate(outcomes == {name: events}, f"all {events} events must be {name}, not {dict(outcomes)}")


async def check_books(database: Database, brand_id: str, orders: int) -> Sums:
    """The journal sums to zero, and to what all orders come to when made anew; that. Raises: GateFailed."""
    posted = await _posted(database, brand_id)
    gate(sum(posted.values()) == 0, f"the journal must sum to zero, not {sum(posted.values())}")
    gate(any(posted.values()), "something must have been posted")
    replayed: Sums = Counter()
    found = 0
    plans = {plan.plan_id: plan for plan in await PlanStore(database).plans(brand_id)}
    async for stored in database["orders"].find({"brand_id": brand_id}):
        found += 1
        replayed.update(_made_anew(stored, plans))
    gate(found == orders, f"there must be {orders} orders, not {found}")
    differing = {key for key in posted.keys() | replayed.keys() if posted[key] != replayed[key]}
    gate(not differing, f"the journal must hold what the orders come to, {len(differing)} sums differ")
    return posted


async def _posted(database: Database, brand_id: str) -> Sums:
    """What the journal's entries sum to."""
    pipeline: list[Document] = [
        {"$match": {"brand_id": brand_id}},
        {"$unwind": "$postings"},
        {
            "$group": {
                "_id": {
                    "account": "$postings.account",
                    "payee": "$postings.payee",
                    "month": {"$ifNull": ["$postings.origin_month", "$posting_month"]},
                },
                "amount_minor": {"$sum": "$postings.amount_minor"},
            }
        },
    ]
    sums = await aggregated(database["journal"], pipeline)
    return Counter(
        {
            (one["_id"]["account"], one["_id"]["payee"], one["_id"]["month"]): one["amount_minor"]
            for one in sums
        }
    )


def _made_anew(stored: Document, plans: Mapping[str, Plan]) -> Sums:
    """What an order's events come to."""
    frozen = documents.attribution_of(stored["attribution"])
    events = [documents.event_of(event) for event in stored["events"]]
    around = documents.circumstances_of(stored)
    books = order.fold(events, stored["channel"], frozen, plans.get(frozen.plan_id), around)
    sums: Sums = Counter()
    for target, amount in books.targets.items():
        sums[target.account.value, target.payee, documents.month_text(target.month)] += amount
    return sums
