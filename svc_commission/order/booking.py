"""Orders attributed, booked and written: what ingest, the rounds and a month's close do with an order.

One call handles many orders of a brand: one look-up of bindings, one bulk write of orders, one insert of
entries. What somebody else wrote meanwhile is told, and left to whoever called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from prometheus_client import Counter

from chassis import crash
from chassis.clock import Now
from chassis.errors import NotFound, Unavailable
from chassis.mongo.connection import Document
from chassis.sealing import Sealer
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.month import owner_sales
from svc_commission.month.leases import Lease, Leases
from svc_commission.order import documents, identities, purchases, sales
from svc_commission.order.attributor import Attributor
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import CONFIRM_DUE, CONFIRM_TIME, STUCK_SINCE, OrderStore, fits
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import hold, order
from svc_commission.rules.plan import Plan

_NOTED = crash.point("first_purchases_noted")
_WRITTEN = crash.point("orders_written")
_RELAYED = crash.point("orders_relayed")

REFUND_EXCESS = Counter(
    "daogou_commission_refund_excess_orders_total", "Orders of which more was refunded than paid."
)


@dataclass(slots=True)
class Draft:
    """An order on its way to being written, its `rev` raised.

    `causes`: what the entries name that follow; none: all events of the order. `moves`: whether anything
    happened by which its amounts may change. `too_large`: it was not written, as the database would not take
    it.
    """

    document: Document
    causes: list[str] = field(default_factory=list)
    moves: bool = True
    too_large: bool = False


class Booking:
    """Attributes, books and writes orders."""

    def __init__(
        self,
        orders: OrderStore,
        plans: PlanStore,
        first_purchases: FirstPurchaseStore,
        members: MembersClient,
        sealer: Sealer,
        now: Now,
        new_id: Callable[[], str],
        leases: Leases,
    ) -> None:
        self._orders = orders
        self._plans = plans
        self._first_purchases = first_purchases
        self._members = members
        self._attributor = Attributor(members, sealer)
        self._now = now
        self._new_id = new_id
        self._leases = leases

    async def facts(self, brand_id: str) -> BrandFacts | NotFound | None:
        """The brand's facts; NotFound where there is none; None where the members service is away."""
        try:
            return await self._members.brand(brand_id)
        except NotFound as error:
            return error
        except Unavailable:
            return None

    async def settle(self, orders: Sequence[Document]) -> None:
        """Tries parked orders of one brand again: attributes and books those that now can be."""
        brand_id = orders[0]["brand_id"]
        facts = await self.facts(brand_id)
        if isinstance(facts, BrandFacts):
            drafts = [Draft({**document, "rev": document["rev"] + 1}) for document in orders]
            await self.write(brand_id, drafts, facts, self._now())

    async def rebook(self, orders: Sequence[Document], cause: str, closes: Lease | None = None) -> set[str]:
        """Makes the books of orders of one brand anew; the keys of those that could not be written.

        Others wrote them meanwhile, or they would become too large. `cause` stands in the entries that
        follow, in the place of events. An order is written also where nothing is to be posted: whoever read
        it before must read it again. `closes`: the lease of who closes a month, and
        still posts in it.
        """
        await self._orders.relay(orders)
        drafts = [Draft({**document, "rev": document["rev"] + 1}, [cause]) for document in orders]
        conflicts = await self.write(orders[0]["brand_id"], drafts, None, self._now(), closes)
        return conflicts | {draft.document["_id"] for draft in drafts if draft.too_large}

    async def write(
        self,
        brand_id: str,
        drafts: Sequence[Draft],
        facts: BrandFacts | None,
        now: datetime,
        closes: Lease | None = None,
    ) -> set[str]:
        """Attributes, books, writes and relays; the keys of orders that others wrote meanwhile."""
        if not drafts:
            return set()
        plans = await self._plans.plans(brand_id)
        orders = [draft.document for draft in drafts]
        for draft in drafts:
            draft.moves = draft.moves or draft.document["attribution"] is None
        await self._attributor.attribute(brand_id, orders, plans, facts, now)
        for document in orders:
            identities.settle(document, now)
        # An order that is too large already is never written, and must not be noted as anybody's first.
        await self._note_first_purchases(brand_id, [order for order in orders if fits(order)], now)
        batch = self._new_id()
        first_open = (closes or await self._leases.held(brand_id)).first_open
        for draft in drafts:
            _book(draft, plans, batch, now, first_open)
            purchases.tell(draft.document, now)
            draft.too_large = not fits(draft.document)
        orders = [draft.document for draft in drafts if not draft.too_large]
        _NOTED.reached()
        posting = closes or await self._leases.held(brand_id)
        if posting.first_open != first_open:
            # A month was closed while the books were made: they are made anew, as though others had written.
            return {document["_id"] for document in orders}
        with posting.writing():
            conflicts = await self._orders.replace_many(orders) if orders else set()
        _WRITTEN.reached()
        await self._orders.relay([document for document in orders if document["_id"] not in conflicts])
        _RELAYED.reached()
        return conflicts

    async def _note_first_purchases(self, brand_id: str, orders: Sequence[Document], now: datetime) -> None:
        """Sets `first_purchase` on the orders that a member has paid for, each once.

        Noted before they are written: another that is less displaces them from then on, and its note is
        kept until they are there and their books have been made anew.
        """
        paid: dict[str, list[Document]] = defaultdict(list)
        for document in orders:
            member_id = _bought_by(document)
            if member_id and "first_purchase" not in document:
                paid[member_id].append(document)
        firsts = await self._first_purchases.note(brand_id, paid, now)
        for member_id, bought in paid.items():
            for document in bought:
                document["first_purchase"] = firsts[member_id] == document["_id"]


