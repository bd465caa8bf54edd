"""The sales that `bench.commission` reports: orders told by their numbers, with four events each.

Half of what a brand sells goes through its flagship on Tmall, the rest through its own online shops and its
tills; most buyers are some guide's members, some are unknown, some anonymous. The events of many orders come
mixed, as they happen: an order's placing and payment mostly in one call, its dispatch and receipt in others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from bench.members_data import NEW_FROM, BenchBrand, phone
from chassis.times import to_timestamp
from daogou.commission.v1 import order_event_pb2, plan_pb2
from daogou.commission.v1.order_event_pb2 import OpenedShareLink, OrderEvent, OrderEventKind, OrderLine
from daogou.common.v1.channel_pb2 import Channel
from svc_commission.order.documents import channel_name
from svc_commission.order.store_order import order_key

EVENTS_OF_ORDER: Final = 4
EVENTS_OF_CALL: Final = 1000
CURRENCY: Final = "CNY"
SHOP_ID: Final = "bench-flagship"
_ONLINE: Final = (
    Channel.CHANNEL_TMALL,
    Channel.CHANNEL_TMALL,
    Channel.CHANNEL_TMALL,
    Channel.CHANNEL_TMALL,
    Channel.CHANNEL_TMALL,
    Channel.CHANNEL_CLOUD_STORE,
    Channel.CHANNEL_CLOUD_STORE,
    Channel.CHANNEL_MINI_PROGRAM,
)
_HELD_DAYS: Final = 60
"""So long that none of the orders is confirmed meanwhile."""
_TILL_OF: Final = 10
"""One order of so many is bought at a till."""
_UNKNOWN_OF: Final = 9
_KINDS: Final = {
    "PLACED": OrderEventKind.ORDER_EVENT_KIND_PLACED,
    "PAID": OrderEventKind.ORDER_EVENT_KIND_PAID,
    "SHIPPED": OrderEventKind.ORDER_EVENT_KIND_SHIPPED,
    "RECEIVED": OrderEventKind.ORDER_EVENT_KIND_RECEIVED,
    "REFUND": OrderEventKind.ORDER_EVENT_KIND_REFUNDED,
}
"""By what an event's id begins with."""
Happening: TypeAlias = tuple[str, timedelta, dict[str, Any]]
"""An event's id, how long after the order was placed it happened, and what it says."""
_BETWEEN: Final = timedelta(seconds=20)
"""One order and the next: some 4,300 a day, so that a call's worth of events is a few hours' at most."""


def plan() -> plan_pb2.Plan:
    """Several payees a line, and what is sold online held."""
    owner = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=6000)
    serving = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_SERVING, share_bp=2500)
    referrer = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_REFERRER_1, share_bp=1000)
    manager = plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_STORE_MANAGER, share_bp=500)
    online = (Channel.CHANNEL_TMALL, Channel.CHANNEL_CLOUD_STORE, Channel.CHANNEL_MINI_PROGRAM)
    return plan_pb2.Plan(
        display_name="Bench",
        rules=[
            plan_pb2.Rule(
                rule_id="shoes",
                rate_bp=500,
                shares=[owner, serving, referrer, manager],
                match=plan_pb2.Match(category_ids=["shoes"]),
            ),
            plan_pb2.Rule(rule_id="all", rate_bp=300, shares=[owner, serving, referrer, manager]),
        ],
        holds=[plan_pb2.Hold(channel=channel, days=_HELD_DAYS) for channel in online],
    )


@dataclass(frozen=True)
class Reported:
    """A call that reports events, and the keys of their orders."""

    request: bytes
    keys: frozenset[str]


