"""Commission plans over gRPC: published once, then only read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import invalid_fields
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc.call import caller
from chassis.sealing import Sealer
from chassis.times import from_timestamp, to_optional_timestamp, to_timestamp
from daogou.commission.v1 import plan_pb2 as pb
from daogou.common.v1.channel_pb2 import Channel
from svc_commission import documents
from svc_commission.rules import plan as rules
from svc_commission.rules.plan import Match, PayeeRole, Plan, Rule
from svc_commission.store_plan import PlanStore


class PlanServicer:
    """Implements daogou.commission.v1.PlanService."""

    def __init__(self, plans: PlanStore, sealer: Sealer, audit: Audit, now: Now) -> None:
        self._plans = plans
        self._digest = sealer.digest
        self._audit = audit
        self._now = now

    async def PublishPlan(self, request: pb.PublishPlanRequest, context: Any) -> pb.PublishPlanResponse:
        now = self._now()
        plan = _plan(request, now)
        if found := rules.problems(plan):
            raise invalid_fields(found)
        standing = await self._plans.find(request.brand_id)
        body = idempotency.body_hash(request, self._digest)
        for published in standing["plans"]:
            first = idempotency.first_reply([published["created"]], request.request_id, body, pb.Plan)
            if first is not None:
                return pb.PublishPlanResponse(plan=first)
        rules.check_publishable(plan, [documents.plan_of(document) for document in standing["plans"]], now)
        document = {
            **documents.plan_document(plan),
            "display_name": request.plan.display_name,
            "publish_time": now,
        }
        reply = plan_message(document)
        document["created"] = idempotency.receipt(request.request_id, body, reply, now)
        plans = sorted([*standing["plans"], document], key=lambda one: one["effective_from_time"])
        self._plans.check_room(plans)
        subject = {"brand_id": request.brand_id, "plan_id": plan.plan_id}
        # What everybody earns changes by this: recorded first, so that no plan is in force unrecorded.
        await self._audit.record(caller(), "PublishPlan", subject, request.plan.display_name, now)
        await self._plans.replace({**standing, "plans": plans})
        return pb.PublishPlanResponse(plan=reply)

    async def ListPlans(self, request: pb.ListPlansRequest, context: Any) -> pb.ListPlansResponse:
        standing = await self._plans.find(request.brand_id)
        return pb.ListPlansResponse(plans=[plan_message(document) for document in standing["plans"]])


def _plan(request: pb.PublishPlanRequest, now: datetime) -> Plan:
    """The requested plan for the rules. Its id follows from the request."""
    message = request.plan
    return Plan(
        plan_id=derived_id("plan", request.brand_id, request.request_id),
        effective_from_time=from_timestamp(message.effective_from_time)
        if message.HasField("effective_from_time")
        else now,
        effective_to_time=from_timestamp(message.effective_to_time)
        if message.HasField("effective_to_time")
        else None,
        rules=tuple(_rule(rule) for rule in message.rules),
    )


def _rule(message: pb.Rule) -> Rule:
    return Rule(
        rule_id=message.rule_id,
        match=Match(
            channels=frozenset(documents.channel_name(channel) for channel in message.match.channels),
            category_ids=frozenset(message.match.category_ids),
            sku_ids=frozenset(message.match.sku_ids),
            store_ids=frozenset(message.match.store_ids),
        ),
        rate_bp=message.rate_bp,
        shares=tuple(
            (PayeeRole(pb.PayeeRole.Name(share.role).removeprefix("PAYEE_ROLE_")), share.share_bp)
            for share in message.shares
        ),
    )


def plan_message(document: Document) -> pb.Plan:
    """A stored plan as a message."""
    return pb.Plan(
        plan_id=document["plan_id"],
        display_name=document["display_name"],
        effective_from_time=to_timestamp(document["effective_from_time"]),
        effective_to_time=to_optional_timestamp(document["effective_to_time"]),
        rules=[_rule_message(rule) for rule in document["rules"]],
        publish_time=to_timestamp(document["publish_time"]),
    )


def _rule_message(rule: Document) -> pb.Rule:
    match = rule["match"]
    return pb.Rule(
        rule_id=rule["rule_id"],
        match=pb.Match(
            channels=[Channel.Value(f"CHANNEL_{channel}") for channel in match["channels"]],
            category_ids=match["category_ids"],
            sku_ids=match["sku_ids"],
            store_ids=match["store_ids"],
        )
        if any(match.values())
        else None,
        rate_bp=rule["rate_bp"],
        shares=[
            pb.Share(role=pb.PayeeRole.Value(f"PAYEE_ROLE_{share['role']}"), share_bp=share["share_bp"])
            for share in rule["shares"]
        ],
    )
