"""What happened to an order, from its rows: events that stay the same in later exports. Pure.

An event is made of what no longer changes once it is there. What may still change (who receives last, whether
all is closed) is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from chassis.times import to_timestamp
from daogou.commission.v1.order_event_pb2 import OrderEvent, OrderEventKind, OrderLine, RefundLine
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from local.orders.columns import number_of_line
from local.orders.rows import Group, Refusal, Row

LINES_MAX: Final = 500
CURRENCY_CODE: Final = "CNY"


@dataclass(frozen=True, slots=True)
class Order:
    """An order that can be sent. `where`: file and line of a row of it."""

    order_id: str
    where: tuple[str, int]
    events: tuple[OrderEvent, ...]


def order_of(group: Group, channel: Channel.ValueType, shop_id: str) -> Order | list[Refusal]:
    """The order with all its events, or everything that is wrong with its rows."""
    refusals = list(_problems(group.rows))
    if refusals or group.spoiled_by:
        named = {(one.file, one.line) for one in refusals}
        cause = group.spoiled_by or ":".join(map(str, min(named)))
        refusals += [
            row.refused("", f"refused with the order, for {cause}")
            for row in group.rows
            if row.where not in named
        ]
        return refusals
    first = group.rows[0]
    events = _Events(group, channel, shop_id)
    return Order(group.order_id, first.where, tuple(events.all()))


# ---- what rows of one order must agree on -----------------------------------------------------------


def _problems(rows: Sequence[Row]) -> Iterator[Refusal]:
    if len(rows) > LINES_MAX:
        yield rows[0].refused("", f"is of an order of {len(rows)} rows: at most {LINES_MAX}")
    for before, row in pairwise(rows):
        if row.line_id == before.line_id:
            what = "which says otherwise: of two exports, import the older first, by itself"
            yield row.refused("line_id", f"is also that of {_at(before)}, {what}")
    yield from _differing(rows, "placed_time", lambda row: row.placed_time)
    yield from _differing(rows, "buyer", lambda row: row.buyer)
    yield from _payment_problems(rows)


def _differing(rows: Sequence[Row], field: str, value: Callable[[Row], object]) -> Iterator[Refusal]:
    for row in rows[1:]:
        if value(row) != value(rows[0]):
            yield row.refused(field, f"differs from that of {_at(rows[0])}, which is of the same order")


def _payment_problems(rows: Sequence[Row]) -> Iterator[Refusal]:
    paid = [row for row in rows if row.paid_time is not None]
    for payment in _by(paid, _payment_id):
        yield from _differing(payment, "paid_time", lambda row: row.paid_time)
    alive = next((row for row in rows if not row.closed), None)
    for row in rows:
        if paid and row.paid_time is None and not row.closed:
            problem = f"is empty, although {_at(paid[0])} of the same order was paid"
            yield row.refused("paid_time", problem)
        if alive and row.closed and row.paid_time and row.paid_minor and not row.refunded:
            problem = (
                f"says of no refund, although it was paid and closed, and {_at(alive)} of the order was not"
            )
            yield row.refused("refund_status", problem)


def _at(row: Row) -> str:
    return ":".join(map(str, row.where))


def _by(rows: Iterable[Row], key: Callable[[Row], str]) -> list[list[Row]]:
    """Rows with the same key together, by key."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return [found[one] for one in sorted(found)]


def _payment_id(row: Row) -> str:
    return row.payment_id or row.order_id


def _refund_id(row: Row) -> str:
    return row.refund_id or number_of_line(row.line_id)


# ---- the events -------------------------------------------------------------------------------------