def _bought_by(order: Document) -> str:
    """The member who paid for an order; empty: nobody yet, or nobody knows who."""
    paid = any(event["kind"] == "PAID" for event in order["events"])
    return str(order["attribution"]["member_id"]) if paid and order["attribution"] else ""


def _book(draft: Draft, plans: Sequence[Plan], batch: str, now: datetime, first_open: date | None) -> None:
    """Sets what the order's events come to, and the entries that bring the journal there."""
    document = draft.document
    document.pop("relay", None)
    if document["attribution"] is None:
        return
    if not draft.moves and "confirmed_through_time" not in document:
        _wait_anew(document, plans)
        return
    attribution = documents.attribution_of(document["attribution"])
    plan = next((plan for plan in plans if plan.plan_id == attribution.plan_id), None)
    events = [documents.event_of(event) for event in document["events"]]
    around = documents.circumstances_of(document)
    books = order.fold(events, document["channel"], attribution, plan, around)
    if books.refund_excess_minor and not document["refund_excess_minor"]:
        REFUND_EXCESS.inc()
    document["refund_excess_minor"] = books.refund_excess_minor
    for name in (CONFIRM_TIME, CONFIRM_DUE):
        _set_or_remove(document, name, books.confirm_time if books.confirms_later else None)
    _set_or_remove(document, STUCK_SINCE, books.stuck_time)
    owner_sales.note(document, books, plans, first_open, now)
    posted = documents.targets_of(document["target"])
    new = order.differences(books.targets, posted)
    counted = sales.tell(document, books.sales_credits, now)
    if not new and not counted:
        return
    causes = draft.causes or [event.event_id for event in events]
    document["target"] = documents.target_documents(books.targets)
    document["relay"] = {
        "batch": batch,
        "recorded_time": now,
        "entries": documents.entry_documents(document, attribution, new, causes, now, first_open),
        "credits": counted,
    }


def _wait_anew(document: Document, plans: Sequence[Plan]) -> None:
    """Sets anew for how long an order is held of which nothing but the way of the goods has become known.

    Nothing of it has been confirmed, so its books stay what they are, and need not be made anew.
    """
    plan = next((plan for plan in plans if plan.plan_id == document["attribution"]["plan_id"]), None)
    held = plan.holds.get(document["channel"]) if plan else None
    if held is None:
        return
    events = [documents.movement_of(event) for event in document["events"]]
    ready = hold.confirm_time(events, held)
    for name in (CONFIRM_TIME, CONFIRM_DUE):
        _set_or_remove(document, name, ready)
    if STUCK_SINCE in document:
        _set_or_remove(document, STUCK_SINCE, hold.stuck_time(events, held))


def _set_or_remove(document: Document, name: str, time: datetime | None) -> None:
    if time is None:
        document.pop(name, None)
    else:
        document[name] = time