@dataclass(frozen=True)
class Sales:
    """A brand's orders from `since` on. Its first `members` members buy again and again."""

    brand: BenchBrand
    members: int
    since: datetime

    def calls(self, first: int) -> Iterator[Reported]:
        """What happens to the orders from one on, as it happens, in calls of `EVENTS_OF_CALL`; no end."""
        stream = self._stream(first)
        while events := list(itertools.islice(stream, EVENTS_OF_CALL)):
            request = order_event_pb2.IngestOrderEventsRequest(brand_id=self.brand.brand_id, events=events)
            keys = frozenset(
                order_key(self.brand.brand_id, channel_name(event.channel), event.order_id)
                for event in events
            )
            yield Reported(request.SerializeToString(), keys)

    def _stream(self, first: int) -> Iterator[OrderEvent]:
        """Events by when they happened. Of one moment, those of the earlier order first."""
        coming: list[tuple[int, int, int, OrderEvent]] = []
        for number in itertools.count(first):
            placed_time = self.since + _BETWEEN * (number - first)
            for place, event in enumerate(self._events(number, placed_time)):
                heappush(coming, (event.happened_time.seconds, number, place, event))
            while coming[0][0] <= placed_time.timestamp():
                yield heappop(coming)[-1]

    def _events(self, number: int, placed_time: datetime) -> list[OrderEvent]:
        """What happens to an order."""
        draw = random.Random(number)  # noqa: S311 -- the same orders in every run
        at_till = draw.randrange(_TILL_OF) == 0
        fields = self._till(draw) if at_till else self._online(number, draw, placed_time)
        fields |= {"order_id": f"bench-{number:010d}", "order_placed_time": to_timestamp(placed_time)}
        return [
            OrderEvent(
                event_id=event_id,
                kind=_KINDS[event_id.partition(":")[0]],
                happened_time=to_timestamp(placed_time + after),
                currency_code=CURRENCY,
                **fields,
                **more,
            )
            for event_id, after, more in _story(draw, at_till=at_till)
        ]

    def _till(self, draw: random.Random) -> dict[str, Any]:
        guide_id, store_id = draw.choice(self.brand.guides)
        fields = {"channel": Channel.CHANNEL_POS, "selling_store_id": store_id, "serving_guide_id": guide_id}
        anonymous = draw.randrange(2) == 0
        return fields if anonymous else fields | {"member_id": self._member_id(draw)}

    def _online(self, number: int, draw: random.Random, placed_time: datetime) -> dict[str, Any]:
        channel = draw.choice(_ONLINE)
        if channel == Channel.CHANNEL_TMALL:
            unknown = draw.randrange(_UNKNOWN_OF) == 0
            buyer = NEW_FROM + number if unknown else draw.randrange(self.members)
            return {"channel": channel, "shop_id": SHOP_ID, "identity": phone(buyer)}
        guide_id, store_id = draw.choice(self.brand.guides)
        opened = OpenedShareLink(
            open_time=to_timestamp(placed_time - timedelta(hours=1)), maker_guide_id=guide_id
        )
        return {
            "channel": channel,
            "selling_store_id": store_id,
            "member_id": self._member_id(draw),
            "share_link": opened,
        }

    def _member_id(self, draw: random.Random) -> str:
        return self.brand.member_id(draw.randrange(self.members))


def _lines(draw: random.Random) -> list[OrderLine]:
    lines = []
    for number in range(draw.choice((1, 2, 2, 3))):
        list_minor = draw.randrange(5_000, 200_000)
        lines.append(
            OrderLine(
                line_id=f"{number + 1}",
                sku_id=f"sku-{draw.randrange(5000):05d}",
                category_id=draw.choice(("shoes", "coats", "bags")),
                quantity=1,
                list_minor=list_minor,
                paid_minor=list_minor * draw.randrange(60, 101) // 100,
            )
        )
    return lines


def _story(draw: random.Random, *, at_till: bool) -> list[Happening]:
    """Ids of an order's events, when after it was placed they happened, and what they say."""
    lines = _lines(draw)
    begun: list[Happening] = [
        ("PLACED", timedelta(0), {"lines": lines}),
        ("PAID:1", timedelta(minutes=0 if at_till else 2), {"lines": lines}),
    ]
    sent: Happening = ("SHIPPED:1", timedelta(minutes=draw.randrange(1200, 1700)), {})
    received: Happening = (
        "RECEIVED",
        timedelta(0) if at_till else timedelta(minutes=draw.randrange(2800, 3500)),
        {},
    )
    back = order_event_pb2.RefundLine(line_id="1", refunded_minor=lines[0].paid_minor, quantity=1)
    returned = ("REFUND:1", timedelta(minutes=draw.randrange(3500, 4200)), {"refund_lines": [back]})
    goodwill = ("REFUND:1", timedelta(minutes=draw.randrange(3500, 4200)), {"goodwill_minor": 1000})
    if at_till:
        return [*begun, received, returned if draw.randrange(2) else goodwill]
    return [*begun, sent, returned if draw.randrange(5) == 0 else received]
