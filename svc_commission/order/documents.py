"""Orders and entries between messages, documents and the types of the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any

from chassis.errors import Violation
from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from chassis.times import from_timestamp
from daogou.commission.v1.order_event_pb2 import OrderEvent, OrderEventKind
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.rules import admission
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.line import MonthSales
from svc_commission.rules.month import posting_month
from svc_commission.rules.order import Account, Circumstances, Target
from svc_commission.rules.plan import PayeeRole
from svc_commission.rules.posting import PostingKind

_KINDS = {OrderEventKind.Value(f"ORDER_EVENT_KIND_{kind}"): kind for kind in Kind}
_CHANNELS = frozenset(Channel.values())


@cache
def channel_name(channel: Channel.ValueType) -> str:
    """The channel as documents and rules write it."""
    return Channel.Name(channel).removeprefix("CHANNEL_")


def event_problems(message: OrderEvent, prefix: str) -> list[Violation]:
    """What the rules say against an event, as far as its kind and channel are known values."""
    kind, channel = _KINDS.get(message.kind), message.channel
    if kind is None or channel not in _CHANNELS:
        return []
    found = admission.problems(
        kind,
        # A copy is a list, which is gone through faster.
        [line.line_id for line in message.lines[:]],
        [line.line_id for line in message.refund_lines[:]],
        message.goodwill_minor,
        channel=channel_name(channel),
        shop_id=message.shop_id,
        selling_store_id=message.selling_store_id,
    )
    return [Violation(f"{prefix}{one.field}", one.description) for one in found]


def event_document(
    message: OrderEvent, order_key: str, body_hash: bytes, now: datetime, sealer: Sealer
) -> Document:
    """An event for storage. The buyer's identity is sealed, bound to the order."""
    buyer: Document = {}
    if message.HasField("member_id"):
        buyer = {"member_id": message.member_id}
    elif message.HasField("identity"):
        buyer = {"identity": sealer.sealed(message.identity.SerializeToString(), order_key)}
    return {
        "event_id": message.event_id,
        "kind": OrderEventKind.Name(message.kind).removeprefix("ORDER_EVENT_KIND_"),
        "happened_time": from_timestamp(message.happened_time),
        "recorded_time": now,
        "body_hash": body_hash,
        "shop_id": message.shop_id,
        "selling_store_id": message.selling_store_id,
        "buyer": buyer,
        "lines": [
            {
                "line_id": line.line_id,
                "sku_id": line.sku_id,
                "category_id": line.category_id,
                "quantity": line.quantity,
                "list_minor": line.list_minor,
                "paid_minor": line.paid_minor,
                "subsidy_minor": line.subsidy_minor,
            }
            for line in message.lines
        ],
        "refund_lines": [
            {
                "line_id": line.line_id,
                "refunded_minor": line.refunded_minor,
                "quantity": line.quantity,
            }
            for line in message.refund_lines
        ],
        "goodwill_minor": message.goodwill_minor,
        **_named(message),
    }


def _named(message: OrderEvent) -> Document:
    """Whom and what else an event names; what it does not name is left out."""
    link = message.share_link
    named: Document = {
        "serving_guide_id": message.serving_guide_id,
        "campaign_id": message.campaign_id,
        "member_tier": message.member_tier,
        "share_link": {
            "open_time": from_timestamp(link.open_time),
            "maker_guide_id": link.maker_guide_id,
            "parent_maker_guide_id": link.parent_maker_guide_id,
        }
        if message.HasField("share_link")
        else None,
    }
    return {name: value for name, value in named.items() if value}


def event_of(document: Document) -> Event:
    """A stored event for the rules."""
    return Event(
        event_id=document["event_id"],
        kind=Kind(document["kind"]),
        happened_time=document["happened_time"],
        lines=tuple(Line(**line) for line in document["lines"]),
        refund_lines=tuple(RefundLine(**line) for line in document["refund_lines"]),
        goodwill_minor=document["goodwill_minor"],
    )


def movement_of(document: Document) -> Event:
    """A stored event as far as it tells when what happened: without its lines."""
    return Event(document["event_id"], Kind(document["kind"]), document["happened_time"])


def circumstances_of(document: Mapping[str, Any]) -> Circumstances:
    """What else an order's books depend on: of an order, or of an entry as it was then."""
    return Circumstances(
        first_purchase=document.get("first_purchase", False),
        confirmed_through=document.get("confirmed_through_time"),
        sales={
            month_of(sold["month"]): MonthSales(sold["sales_minor"], sold["latest_minor"])
            for sold in document.get("closed_sales", ())
        },
    )


