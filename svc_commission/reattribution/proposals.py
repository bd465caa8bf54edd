"""What reattributing orders would change: whose sale each is by what is known now, and what that moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial

from chassis.mongo.connection import Document
from svc_commission.order import documents
from svc_commission.order.attributor import Attributor
from svc_commission.order.replay import Turns
from svc_commission.order.store_first_purchase import FirstPurchaseStore, order_rank
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import order, reattribution
from svc_commission.rules.attribution import Attribution
from svc_commission.rules.order import Circumstances, Target
from svc_commission.rules.plan import Plan


@dataclass(frozen=True, slots=True)
class OrderName:
    """Names an order. `key`: its primary key."""

    key: str
    channel: str
    order_id: str


class Proposals:
    """Looks at orders, and changes nothing."""

    def __init__(self, plans: PlanStore, firsts: FirstPurchaseStore, attributor: Attributor) -> None:
        self._plans = plans
        self._firsts = firsts
        self._attributor = attributor

    async def looked_at(
        self, brand_id: str, names: Sequence[OrderName], stored: Mapping[str, Document], now: datetime
    ) -> list[Document]:
        """What a reattribution does to each of the orders named: its item, as it is kept and carried out.

        `stored`: those that exist, by key. Raises: Unavailable when the members service cannot be asked.
        """
        plans = {plan.plan_id: plan for plan in await self._plans.plans(brand_id)}
        attributed = [one for name in names if (one := stored.get(name.key)) and one["attribution"]]
        decided = (
            await self._attributor.anew(brand_id, attributed, list(plans.values()), now) if attributed else []
        )
        after = {one["_id"]: new for one, new in zip(attributed, decided, strict=True)}
        firsts = await self._first_keys(brand_id, attributed, after)
        turns, items = Turns(), []
        for name in names:
            item = {"order_key": name.key, "channel": name.channel, "order_id": name.order_id}
            if name.key not in stored:
                items.append({**item, "error": "ORDER_UNKNOWN"})
            elif name.key not in after:
                items.append({**item, "error": "ATTRIBUTION_PENDING"})
            else:
                found, new = stored[name.key], after[name.key]
                is_first = firsts.get(new.member_id) == name.key
                look = partial(_looked_at, found, new, plans.get(new.plan_id), is_first=is_first)
                items.append({**item, **await turns.computed(found, look)})
        return items

    async def _first_keys(
        self, brand_id: str, orders: Sequence[Document], after: Mapping[str, Attribution]
    ) -> dict[str, str]:
        """By member to whom paid orders would come, the key of what would be his first."""
        coming: dict[str, list[Document]] = defaultdict(list)
        for one in orders:
            member_id = after[one["_id"]].member_id
            paid = any(event["kind"] == "PAID" for event in one["events"])
            if paid and member_id and member_id != one["attribution"]["member_id"]:
                coming[member_id].append(one)
        noted = await self._firsts.firsts(brand_id, coming)
        for member_id, first in noted.items():
            coming[member_id].append({**first, "_id": first["order_key"]})
        return {member_id: min(paid, key=order_rank)["_id"] for member_id, paid in coming.items()}


def _looked_at(stored: Document, after: Attribution, plan: Plan | None, *, is_first: bool) -> Document:
    """What a new attribution does to an order. `is_first`: of a member to whom it comes by it."""
    before = documents.attribution_of(stored["attribution"])
    found: Document = {"before": stored["attribution"], "after": None, "differences": []}
    if not reattribution.changes(before, after):
        return found
    around = documents.circumstances_of(stored)
    new_around = around
    if after.member_id != before.member_id:
        new_around = replace(new_around, first_purchase=is_first)
    if after.owner != before.owner:
        new_around = replace(new_around, sales={})

    def targets(attribution: Attribution, circumstances: Circumstances) -> Mapping[Target, int]:
        events = [documents.event_of(event) for event in stored["events"]]
        return order.fold(events, stored["channel"], attribution, plan, circumstances).targets

    moved = reattribution.moved(targets(before, around), targets(after, new_around))
    differences = [{"payee": payee, "difference_minor": amount} for payee, amount in moved.items()]
    return {**found, "after": asdict(after), "differences": differences}
