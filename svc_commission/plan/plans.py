"""Plans between messages, documents and the types of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from chassis.errors import Violation
from chassis.mongo.connection import Document
from chassis.times import EPOCH, from_timestamp, to_optional_timestamp, to_timestamp
from daogou.commission.v1 import plan_pb2 as pb
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.order.documents import channel_name
from svc_commission.rules.plan import (
    SHARE_LINK_HOURS_DEFAULT,
    Absent,
    AfterClose,
    Base,
    CostBearer,
    Hold,
    Match,
    PayeeRole,
    Plan,
    PoolSharing,
    Purchase,
    Rule,
    SelfPurchase,
    Share,
    Tier,
    TierMode,
    Tiers,
    problems,
)

_PURCHASES = {
    Purchase.ANY: pb.PURCHASE_CONDITION_UNSPECIFIED,
    Purchase.FIRST: pb.PURCHASE_CONDITION_FIRST,
    Purchase.REPEAT: pb.PURCHASE_CONDITION_REPEAT,
}


def plan_problems(message: pb.Plan, prefix: str) -> list[Violation]:
    """What the rules say against a plan, as far as its values are known."""
    channels = [hold.channel for hold in message.holds]
    found = [
        Violation(f"{prefix}holds[{index}].channel", "names an earlier channel of the plan")
        for index, channel in enumerate(channels)
        if channel in channels[:index]
    ]
    try:
        plan = plan_of_message(message, "", EPOCH)
    except (ValueError, OverflowError):
        # A value that no enumeration has, or a time that no calendar has: named as such already.
        return found
    return found + [Violation(f"{prefix}{one.field}", one.description) for one in problems(plan)]


def plan_of_message(message: pb.Plan, plan_id: str, now: datetime) -> Plan:
    """A requested plan for the rules. Without a beginning it begins now."""
    ends = message.HasField("effective_to_time")
    begins = message.HasField("effective_from_time")
    return Plan(
        plan_id=plan_id,
        effective_from_time=from_timestamp(message.effective_from_time) if begins else now,
        effective_to_time=from_timestamp(message.effective_to_time) if ends else None,
        rules=tuple(_rule_of_message(rule) for rule in message.rules),
        holds={channel_name(hold.channel): Hold(hold.days, hold.from_payment) for hold in message.holds},
        share_link_hours=message.share_link_hours or SHARE_LINK_HOURS_DEFAULT,
        self_purchase=SelfPurchase(
            _named(pb.SelfPurchase.Name(message.self_purchase), "SELF_PURCHASE_", "NOTHING")
        ),
        pool_sharing=PoolSharing(_named(pb.PoolSharing.Name(message.pool_sharing), "POOL_SHARING_", "KEEP")),
        write_off_leavers=message.write_off_leavers,
    )


def _named(value_name: str, prefix: str, default: str) -> str:
    """An enum value's name for the rules; what is not specified is the default."""
    name = value_name.removeprefix(prefix)
    return default if name == "UNSPECIFIED" else name


def _rule_of_message(message: pb.Rule) -> Rule:
    match = message.match
    purchase = _named(pb.PurchaseCondition.Name(match.purchase), "PURCHASE_CONDITION_", "ANY")
    return Rule(
        rule_id=message.rule_id,
        match=Match(
            channels=frozenset(channel_name(channel) for channel in match.channels),
            category_ids=frozenset(match.category_ids),
            sku_ids=frozenset(match.sku_ids),
            store_ids=frozenset(match.store_ids),
            member_tiers=frozenset(match.member_tiers),
            campaign_ids=frozenset(match.campaign_ids),
            purchase=Purchase(purchase),
        ),
        rate_bp=message.rate_bp,
        shares=tuple(
            Share(
                role=PayeeRole(pb.PayeeRole.Name(share.role).removeprefix("PAYEE_ROLE_")),
                share_bp=share.share_bp,
                absent=Absent(_named(pb.AbsentRole.Name(share.absent), "ABSENT_ROLE_", "KEEP")),
            )
            for share in message.shares
        ),
        per_unit_minor=message.per_unit_minor,
        base=Base(_named(pb.CommissionBase.Name(message.base), "COMMISSION_BASE_", "PAID")),
        floor_minor=message.floor_minor,
        cap_minor=message.cap_minor if message.HasField("cap_minor") else None,
        cost_bearer=CostBearer(_named(pb.CostBearer.Name(message.cost_bearer), "COST_BEARER_", "BRAND")),
        tiers=_tiers_of_message(message.tiers) if message.HasField("tiers") else None,
    )


def _tiers_of_message(message: pb.Tiers) -> Tiers:
    return Tiers(
        tiers=tuple(Tier(tier.from_minor, tier.rate_bp) for tier in message.tiers),
        mode=TierMode(_named(pb.TierMode.Name(message.mode), "TIER_MODE_", "MARGINAL")),
        after_close=AfterClose(_named(pb.AfterClose.Name(message.after_close), "AFTER_CLOSE_", "FROZEN")),
    )


