"""Brings orders in through the public API, and counts what became of their events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc

from daogou.commission.v1 import order_event_pb2
from daogou.commission.v1.order_event_pb2 import EventOutcome, EventResult, OrderEvent
from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceStub
from local.orders.events import Order
from local.orders.rows import Refusal
from local.pilot import again, at_once

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceAsyncStub

EVENTS_MAX: Final = 1000
BYTES_MAX: Final = 2 << 20
"""Of one call. An order of hundreds of lines is large, and a service takes in 8 MiB."""
BAD: Final = frozenset({"REJECTED", "QUARANTINED"})

Sent = tuple[Order, OrderEvent]


@dataclass
class Outcomes:
    """What became of the events. `reasons`: by outcome and reason. `bad`: what a person must look at."""

    events: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[Refusal] = field(default_factory=list)

    def add(self, order: Order, event: OrderEvent, result: EventResult) -> None:
        """Counts one event."""
        outcome = EventOutcome.Name(result.outcome).removeprefix("EVENT_OUTCOME_")
        self.events[outcome] += 1
        if result.HasField("error"):
            self.reasons[outcome, result.error.reason] += 1
        if outcome in BAD:
            fields = "".join(f"; {one.field} {one.description}" for one in result.error.violations)
            problem = f"{event.event_id} {outcome} {result.error.reason}: {result.error.message}{fields}"
            self.bad.append(Refusal(*order.where, "", problem, order.order_id))


def batches(orders: Iterable[Order]) -> Iterator[list[Sent]]:
    """What goes into each call. An order's events go together as far as they can."""
    batch: list[Sent] = []
    size_bytes = 0
    for order in orders:
        for event in order.events:
            if len(batch) == EVENTS_MAX or (batch and size_bytes + event.ByteSize() > BYTES_MAX):
                yield batch
                batch, size_bytes = [], 0
            batch.append((order, event))
            size_bytes += event.ByteSize()
    if batch:
        yield batch


async def send(channel: grpc.aio.Channel, brand_id: str, orders: Iterable[Order]) -> Outcomes:
    """Sends all events, a few calls at a time. All of it may be sent twice.

    Raises: ExceptionGroup of grpc.aio.AioRpcError.
    """
    stub: OrderEventServiceAsyncStub = OrderEventServiceStub(channel)
    outcomes = Outcomes()

    async def call(batch: Sequence[Sent]) -> None:
        request = order_event_pb2.IngestOrderEventsRequest(
            brand_id=brand_id, events=[event for _, event in batch]
        )
        reply = await again(stub.IngestOrderEvents, request)
        for (order, event), result in zip(batch, reply.results, strict=True):
            outcomes.add(order, event, result)

    await at_once(call(batch) for batch in batches(orders))
    return outcomes
