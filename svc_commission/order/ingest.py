"""From events to entries: read the orders, admit events; `booking` attributes, folds, writes and relays.

One call handles many orders at the cost of a few commands: one read, one look-up of bindings, one bulk
write of orders, one insert of entries. Orders that somebody else wrote meanwhile go round again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Counter

from chassis import backoff, crash, logs
from chassis.clock import Now
from chassis.errors import DaogouError, Invalid, NotFound, Refused, Unavailable, invalid_fields
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.sealing import Sealer
from chassis.times import from_timestamp
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEvent
from svc_commission.members_client import BrandFacts
from svc_commission.order import documents, identities
from svc_commission.order.booking import Booking, Draft
from svc_commission.order.store_order import (
    OrderStore,
    order_key,
)
from svc_commission.rules import admission, feed
from svc_commission.rules.admission import Admission
from svc_commission.rules.event import MONEY, Event, Kind
from svc_commission.rules.feed import Source

EVENTS_MAX = 1000
"""Most events of one call that are taken in."""
_ATTEMPTS = 10

_ADMITTED = crash.point("events_admitted")

EVENTS = Counter("daogou_commission_events_total", "Order events, by what became of them.", ["outcome"])
QUARANTINED = Counter(
    "daogou_commission_quarantined_events_total", "Known events that came again with other content."
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
class _Draft(Draft):
    """An order with what came of the events of the call."""

    added: list[_Incoming] = field(default_factory=list)
    quarantined: list[_Incoming] = field(default_factory=list)


class Ingest:
    """Takes order events in."""

    def __init__(self, orders: OrderStore, booking: Booking, sealer: Sealer, now: Now) -> None:
        self._orders = orders
        self._booking = booking
        self._sealer = sealer
        self._now = now
        self._log = logs.logger("ingest")

    async def ingest(
        self, brand_id: str, messages: Sequence[OrderEvent], refused: Collection[Source] = ()
    ) -> list[Verdict]:
        """Takes in the events of one brand; what became of each, in order.

        `refused`: the sources for which whoever sends them is not authoritative.
        """
        now = self._now()
        verdicts: dict[int, Verdict] = {}
        facts = await self._booking.facts(brand_id)
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
            conflicts = await self._booking.write(
                brand_id, [draft for draft in drafts if draft.added], facts, now
            )
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
        changed = {**document, "rev": document["rev"] + 1, "events": list(document["events"])}
        draft = _Draft(changed, moves=False)
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
                draft.causes.append(one.event_id)
                draft.moves = draft.moves or one.document["kind"] in MONEY
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
