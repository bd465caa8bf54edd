"""Commission plans over gRPC: published once, then only read."""

from __future__ import annotations

from typing import Any

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import Violation, invalid_fields
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.rpc.call import caller
from chassis.sealing import Sealer
from daogou.commission.v1 import plan_pb2 as pb
from svc_commission.plan.plans import plan_document, plan_message, plan_of, plan_of_message
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import plan as rules


class PlanServicer:
    """Implements daogou.commission.v1.PlanService."""

    def __init__(self, plans: PlanStore, sealer: Sealer, audit: Audit, now: Now) -> None:
        self._plans = plans
        self._digest = sealer.digest
        self._audit = audit
        self._now = now

    async def PublishPlan(self, request: pb.PublishPlanRequest, context: Any) -> pb.PublishPlanResponse:
        now = self._now()
        # Its id follows from the request, so that a repeat is the same plan.
        plan_id = derived_id("plan", request.brand_id, request.request_id)
        plan = plan_of_message(request.plan, plan_id, now)
        # Looked at by its contract too; when it begins, where it does not say, is known here alone.
        if found := rules.problems(plan):
            raise invalid_fields([Violation(f"plan.{one.field}", one.description) for one in found])
        standing = await self._plans.find(request.brand_id)
        body = idempotency.body_hash(request, self._digest)
        for published in standing["plans"]:
            first = idempotency.first_reply([published["created"]], request.request_id, body, pb.Plan)
            if first is not None:
                return pb.PublishPlanResponse(plan=first)
        rules.check_publishable(plan, [plan_of(document) for document in standing["plans"]], now)
        document = {
            **plan_document(plan),
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
