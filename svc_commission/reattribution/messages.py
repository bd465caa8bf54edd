"""Reattributions as messages."""

from __future__ import annotations

from collections import Counter

from chassis.errors import NotFound, Refused, Violation
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from chassis.times import from_timestamp, to_optional_timestamp, to_timestamp
from daogou.commission.v1 import reattribution_pb2 as pb
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.ledger.messages import attribution_message, payee_message
from svc_commission.order.documents import attribution_of

_ERRORS = {
    "ORDER_UNKNOWN": NotFound("ORDER_UNKNOWN", "no event of this order has been stored"),
    "ATTRIBUTION_PENDING": Refused("ATTRIBUTION_PENDING", "the order was not attributed at all yet"),
}


def check_requests() -> None:
    """Has checked with every request what limits cannot say."""
    limits.also_check(pb.NamedOrders, _named_problems)
    limits.also_check(pb.OrdersOfMember, _of_member_problems)


def _named_problems(named: pb.NamedOrders, prefix: str) -> list[Violation]:
    """What is wrong with a list of orders beyond its fields' limits."""
    names = [(one.channel, one.order_id) for one in named.orders]
    seen: set[tuple[Channel.ValueType, str]] = set()
    found = []
    for index, name in enumerate(names):
        if name in seen:
            found.append(Violation(f"{prefix}orders[{index}]", "names an earlier order of the list"))
        seen.add(name)
    return found


def _of_member_problems(of_member: pb.OrdersOfMember, prefix: str) -> list[Violation]:
    """What is wrong with a range beyond its fields' limits."""
    try:
        ends_after = from_timestamp(of_member.placed_to_time) > from_timestamp(of_member.placed_from_time)
    except (ValueError, OverflowError):
        # A time that no calendar has: named as such already.
        return []
    if of_member.HasField("placed_to_time") and of_member.HasField("placed_from_time") and not ends_after:
        return [Violation(f"{prefix}placed_to_time", "must be after placed_from_time")]
    return []


def reattribution_message(document: Document) -> pb.Reattribution:
    """A stored one; without orders where the document has none."""
    return pb.Reattribution(
        reattribution_id=document["reattribution_id"],
        state=pb.ReattributionState.Value(f"REATTRIBUTION_STATE_{document['state']}"),
        reason=document["reason"],
        proposer=document["proposer"],
        propose_time=to_timestamp(document["propose_time"]),
        decider=document.get("decider", ""),
        decide_time=to_optional_timestamp(document.get("decide_time")),
        done_time=to_optional_timestamp(document.get("done_time")),
        orders=[_order_message(item) for item in document.get("orders", ())],
        changed_count=document["changed_count"],
        differences=_moved_messages(document["differences"]),
        currency_code=document["currency_code"],
    )


def summed(items: list[Document]) -> list[Document]:
    """What payees gain and lose by all items together."""
    sums: Counter[str] = Counter()
    for item in items:
        for one in item.get("differences", ()):
            sums[one["payee"]] += one["difference_minor"]
    return [{"payee": payee, "difference_minor": amount} for payee, amount in sorted(sums.items()) if amount]


def _moved_messages(differences: list[Document]) -> list[pb.MovedAmount]:
    return [
        pb.MovedAmount(payee=payee_message(one["payee"]), difference_minor=one["difference_minor"])
        for one in differences
    ]


def _order_message(item: Document) -> pb.ReattributedOrder:
    message = pb.ReattributedOrder(
        channel=Channel.Value(f"CHANNEL_{item['channel']}"), order_id=item["order_id"]
    )
    if "error" in item:
        message.error.CopyFrom(to_item_error(_ERRORS[item["error"]]))
        return message
    message.before.CopyFrom(attribution_message(attribution_of(item["before"])))
    if item["after"] is not None:
        message.after.CopyFrom(attribution_message(attribution_of(item["after"])))
    message.differences.extend(_moved_messages(item["differences"]))
    return message