class _Events:
    """The events of one order."""

    def __init__(self, group: Group, channel: Channel.ValueType, shop_id: str) -> None:
        self._rows = group.rows
        self._channel = channel
        self._shop_id = shop_id

    def all(self) -> Iterator[OrderEvent]:
        """By kind, then by id."""
        yield self._event("PLACED", OrderEventKind.ORDER_EVENT_KIND_PLACED, self._rows[0].placed_time)
        yield from self._paid()
        yield from self._shipped()
        yield from self._received()
        yield from self._refunded()
        yield from self._closed()

    def _paid(self) -> Iterator[OrderEvent]:
        paid = [row for row in self._rows if row.paid_time is not None]
        for rows in _by(paid, _payment_id):
            event_id = f"PAID:{_payment_id(rows[0])}"
            event = self._event(event_id, OrderEventKind.ORDER_EVENT_KIND_PAID, _latest(_paid_time, rows))
            event.lines.extend(map(_line, rows))
            yield event

    def _shipped(self) -> Iterator[OrderEvent]:
        sent: dict[str, datetime] = {}
        for row in self._rows:
            if row.shipped_time is not None:
                for parcel in row.parcels or (number_of_line(row.line_id),):
                    sent[parcel] = min(row.shipped_time, sent.get(parcel, row.shipped_time))
        for parcel, time in sorted(sent.items()):
            yield self._event(f"SHIPPED:{parcel}", OrderEventKind.ORDER_EVENT_KIND_SHIPPED, time)

    def _received(self) -> Iterator[OrderEvent]:
        received = [row.received_time for row in self._rows if row.received_time is not None]
        if received and all(row.received_time or row.closed for row in self._rows):
            yield self._event("RECEIVED", OrderEventKind.ORDER_EVENT_KIND_RECEIVED, max(received))

    def _refunded(self) -> Iterator[OrderEvent]:
        for rows in _by((row for row in self._rows if row.refunded), _refund_id):
            event_id = f"REFUND:{_refund_id(rows[0])}"
            kind = OrderEventKind.ORDER_EVENT_KIND_REFUNDED
            event = self._event(event_id, kind, _latest(_refund_time, rows))
            event.refund_lines.extend(map(_refund_line, rows))
            yield event

    def _closed(self) -> Iterator[OrderEvent]:
        paid = [row for row in self._rows if row.paid_time is not None]
        refunds_say_it = bool(paid) and all(
            row.refunded and row.refund_minor >= row.paid_minor for row in paid if row.paid_minor
        )
        if all(row.closed for row in self._rows) and not refunds_say_it:
            time = _latest(_closed_time, self._rows)
            yield self._event("CLOSED", OrderEventKind.ORDER_EVENT_KIND_CLOSED, time)

    def _event(self, event_id: str, kind: OrderEventKind.ValueType, time: datetime) -> OrderEvent:
        first = self._rows[0]
        kind_of_buyer = IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID
        return OrderEvent(
            channel=self._channel,
            shop_id=self._shop_id,
            order_id=first.order_id,
            event_id=event_id,
            kind=kind,
            happened_time=to_timestamp(time),
            order_placed_time=to_timestamp(first.placed_time),
            identity=Identity(kind=kind_of_buyer, value=first.buyer) if first.buyer else None,
            currency_code=CURRENCY_CODE,
        )


def _line(row: Row) -> OrderLine:
    return OrderLine(
        line_id=row.line_id,
        sku_id=row.sku_id,
        category_id=row.category_id,
        quantity=row.quantity,
        list_minor=row.price_minor * row.quantity,
        paid_minor=row.paid_minor,
        subsidy_minor=row.subsidy_minor,
    )


def _refund_line(row: Row) -> RefundLine:
    return RefundLine(line_id=row.line_id, refunded_minor=row.refund_minor)


def _latest(time: Callable[[Row], datetime], rows: Iterable[Row]) -> datetime:
    return max(map(time, rows))


def _paid_time(row: Row) -> datetime:
    return row.paid_time or row.placed_time


def _refund_time(row: Row) -> datetime:
    """When it was paid back, or the latest before that of which the row can know no other later."""
    if row.refund_time is not None:
        return row.refund_time
    return max(filter(None, (row.closed_time, row.shipped_time, row.paid_time)))


def _closed_time(row: Row) -> datetime:
    times = (row.placed_time, row.paid_time, row.shipped_time, row.received_time)
    return row.closed_time or max(filter(None, times))