_AROUND = ("first_purchase", "confirmed_through_time", "closed_sales")


def attribution_document(frozen: Attribution) -> Document:
    """A frozen attribution for storage."""
    return {name: getattr(frozen, name) for name in Attribution.__dataclass_fields__}


def attribution_of(document: Document) -> Attribution:
    """A frozen attribution for the rules."""
    withheld = document.get("self_purchases", {})
    typed = {
        "owner_basis": OwnerBasis(document["owner_basis"]),
        "self_purchases": {PayeeRole(role): payee for role, payee in withheld.items()},
    }
    return Attribution(**{**document, **typed})


def attribution_at(order: Document, rev: int) -> Attribution | None:
    """The attribution that was in force when the order had a revision; None: none yet.

    One that was replaced was in force until the revision that stands beside it.
    """
    formers = order.get("former_attributions", ())
    replaced = (former["attribution"] for former in formers if rev < former["rev"])
    found = next(replaced, order["attribution"])
    return attribution_of(found) if found else None


def month_text(month: date) -> str:
    """A month as documents write it: 2026-11. Sorts as it should."""
    return month.isoformat()[:7]


def month_of(text: str) -> date:
    """The first day of a month."""
    return date.fromisoformat(f"{text}-01")


def target_documents(targets: Mapping[Target, int]) -> list[Document]:
    """Posted targets for storage."""
    return [
        {
            "line_id": target.line_id,
            "account": target.account.value,
            "payee": target.payee,
            "month": month_text(target.month),
            "kind": target.kind.value,
            "amount_minor": amount,
        }
        for target, amount in sorted(targets.items())
    ]


def targets_of(documents: list[Document]) -> dict[Target, int]:
    """Posted targets for the rules."""
    return {
        Target(
            stored["line_id"],
            Account(stored["account"]),
            stored["payee"],
            month_of(stored["month"]),
            PostingKind(stored.get("kind", PostingKind.EARNED)),
        ): stored["amount_minor"]
        for stored in documents
    }


def is_of_order(entry: Document) -> bool:
    """Whether an entry follows from an order's events; another says itself what it is for."""
    return "order_key" in entry and "cause" not in entry


def kind_of(posting: Document) -> PostingKind:
    """What a posting does. One of before there were kinds counts as earned."""
    return PostingKind(posting.get("kind", PostingKind.EARNED))


def origin_of(posting: Document, entry: Document) -> date:
    """The month in which a posting's cause lies."""
    return month_of(posting.get("origin_month") or entry["posting_month"])


def balances(entry: Document) -> bool:
    """Whether an entry sums to zero."""
    return not sum(one["amount_minor"] for one in entry["postings"])


def posted(entries: Iterable[Document]) -> dict[Target, int]:
    """What entries of one order sum to; amounts that sum to nothing are left out."""
    sums: Counter[Target] = Counter()
    for entry in entries:
        for one in entry["postings"]:
            month, kind = origin_of(one, entry), kind_of(one)
            sums[Target(one["line_id"], Account(one["account"]), one["payee"], month, kind)] += one[
                "amount_minor"
            ]
    return {target: amount for target, amount in sums.items() if amount}


def entry_documents(
    order: Document,
    attribution: Attribution,
    amounts: Mapping[Target, int],
    cause_event_ids: Sequence[str],
    now: datetime,
    first_open: date | None,
) -> list[Document]:
    """The journal entries that post the amounts: one per month, each of which sums to zero.

    What belongs to a month before the first that is open is posted in that.
    """
    by_month: dict[str, list[Document]] = {}
    for target, amount in amounts.items():
        posting = {
            "account": target.account.value,
            "payee": target.payee,
            "line_id": target.line_id,
            "kind": target.kind.value,
            "origin_month": month_text(target.month),
            "amount_minor": amount,
        }
        by_month.setdefault(month_text(posting_month(target.month, first_open)), []).append(posting)
    return [
        {
            "_id": f"{order['_id']}|{order['rev']}|{month}",
            "brand_id": order["brand_id"],
            "order_key": order["_id"],
            "rev": order["rev"],
            "posting_month": month,
            "recorded_time": now,
            "currency_code": order["currency_code"],
            "cause_event_ids": list(cause_event_ids),
            "binding_id": attribution.binding_id,
            "plan_id": attribution.plan_id,
            "around": {name: order[name] for name in _AROUND if name in order},
            "postings": postings,
        }
        for month, postings in sorted(by_month.items())
    ]
