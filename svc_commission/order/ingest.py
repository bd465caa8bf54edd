"""From events to entries: read the orders, admit events, attribute, fold, write, relay.

One call handles many orders at the cost of a few commands: one read, one look-up of bindings, one bulk
write of orders, one insert of entries. Orders that somebody else wrote meanwhile go round again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from prometheus_client import Counter

from chassis import backoff, crash, logs
from chassis.clock import Now
from chassis.errors import DaogouError, Invalid, NotFound, Refused, Unavailable, invalid_fields
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.sealing import Sealer
from chassis.times import from_timestamp
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.month import owner_sales
from svc_commission.month.leases import Lease, Leases
from svc_commission.order import documents, identities, purchases, sales
from svc_commission.order.attributor import Attributor
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import (
    CONFIRM_DUE,
    CONFIRM_TIME,
    STUCK_SINCE,
    OrderStore,
    fits,
    order_key,
)
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import admission, feed, order
from svc_commission.rules.admission import Admission
from svc_commission.rules.event import Event, Kind
from svc_commission.rules.feed import Source
from svc_commission.rules.plan import Plan

EVENTS_MAX = 1000
"""Most events of one call that are taken in."""
_ATTEMPTS = 10

_ADMITTED = crash.point("events_admitted")
_NOTED = crash.point("first_purchases_noted")
_WRITTEN = crash.point("orders_written")
_RELAYED = crash.point("orders_relayed")

EVENTS = Counter("daogou_commission_events_total", "Order events, by what became of them.", ["outcome"])
QUARANTINED = Counter(
    "daogou_commission_quarantined_events_total", "Known events that came again with other content."
)
REFUND_EXCESS = Counter(
    "daogou_commission_refund_excess_orders_total", "Orders of which more was refunded than paid."
)


@dataclass(slots=True)
class Verdict:
    """What became of one event."""

    outcome: EventOutcome.ValueType
    error: DaogouError | None = None


@dataclass(slots=True)
class _Incoming:
    """One acceptable event of the call, and its place in it."""

    index: int
    key: str
    message: OrderEvent
    document: Document

    @property
    def event_id(self) -> str:
        return self.message.event_id

    @property
    def body_hash(self) -> bytes:
        return bytes(self.document["body_hash"])


@dataclass(slots=True)
class _Draft:
    """One order on its way to being written."""

    document: Document
    added: list[_Incoming] = field(default_factory=list)
    quarantined: list[_Incoming] = field(default_factory=list)
    too_large: bool = False
    cause: str = ""


class Ingest:
    """Takes order events in."""

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
        self._sealer = sealer
        self._now = now
        self._new_id = new_id
        self._leases = leases
        self._log = logs.logger("ingest")

    async def ingest(
        self, brand_id: str, messages: Sequence[OrderEvent], refused: Collection[Source] = ()
    ) -> list[Verdict]:
        """Takes in the events of one brand; what became of each, in order.

        `refused`: the sources for which whoever sends them is not authoritative.
        """
        now = self._now()
        verdicts: dict[int, Verdict] = {}
        facts = await self._facts(brand_id)
        incoming: dict[str, list[_Incoming]] = defaultdict(list)
        for index, message in enumerate(messages):
            try:
                one = self._accepted(brand_id, index, message, facts, now)
                if refused and (documents.channel_name(message.channel), message.shop_id) in refused:
                    raise feed.not_authoritative()
            except DaogouError as error:
                verdicts[index] = Verdict(EventOutcome.EVENT_OUTCOME_REJECTED, error)
            else:
                incoming[one.key].append(one)
        if incoming:
            await self._take_in(
                brand_id, incoming, facts if isinstance(facts, BrandFacts) else None, now, verdicts
            )
        outcomes = [verdict.outcome for verdict in verdicts.values()]
        for outcome in set(outcomes):
            counted = EVENTS.labels(EventOutcome.Name(outcome).removeprefix("EVENT_OUTCOME_"))
            counted.inc(outcomes.count(outcome))
        return [verdicts[index] for index in range(len(messages))]

    async def settle(self, orders: Sequence[Document]) -> None:
        """Tries parked orders of one brand again: attributes and books those that now can be."""
        brand_id = orders[0]["brand_id"]
        facts = await self._facts(brand_id)
        if isinstance(facts, BrandFacts):
            drafts = [_Draft({**document, "rev": document["rev"] + 1}) for document in orders]
            await self._write(brand_id, drafts, facts, self._now())

    async def rebook(self, orders: Sequence[Document], cause: str, closes: Lease | None = None) -> set[str]:
        """Makes the books of orders of one brand anew; the keys of those that could not be written.

        Others wrote them meanwhile, or they would become too large. `cause` stands in the entries that
        follow, in the place of events. An order is written also where nothing is to be posted: whoever read
        it before must read it again. `closes`: the lease of who closes a month, and
        still posts in it.
        """
        await self._orders.relay(orders)
        drafts = [_Draft({**document, "rev": document["rev"] + 1}, cause=cause) for document in orders]
        conflicts = await self._write(orders[0]["brand_id"], drafts, None, self._now(), closes)
        return conflicts | {draft.document["_id"] for draft in drafts if draft.too_large}

    async def _facts(self, brand_id: str) -> BrandFacts | NotFound | None:
        """The brand's facts; NotFound where there is none; None where the members service is away."""
        try:
            return await self._members.brand(brand_id)
        except NotFound as error:
            return error
        except Unavailable:
            return None

    def _accepted(
        self,
        brand_id: str,
        index: int,
        message: OrderEvent,
        facts: BrandFacts | NotFound | None,
        now: datetime,
    ) -> _Incoming:
        """The event, if nothing is wrong with it whatever its order. Raises: DaogouError."""
        if index >= EVENTS_MAX:
            raise Invalid(
                "TOO_MANY_EVENTS", f"a call takes in at most {EVENTS_MAX} events: send it in another"
            )
        if isinstance(facts, NotFound):
            raise facts
        if found := limits.violations(message):
            raise invalid_fields(found)
        channel = documents.channel_name(message.channel)
        key = order_key(brand_id, channel, message.order_id)
        body_hash = self._sealer.digest(message.SerializeToString(deterministic=True))
        document = documents.event_document(message, key, body_hash, now, self._sealer)
        # The rules looked at its lines together with its limits.
        event = Event(message.event_id, Kind(document["kind"]), document["happened_time"])
        admission.check_event_id(event)
        admission.check_time(event, from_timestamp(message.order_placed_time), now)
        if facts is not None and message.currency_code != facts.currency_code:
            raise Invalid("CURRENCY_NOT_OF_BRAND", f"the brand's amounts are in {facts.currency_code}")
        return _Incoming(index, key, message, document)

    async def _take_in(
        self,
        brand_id: str,
        incoming: dict[str, list[_Incoming]],
        facts: BrandFacts | None,
        now: datetime,
        verdicts: dict[int, Verdict],
    ) -> None:
        """Admits and writes, again for the orders that others wrote meanwhile."""
        waiting = dict(incoming)
        for attempt in range(_ATTEMPTS):
            stored = await self._orders.find_many(list(waiting))
            # What a crash or another call left half-way goes to the journal before the order is replaced.
            await self._orders.relay(list(stored.values()))
            drafts = [
                self._draft(brand_id, key, stored.get(key), events, now, verdicts)
                for key, events in waiting.items()
            ]
            await self._quarantine(drafts, now)
            _ADMITTED.reached()
            conflicts = await self._write(brand_id, [draft for draft in drafts if draft.added], facts, now)
            for draft in drafts:
                if draft.document["_id"] not in conflicts:
                    _judge(draft, verdicts)
            waiting = {key: events for key, events in waiting.items() if key in conflicts}
            if not waiting:
                return
            await backoff.pause(attempt)
        changed = Refused("ORDER_CHANGED", "others write the same order: send the event again")
        for events in waiting.values():
            for one in events:
                verdicts[one.index] = Verdict(EventOutcome.EVENT_OUTCOME_REJECTED, changed)

    def _draft(
        self,
        brand_id: str,
        key: str,
        stored: Document | None,
        events: Sequence[_Incoming],
        now: datetime,
        verdicts: dict[int, Verdict],
    ) -> _Draft:
        """The order with its new events admitted, not yet attributed or booked."""
        document = stored or _new_order(brand_id, key, events[0].message, now)
        hashes = {event["event_id"]: bytes(event["body_hash"]) for event in document["events"]}
        draft = _Draft({**document, "rev": document["rev"] + 1, "events": list(document["events"])})
        for one in events:
            placed_time = from_timestamp(one.message.order_placed_time)
            try:
                if error := admission.check_same_order(document["placed_time"], placed_time):
                    raise error
                if document["currency_code"] != one.message.currency_code:
                    raise Invalid("CURRENCY_NOT_OF_BRAND", f"the order is in {document['currency_code']}")
                admitted = admission.admit(hashes, one.event_id, one.body_hash)
            except DaogouError as error:
                verdicts[one.index] = Verdict(EventOutcome.EVENT_OUTCOME_REJECTED, error)
                continue
            if admitted is Admission.DUPLICATE:
                verdicts[one.index] = Verdict(EventOutcome.EVENT_OUTCOME_DUPLICATE)
            elif admitted is Admission.CHANGED:
                draft.quarantined.append(one)
            else:
                hashes[one.event_id] = one.body_hash
                draft.added.append(one)
                draft.document["events"].append({**one.document, "rev": draft.document["rev"]})
        return draft

    async def _quarantine(self, drafts: Sequence[_Draft], now: datetime) -> None:
        """Keeps what contradicts an earlier event, whole and sealed."""
        kept = [
            {
                "_id": f"{draft.document['_id']}|{one.event_id}|{one.body_hash.hex()}",
                "brand_id": draft.document["brand_id"],
                "order_key": draft.document["_id"],
                "event_id": one.event_id,
                "recorded_time": now,
                **identities.quarantined(one.message, draft.document["_id"], now, self._sealer),
            }
            for draft in drafts
            for one in draft.quarantined
        ]
        if kept:
            await self._orders.quarantine(kept)
            QUARANTINED.inc(len(kept))
            self._log.warning("quarantined", events=[document["_id"] for document in kept][:20])

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

    async def _write(
        self,
        brand_id: str,
        drafts: Sequence[_Draft],
        facts: BrandFacts | None,
        now: datetime,
        closes: Lease | None = None,
    ) -> set[str]:
        """Attributes, books, writes and relays; the keys of orders that others wrote meanwhile."""
        if not drafts:
            return set()
        plans = await self._plans.plans(brand_id)
        orders = [draft.document for draft in drafts]
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


