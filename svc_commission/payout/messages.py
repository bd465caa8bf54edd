"""Adjustments and payouts as messages."""

from __future__ import annotations

from chassis.mongo.connection import Document
from chassis.times import to_optional_timestamp, to_timestamp
from daogou.commission.v1 import adjustment_pb2, payout_pb2
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.ledger.messages import month_message, payee_message
from svc_commission.order.documents import month_of
from svc_commission.payout.adjustments import entry_id_of
from svc_commission.rules.adjustment import AdjustmentState
from svc_commission.rules.attribution import guide_payee, pool_payee


def payee_of(named: adjustment_pb2.ProposeAdjustmentRequest | adjustment_pb2.OpeningBalance) -> str:
    """The payee that a message names."""
    if named.HasField("guide_id"):
        return guide_payee(named.guide_id)
    return pool_payee(named.pool_store_id)


def adjustment_message(adjustment: Document) -> adjustment_pb2.Adjustment:
    """A stored adjustment."""
    state, channel = AdjustmentState(adjustment["state"]), adjustment["channel"]
    return adjustment_pb2.Adjustment(
        adjustment_id=adjustment["adjustment_id"],
        payee=payee_message(adjustment["payee"]),
        amount_minor=adjustment["amount_minor"],
        currency_code=adjustment["currency_code"],
        reason=adjustment["reason"],
        bearing_store_id=adjustment["bearer"].partition(":")[2],
        channel=Channel.Value(f"CHANNEL_{channel}") if channel else Channel.CHANNEL_UNSPECIFIED,
        order_id=adjustment["order_id"],
        month=month_message(month_of(adjustment["month"])) if adjustment["month"] else None,
        state=adjustment_pb2.AdjustmentState.Value(f"ADJUSTMENT_STATE_{state}"),
        proposer=adjustment["proposer"],
        propose_time=to_timestamp(adjustment["propose_time"]),
        decider=adjustment["decider"],
        decide_time=to_optional_timestamp(adjustment["decide_time"]),
        entry_id=entry_id_of(adjustment) if state is AdjustmentState.APPROVED else "",
    )


def payout_message(payout: Document) -> payout_pb2.Payout:
    """A stored payout. One that was read without those whom it refused has none."""
    refused = payout.get("refused", ())
    return payout_pb2.Payout(
        batch_id=payout["batch_id"],
        month=month_message(month_of(payout["month"])),
        state=payout_pb2.PayoutState.Value(f"PAYOUT_STATE_{payout['state']}"),
        paid_count=payout["paid_count"],
        paid_minor=payout["paid_minor"],
        currency_code=payout["currency_code"],
        refused_count=payout["refused_count"],
        refused=[
            payout_pb2.Payout.Refused(
                guide_id=one["guide_id"],
                reason=payout_pb2.PayoutRefusal.Value(f"PAYOUT_REFUSAL_{one['reason']}"),
            )
            for one in refused
        ],
        record_time=to_timestamp(payout["record_time"]),
        recorder=payout["recorder"],
    )
