"""How long a buyer's identity is kept: until it has answered whose sale it was, or for half a year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chassis.mongo.connection import Document
from svc_commission.order import identities

STORED = datetime(2026, 3, 10, 4, tzinfo=UTC)
SEALED = b"sealed"
MOMENT = timedelta(milliseconds=1)


def order_of(member_id: str | None, *buyers: Document) -> Document:
    """An order that was attributed to a member, to nobody known (empty), or to nobody yet (None)."""
    attribution = None if member_id is None else {"member_id": member_id}
    events = [{"event_id": str(index), "buyer": buyer} for index, buyer in enumerate(buyers)]
    return {"attribution": attribution, "first_stored_time": STORED, "events": events}


def buyers_of(order: Document) -> list[Document]:
    return [event["buyer"] for event in order["events"]]


def test_the_member_takes_the_place_of_the_identity_that_was_his() -> None:
    order = order_of("ben", {}, {"identity": SEALED}, {"member_id": "cid"}, {"identity": SEALED})
    identities.settle(order, STORED)
    assert buyers_of(order) == [{}, {"member_id": "ben"}, {"member_id": "cid"}, {"member_id": "ben"}]
    assert identities.IDENTITY_DUE not in order


def test_an_order_that_was_not_attributed_yet_needs_it_however_old() -> None:
    order = order_of(None, {"identity": SEALED})
    identities.settle(order, STORED + 9 * identities.KEPT)
    assert buyers_of(order) == [{"identity": SEALED}]
    assert identities.IDENTITY_DUE not in order


@pytest.mark.parametrize(
    ("after", "kept"),
    [(timedelta(0), True), (identities.KEPT - MOMENT, True), (identities.KEPT, False)],
)
def test_that_of_a_stranger_is_kept_for_so_long_and_no_longer(after: timedelta, kept: bool) -> None:
    order = order_of("", {"identity": SEALED})
    identities.settle(order, STORED + after)
    assert buyers_of(order) == ([{"identity": SEALED}] if kept else [{}])
    assert order.get(identities.IDENTITY_DUE) == (STORED + identities.KEPT if kept else None)


def test_a_stranger_who_became_known_is_kept_no_longer() -> None:
    order = order_of("", {"identity": SEALED})
    identities.settle(order, STORED)
    order["attribution"] = {"member_id": "ben"}
    identities.settle(order, STORED)
    assert buyers_of(order) == [{"member_id": "ben"}]
    assert identities.IDENTITY_DUE not in order


def test_an_event_is_never_changed_in_place() -> None:
    """Who reads it again for another attempt must find it whole."""
    event = {"event_id": "1", "buyer": {"identity": SEALED}}
    order = order_of("ben") | {"events": [event]}
    identities.settle(order, STORED)
    assert event["buyer"] == {"identity": SEALED}