def plan_document(plan: Plan) -> Document:
    """A plan for storage; sets become sorted lists."""
    return {**asdict(plan), "rules": [_rule_document(rule) for rule in plan.rules]}


def _rule_document(rule: Rule) -> Document:
    match = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(rule.match).items()
    }
    return asdict(rule) | {"match": match}


def plan_of(document: Mapping[str, Any]) -> Plan:
    """A stored plan for the rules. One of before there were holds, purchases and bearers has none of them."""
    return Plan(
        plan_id=document["plan_id"],
        effective_from_time=document["effective_from_time"],
        effective_to_time=document["effective_to_time"],
        rules=tuple(_rule_of(rule) for rule in document["rules"]),
        holds={channel: Hold(**hold) for channel, hold in document.get("holds", {}).items()},
        share_link_hours=document.get("share_link_hours", SHARE_LINK_HOURS_DEFAULT),
        self_purchase=SelfPurchase(document.get("self_purchase", SelfPurchase.NOTHING)),
        pool_sharing=PoolSharing(document.get("pool_sharing", PoolSharing.KEEP)),
        write_off_leavers=document.get("write_off_leavers", False),
    )


def _rule_of(rule: Mapping[str, Any]) -> Rule:
    match = dict(rule["match"])
    purchase = Purchase(match.pop("purchase", Purchase.ANY))
    typed = {
        "match": Match(**{name: frozenset(values) for name, values in match.items()}, purchase=purchase),
        "shares": tuple(
            Share(PayeeRole(share["role"]), share["share_bp"], Absent(share.get("absent", Absent.KEEP)))
            for share in rule["shares"]
        ),
        "base": Base(rule.get("base", Base.PAID)),
        "cost_bearer": CostBearer(rule.get("cost_bearer", CostBearer.BRAND)),
        "tiers": _tiers_of(rule["tiers"]) if rule.get("tiers") else None,
    }
    return Rule(**{**rule, **typed})


def _tiers_of(tiers: Mapping[str, Any]) -> Tiers:
    return Tiers(
        tiers=tuple(Tier(**tier) for tier in tiers["tiers"]),
        mode=TierMode(tiers["mode"]),
        after_close=AfterClose(tiers["after_close"]),
    )


def plan_message(document: Document) -> pb.Plan:
    """A stored plan as a message."""
    plan = plan_of(document)
    return pb.Plan(
        plan_id=plan.plan_id,
        display_name=document["display_name"],
        effective_from_time=to_timestamp(plan.effective_from_time),
        effective_to_time=to_optional_timestamp(plan.effective_to_time),
        rules=[_rule_message(rule) for rule in plan.rules],
        publish_time=to_timestamp(document["publish_time"]),
        holds=[
            pb.Hold(
                channel=Channel.Value(f"CHANNEL_{channel}"), days=hold.days, from_payment=hold.from_payment
            )
            for channel, hold in sorted(plan.holds.items())
        ],
        share_link_hours=plan.share_link_hours,
        self_purchase=pb.SelfPurchase.Value(f"SELF_PURCHASE_{plan.self_purchase}"),
        pool_sharing=pb.PoolSharing.Value(f"POOL_SHARING_{plan.pool_sharing}"),
        write_off_leavers=plan.write_off_leavers,
    )


def _rule_message(rule: Rule) -> pb.Rule:
    match = rule.match
    return pb.Rule(
        rule_id=rule.rule_id,
        match=pb.Match(
            channels=[Channel.Value(f"CHANNEL_{channel}") for channel in sorted(match.channels)],
            category_ids=sorted(match.category_ids),
            sku_ids=sorted(match.sku_ids),
            store_ids=sorted(match.store_ids),
            member_tiers=sorted(match.member_tiers),
            campaign_ids=sorted(match.campaign_ids),
            purchase=_PURCHASES[match.purchase],
        )
        if match != Match()
        else None,
        rate_bp=rule.rate_bp,
        shares=[
            pb.Share(
                role=pb.PayeeRole.Value(f"PAYEE_ROLE_{share.role}"),
                share_bp=share.share_bp,
                absent=pb.AbsentRole.Value(f"ABSENT_ROLE_{share.absent}"),
            )
            for share in rule.shares
        ],
        per_unit_minor=rule.per_unit_minor,
        base=pb.CommissionBase.Value(f"COMMISSION_BASE_{rule.base}"),
        floor_minor=rule.floor_minor,
        cap_minor=rule.cap_minor,
        cost_bearer=pb.CostBearer.Value(f"COST_BEARER_{rule.cost_bearer}"),
        tiers=_tiers_message(rule.tiers) if rule.tiers else None,
    )


def _tiers_message(tiers: Tiers) -> pb.Tiers:
    return pb.Tiers(
        tiers=[pb.Tier(from_minor=tier.from_minor, rate_bp=tier.rate_bp) for tier in tiers.tiers],
        mode=pb.TierMode.Value(f"TIER_MODE_{tiers.mode}"),
        after_close=pb.AfterClose.Value(f"AFTER_CLOSE_{tiers.after_close}"),
    )
