"""What an order takes in: ids that follow from what happened, repeats, contradictions, limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Invalid, Refused
from svc_commission.rules import admission
from svc_commission.rules.admission import Admission
from svc_commission.rules.event import Event, Kind, Line, RefundLine

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
LINE = Line("A", "sku", "", 1, 100, 100)


def event(kind: Kind, event_id: str = "", **fields: object) -> Event:
    """An event at noon."""
    return Event(event_id or kind.value, kind, NOON, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "event_id"),
    [
        (Kind.PLACED, "PLACED"),
        (Kind.PAID, "PAID:1"),
        (Kind.PAID, "PAID:2026-0310/77"),
        (Kind.SHIPPED, "SHIPPED:SF123"),
        (Kind.RECEIVED, "RECEIVED"),
        (Kind.REFUNDED, "REFUND:9"),
        (Kind.CLOSED, "CLOSED"),
    ],
)
def test_an_id_that_follows_from_what_happened_is_accepted(kind: Kind, event_id: str) -> None:
    """Two feeds that tell of one payment tell it under one id."""
    admission.check_event_id(event(kind, event_id))


@pytest.mark.parametrize(
    ("kind", "event_id"),
    [
        (Kind.PLACED, "PLACED:1"),
        (Kind.PLACED, "placed"),
        (Kind.PAID, "PAID"),
        (Kind.PAID, "PAID:"),
        (Kind.PAID, "REFUND:1"),
        (Kind.SHIPPED, "SHIPPED"),
        (Kind.RECEIVED, "RECEIVED:1"),
        (Kind.REFUNDED, "REFUNDED:1"),
        (Kind.REFUNDED, "REFUND"),
        (Kind.CLOSED, "CLOSED:done"),
        (Kind.CLOSED, "550e8400-e29b-41d4-a716-446655440000"),
    ],
)
def test_an_invented_id_is_refused(kind: Kind, event_id: str) -> None:
    """It would be new at every repeat, and be paid at every repeat."""
    with pytest.raises(Invalid) as invalid:
        admission.check_event_id(event(kind, event_id))
    assert invalid.value.reason == "EVENT_ID_MISMATCH"


def test_the_same_event_again_is_a_duplicate_and_another_under_its_id_is_not() -> None:
    """What contradicts an earlier event is told apart from what repeats it."""
    stored = {"PAID:1": b"one"}
    assert admission.admit(stored, "PAID:2", b"one") is Admission.NEW
    assert admission.admit(stored, "PAID:1", b"one") is Admission.DUPLICATE
    assert admission.admit(stored, "PAID:1", b"two") is Admission.CHANGED


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2"]))))
def test_an_order_keeps_the_first_of_each_id_however_they_come(arriving: list[tuple[str, bytes]]) -> None:
    """Nothing that comes later replaces it."""
    stored: dict[str, bytes] = {}
    for event_id, body in arriving:
        if admission.admit(stored, event_id, body) is Admission.NEW:
            assert event_id not in stored
            stored[event_id] = body
    assert stored == dict(reversed(arriving))


def test_a_full_order_takes_repeats_and_nothing_new() -> None:
    """A feed gone wild fills one order and no disk; what is stored can still be sent again."""
    full = {f"PAID:{number}": b"body" for number in range(admission.EVENTS_MAX)}
    with pytest.raises(Refused) as refused:
        admission.admit(full, "PAID:new", b"body")
    assert refused.value.reason == "ORDER_TOO_LARGE"
    assert admission.admit(full, "PAID:7", b"body") is Admission.DUPLICATE
    assert admission.admit(full, "PAID:7", b"other") is Admission.CHANGED
    del full["PAID:0"]
    assert admission.admit(full, "PAID:new", b"body") is Admission.NEW


@pytest.mark.parametrize(
    ("happened", "placed"), [(NOON, NOON - timedelta(days=1)), (NOON - timedelta(days=1), NOON)]
)
def test_events_of_the_future_are_refused_five_minutes_ahead(happened: datetime, placed: datetime) -> None:
    """Clocks differ by seconds; a date typed wrongly would count in a month that has not begun."""
    told, now = Event("PLACED", Kind.PLACED, happened), NOON - admission.AHEAD_MOST
    admission.check_time(told, placed, now)
    with pytest.raises(Invalid) as invalid:
        admission.check_time(told, placed, now - timedelta(milliseconds=1))
    assert invalid.value.reason == "EVENT_IN_FUTURE"


def test_an_event_of_long_ago_is_taken_in() -> None:
    """A refund two years later is a fact."""
    admission.check_time(event(Kind.PLACED), NOON, NOON + timedelta(days=730))


def test_an_order_is_placed_once() -> None:
    """Two events that disagree on when are two orders, or one mistake."""
    assert admission.check_same_order(NOON, NOON) is None
    error = admission.check_same_order(NOON, NOON + timedelta(milliseconds=1))
    assert error is not None
    assert error.reason == "PLACED_TIME_CHANGED"


def fields(one: Event, channel: str = "POS", shop_id: str = "", store_id: str = "east") -> set[str]:
    """The offending fields of an event."""
    found = admission.problems(
        one.kind,
        [line.line_id for line in one.lines],
        [line.line_id for line in one.refund_lines],
        one.goodwill_minor,
        channel=channel,
        shop_id=shop_id,
        selling_store_id=store_id,
    )
    return {problem.field for problem in found}


def test_somebody_must_have_sold() -> None:
    """On Tmall and Taobao the shop, which names the flagship; elsewhere a shop or a store."""
    placed = event(Kind.PLACED)
    for channel in ("TMALL", "TAOBAO"):
        assert fields(placed, channel, "", "east") == {"shop_id"}
        assert fields(placed, channel, "shop", "") == set()
    for channel in ("POS", "CLOUD_STORE", "MINI_PROGRAM", "OTHER"):
        assert fields(placed, channel, "", "") == {"selling_store_id"}
        assert fields(placed, channel, "shop", "") == set()
        assert fields(placed, channel, "", "east") == set()


def test_amounts_come_with_the_events_that_they_belong_to() -> None:
    """A refund inside a payment would be counted by nobody."""
    assert fields(event(Kind.PAID, "PAID:1")) == {"lines"}
    assert fields(event(Kind.PAID, "PAID:1", lines=(LINE,))) == set()
    assert fields(event(Kind.PLACED, lines=(LINE,))) == set()
    for kind in (Kind.SHIPPED, Kind.RECEIVED, Kind.REFUNDED, Kind.CLOSED):
        assert fields(event(kind, lines=(LINE,))) == {"lines"}
    for kind in (Kind.PLACED, Kind.SHIPPED, Kind.RECEIVED, Kind.CLOSED):
        assert fields(event(kind, goodwill_minor=1)) == {"refund_lines"}
        assert fields(event(kind, refund_lines=(RefundLine("A", 1, 1),))) == {"refund_lines"}
    refunded = event(Kind.REFUNDED, refund_lines=(RefundLine("A", 1, 1),), goodwill_minor=1)
    assert fields(refunded) == set()


def test_a_line_named_twice_in_one_event_is_an_offence() -> None:
    """Whether it was meant as a sum or as a correction nobody can know."""
    assert fields(event(Kind.PAID, "PAID:1", lines=(LINE, LINE))) == {"lines[1].line_id"}
    twice = (RefundLine("A", 1, 1), RefundLine("B", 1, 1), RefundLine("A", 1, 1))
    assert fields(event(Kind.REFUNDED, refund_lines=twice)) == {"refund_lines[2].line_id"}


def test_all_offences_are_named_at_once() -> None:
    """Nobody mends a feed field by field."""
    bad = event(Kind.SHIPPED, lines=(LINE, LINE), goodwill_minor=1)
    assert fields(bad, "TMALL") == {"shop_id", "lines", "refund_lines", "lines[1].line_id"}
