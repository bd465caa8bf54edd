"""Simulations over gRPC: a period's orders computed with the plans that decided them and with a draft."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from chassis.clock import Now
from chassis.errors import Violation, invalid_fields
from chassis.mongo.connection import Document
from chassis.times import from_timestamp
from daogou.commission.v1 import simulation_pb2 as pb
from svc_commission.month.owner_sales import has_tiers
from svc_commission.order import documents
from svc_commission.order.replay import Replays, Turns
from svc_commission.order.store_replay import ReplayStore
from svc_commission.plan.plans import plan_of_message
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import order as books
from svc_commission.rules import plan as rules
from svc_commission.rules.plan import Plan
from svc_commission.rules.simulation import OwnerSales, Simulation
from svc_commission.simulation.messages import difference_messages

PERIOD_MAX: Final = timedelta(days=400)

Replies = AsyncGenerator[pb.SimulatePlanResponse, None]


class SimulationServicer:
    """Implements daogou.commission.v1.SimulationService."""

    def __init__(self, store: ReplayStore, plans: PlanStore, replays: Replays, now: Now) -> None:
        self._store = store
        self._plans = plans
        self._replays = replays
        self._now = now

    async def SimulatePlan(self, request: pb.SimulatePlanRequest, context: Any) -> Replies:
        draft = plan_of_message(request.draft, "", self._now())
        period = from_timestamp(request.from_time), from_timestamp(request.to_time)
        # Its contract has looked at it too; when a draft begins, where it does not say, is known here alone.
        found = [Violation(f"draft.{one.field}", one.description) for one in rules.problems(draft)]
        if found := [*found, *_period_problems(*period)]:
            raise invalid_fields(found)
        with self._replays.admitted() as turns:
            plans = {plan.plan_id: plan for plan in await self._plans.plans(request.brand_id)}
            replay = _Replay(self._store, request.brand_id, period, draft, plans, turns)
            async with aclosing(replay.replies()) as replies:
                async for reply in replies:
                    yield reply


def _period_problems(from_time: datetime, to_time: datetime) -> list[Violation]:
    if to_time <= from_time:
        return [Violation("to_time", "must be after from_time")]
    if to_time - from_time > PERIOD_MAX:
        return [Violation("to_time", f"must be at most {PERIOD_MAX.days} days after from_time")]
    return []


class _Replay:
    """One simulation, from its first order to the totals."""

    def __init__(
        self,
        store: ReplayStore,
        brand_id: str,
        period: tuple[datetime, datetime],
        draft: Plan,
        plans: Mapping[str, Plan],
        turns: Turns,
    ) -> None:
        self._store = store
        self._brand_id = brand_id
        self._period = period
        self._draft = draft
        self._plans = plans
        self._turns = turns
        self._simulation = Simulation()
        self._sales = OwnerSales()
        self._done = self._total = self._pending = 0
        self._currency_code = ""

    async def replies(self) -> Replies:
        """Computes all, and says how far it has come and in the end what came of it."""
        looks = [self._compare]
        if has_tiers([self._draft, *self._plans.values()]):
            looks.insert(0, self._count_sales)
        self._total = len(looks) * await self._store.placed_count(self._brand_id, *self._period)
        for look in looks:
            async with aclosing(self._replayed(look)) as told:
                async for progress in told:
                    yield progress
        yield self._progress()
        totals = pb.SimulationTotals(pending_order_count=self._pending, currency_code=self._currency_code)
        async with aclosing(difference_messages(self._simulation, totals)) as differences:
            async for part in differences:
                yield part

    async def _replayed(self, look: Callable[[Document], None]) -> Replies:
        """Looks at every order of the period of which is known whose sale it is."""
        self._pending = 0
        async with aclosing(self._store.placed(self._brand_id, *self._period)) as pages:
            async for page in pages:
                for order in page:
                    if order["attribution"] is None:
                        self._pending += 1
                    else:
                        await self._turns.computed(order, partial(look, order))
                self._done += len(page)
                if self._turns.due():
                    yield self._progress()

    def _progress(self) -> pb.SimulatePlanResponse:
        progress = pb.SimulationProgress(orders_done=self._done, orders_total=self._total)
        return pb.SimulatePlanResponse(progress=progress)

    def _count_sales(self, order: Document) -> None:
        """Counts what an order adds to its owner's sales, which no plan has to do with."""
        frozen = documents.attribution_of(order["attribution"])
        events = [documents.event_of(event) for event in order["events"]]
        sold = books.fold(events, order["channel"], frozen, None).owner_sales
        self._sales.add(frozen.owner, sold, documents.circumstances_of(order).sales)

    def _compare(self, order: Document) -> None:
        """Computes an order with both plans."""
        frozen = documents.attribution_of(order["attribution"])
        events = [documents.event_of(event) for event in order["events"]]
        around = self._sales.around(frozen, events, documents.circumstances_of(order))
        plan = self._plans.get(frozen.plan_id)
        channel = order["channel"]
        current = books.fold(events, channel, frozen, plan, around)
        draft = books.fold(events, channel, replace(frozen, plan_id=""), self._draft, around)
        self._simulation.add(frozen.selling_store_id, current, draft)
        self._currency_code = order["currency_code"]