def _bought_by(order: Document) -> str:
    """The member who paid for an order; empty: nobody yet, or nobody knows who."""
    paid = any(event["kind"] == "PAID" for event in order["events"])
    return str(order["attribution"]["member_id"]) if paid and order["attribution"] else ""


def _new_order(brand_id: str, key: str, first: OrderEvent, now: datetime) -> Document:
    return {
        "_id": key,
        "brand_id": brand_id,
        "channel": documents.channel_name(first.channel),
        "order_id": first.order_id,
        "rev": 0,
        "placed_time": from_timestamp(first.order_placed_time),
        "currency_code": first.currency_code,
        "first_stored_time": now,
        "events": [],
        "attribution": None,
        "target": [],
        "refund_excess_minor": 0,
    }


def _book(draft: _Draft, plans: Sequence[Plan], batch: str, now: datetime, first_open: date | None) -> None:
    """Sets what the order's events come to, and the entries that bring the journal there."""
    document = draft.document
    document.pop("relay", None)
    if document["attribution"] is None:
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
    added = [one.event_id for one in draft.added] or [event.event_id for event in events]
    causes = [draft.cause] if draft.cause else added
    document["target"] = documents.target_documents(books.targets)
    document["relay"] = {
        "batch": batch,
        "recorded_time": now,
        "entries": documents.entry_documents(document, attribution, new, causes, now, first_open),
        "credits": counted,
    }


def _set_or_remove(document: Document, name: str, time: datetime | None) -> None:
    if time is None:
        document.pop(name, None)
    else:
        document[name] = time


def _judge(draft: _Draft, verdicts: dict[int, Verdict]) -> None:
    """Says of each event of a written order what became of it."""
    parked = draft.document.get("parked")
    if draft.too_large:
        too_large = Refused("ORDER_TOO_LARGE", "with these events the order would have too many lines")
        added = Verdict(EventOutcome.EVENT_OUTCOME_REJECTED, too_large)
    elif parked:
        pending = Unavailable(parked["reason"], parked["message"])
        added = Verdict(EventOutcome.EVENT_OUTCOME_PARKED, pending)
    else:
        added = Verdict(EventOutcome.EVENT_OUTCOME_APPLIED)
    verdicts.update((one.index, added) for one in draft.added)
    changed = Refused("EVENT_BODY_CHANGED", "the event is known with other content, which stays in force")
    quarantined = Verdict(EventOutcome.EVENT_OUTCOME_QUARANTINED, changed)
    verdicts.update((one.index, quarantined) for one in draft.quarantined)
