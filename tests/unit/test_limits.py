"""The limits that contracts state: what passes, what does not, and that every offending field is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.rpc import limits
from daogou.commission.v1.order_event_pb2 import IngestOrderEventsRequest, OrderEvent, OrderLine
from daogou.commission.v1.plan_pb2 import Match, PayeeRole, Plan, PublishPlanRequest, Rule, Share
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import GeoPoint
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1.binding_pb2 import BatchResolveBindingsRequest, BindingQuery
from daogou.members.v1.directory_pb2 import (
    BindingPolicy,
    Brand,
    CreateBrandRequest,
    CreateStoreRequest,
    OpeningHours,
    ShopAccount,
    Store,
    UpdateBrandRequest,
    UpdateStoreRequest,
)
from daogou.members.v1.guide_code_pb2 import CreateGuideCodeRequest, ScanGuideCodeRequest
from daogou.members.v1.member_pb2 import EnrolMemberRequest, GetMemberRequest, RevealIdentityRequest

ID = "abcdefghijklmn27"


def offending(message: Message) -> list[str]:
    """The fields that the contract does not accept."""
    return [violation.field for violation in limits.violations(message)]


def brand(**fields: Any) -> CreateBrandRequest:
    """A request to open a brand."""
    return CreateBrandRequest(request_id="request-1", brand=Brand(**{"display_name": "Brand", **fields}))


def store(**fields: Any) -> CreateStoreRequest:
    """A request to open a store."""
    good: dict[str, Any] = {"display_name": "Store", "kind": 1, "location": place()}
    return CreateStoreRequest(brand_id=ID, request_id="request-1", store=Store(**{**good, **fields}))


def place(**fields: Any) -> GeoPoint:
    """Somewhere in Shanghai."""
    return GeoPoint(**{"latitude": 31.2, "longitude": 121.5, "datum": 2, **fields})


def code(**fields: Any) -> CreateGuideCodeRequest:
    """A request for a guide code."""
    return CreateGuideCodeRequest(**{"brand_id": ID, "store_id": ID, "guide_id": ID, **fields})


def event(**fields: Any) -> OrderEvent:
    """An order event; checked item by item."""
    good: dict[str, Any] = {
        "channel": 4,
        "order_id": "1",
        "event_id": "PLACED",
        "kind": 1,
        "happened_time": Timestamp(seconds=1),
        "order_placed_time": Timestamp(seconds=1),
        "currency_code": "CNY",
    }
    return OrderEvent(**{**good, **fields})


def plan(**match: Any) -> PublishPlanRequest:
    """A request to publish a plan of one rule."""
    rule = Rule(
        rule_id="r",
        match=Match(**match),
        rate_bp=300,
        shares=[Share(role=PayeeRole.PAYEE_ROLE_OWNER, share_bp=10_000)],
    )
    return PublishPlanRequest(
        brand_id=ID, request_id="request-1", plan=Plan(display_name="Plan", rules=[rule])
    )


def card(**fields: Any) -> Identity:
    """A member card."""
    return Identity(**{"kind": 8, "value": "77", **fields})


def time(seconds: int, nanos: int = 0) -> dict[str, Any]:
    """A moment that an event happened at."""
    return {"happened_time": Timestamp(seconds=seconds, nanos=nanos)}


# Per kind of limit: how to make a request with a value, the field, values that pass, values that do not.
TABLE: dict[str, tuple[Callable[[Any], Message], str, list[Any], list[Any]]] = {
    "an id": (
        lambda value: code(guide_id=value),
        "guide_id",
        [ID, "2345672345672345"],
        ["a", ID + "a", ID.upper(), "abcdefghijklmn01", ID + "\n", f" {ID[1:]}", "ａ" + ID[1:]],
    ),
    "another system's id": (
        lambda value: event(order_id=value),
        "order_id",
        ["1", "订单-1", "a/b:c,d=e", "x" * 64],
        ["", "x" * 65, "a b", "a|b", "a\tb", "a\nb", "a\u2028b", "a\u00a0b", "a\x00", "a\x85", "\x1b[31m"],
    ),
    "a request's name": (
        lambda value: CreateBrandRequest(request_id=value, brand=Brand(display_name="Brand")),
        "request_id",
        ["12345678", "x" * 64, "550e8400-e29b-41d4-a716-446655440000", "A.b_c-99"],
        ["", "1234567", "x" * 65, "12345678\n", "1234 5678", "12345678é", "1234|5678"],
    ),
    "a currency": (
        lambda value: event(currency_code=value),
        "currency_code",
        ["CNY", "USD", "JPY"],
        ["", "cny", "RMB", "CNYX", "C", "¥"],
    ),
    "a time zone": (
        lambda value: brand(business_time_zone=value),
        "brand.business_time_zone",
        ["", "Asia/Shanghai", "America/New_York", "UTC"],
        ["Shanghai", "UTC+8", "asia/shanghai", "../../etc/passwd", "/etc/localtime"],
    ),
    "a name for people": (
        lambda value: brand(display_name=value),
        "brand.display_name",
        ["a", "店" * 100, "O'Neill & Söhne — 老凤祥"],
        ["", "a" * 101, "店" * 101, "a\nb", "a\x00b", "a\x7fb", "a\x85b", "a\u2028b", "\x1b[2J"],
    ),
    "a text without a limit of its own": (
        lambda value: store(brand_id=value),
        "store.brand_id",
        ["", "a" * 256],
        ["a" * 257, "a\nb"],
    ),
    "a whole number": (
        lambda value: code(ttl_seconds=value),
        "ttl_seconds",
        [0, 1, 31_622_400],
        [-1, 31_622_401, 2**31 - 1, -(2**31)],
    ),
    "an amount": (
        lambda value: event(goodwill_minor=value),
        "goodwill_minor",
        [0, 10**12],
        [-1, 10**12 + 1, 2**63 - 1, -(2**63)],
    ),
    "a number that may be absent": (
        lambda value: brand(binding_policy=BindingPolicy(protection_days=value)),
        "brand.binding_policy.protection_days",
        [None, -1, 0, 3650],
        [-2, 3651],
    ),
    "degrees": (
        lambda value: store(location=place(latitude=value)),
        "store.location.latitude",
        [-90.0, 0.0, 90.0],
        [90.000001, -91.0, math.nan, math.inf, -math.inf],
    ),
    "one of the contract's values": (
        lambda value: store(kind=value),
        "store.kind",
        [1, 2, 3],
        [0, 4, 99, -1],
    ),
    "one of the contract's values, or none": (
        lambda value: brand(binding_policy=BindingPolicy(snatch=value)),
        "brand.binding_policy.snatch",
        [0, 1, 3],
        [4, -1],
    ),
    "a time": (
        lambda value: event(**value),
        "happened_time",
        [time(0), time(1_773_115_200, 999_999_999), time(253_402_300_799)],
        [time(-1), time(253_402_300_800), time(0, -1), time(0, 10**9), {"happened_time": None}],
    ),
    "a message": (
        lambda value: ScanGuideCodeRequest(brand_id=ID, code="c", identity=value),
        "identity",
        [card()],
        [None],
    ),
    "a list with a least and a most": (
        lambda value: EnrolMemberRequest(brand_id=ID, identities=[card()] * value),
        "identities",
        [1, 10],
        [0, 11],
    ),
    "a list that may be empty": (
        lambda value: store(opening_hours=[OpeningHours(weekday=1, close_minute=1)] * value),
        "store.opening_hours",
        [0, 28],
        [29],
    ),
    "one of several": (
        lambda value: GetMemberRequest(brand_id=ID, **value),
        "member",
        [{"member_id": ID}, {"identity": card()}],
        [{}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLE)
def test_what_the_contract_accepts_passes(kind: str) -> None:
    """Up to the very limit."""
    made, _, good, _ = TABLE[kind]
    for value in good:
        assert offending(made(value)) == [], value


@pytest.mark.parametrize("kind", TABLE)
def test_what_the_contract_does_not_accept_is_named(kind: str) -> None:
    """That field, by its path in the request, and no other."""
    made, field, _, bad = TABLE[kind]
    for value in bad:
        assert offending(made(value)) == [field], value


def test_every_offending_field_is_named_at_once() -> None:
    """Nobody mends a request field by field."""
    good, bad = ShopAccount(channel=Channel.CHANNEL_POS, shop_id="ok"), ShopAccount(shop_id="a b")
    wrong = Store(location=place(latitude=99, datum=0), shops=[good, bad], address="x" * 301)
    request = CreateStoreRequest(brand_id="brand", store=wrong)
    assert sorted(offending(request)) == [
        "brand_id",
        "request_id",
        "store.address",
        "store.display_name",
        "store.kind",
        "store.location.datum",
        "store.location.latitude",
        "store.shops[1].channel",
        "store.shops[1].shop_id",
    ]


def test_an_empty_request_is_told_all_that_it_lacks() -> None:
    """Also that a list and a choice are missing."""
    assert sorted(offending(PublishPlanRequest())) == ["brand_id", "plan", "request_id"]
    assert sorted(offending(GetMemberRequest())) == ["brand_id", "member"]
    assert sorted(offending(RevealIdentityRequest())) == ["brand_id", "kind", "member_id", "purpose"]


def test_no_violation_repeats_a_value_that_may_be_secret() -> None:
    """Errors end up in logs: a phone number or a card number in the wrong field must not."""
    secret = "13812345678" * 20
    for request in [code(guide_id=secret), event(order_id=secret), store(display_name=secret)]:
        [violation] = limits.violations(request)
        assert secret not in violation.description


def test_items_of_a_list_are_each_held_to_the_fields_limits() -> None:
    """By their place."""
    assert offending(plan(category_ids=["shoes", "a b", "", "x" * 65])) == [
        "plan.rules[0].match.category_ids[1]",
        "plan.rules[0].match.category_ids[2]",
        "plan.rules[0].match.category_ids[3]",
    ]


def test_an_item_of_a_list_of_values_must_be_one_of_the_contracts() -> None:
    """A list holds what is meant: its items are never unspecified."""
    assert offending(plan(channels=[1, 6])) == []
    assert offending(plan(channels=[1, 99])) == ["plan.rules[0].match.channels[1]"]
    assert offending(plan(channels=[1, 0])) == ["plan.rules[0].match.channels[1]"]


def test_a_list_that_is_too_long_is_not_looked_through() -> None:
    """One line says so, instead of a line for each of a million bad items."""
    assert offending(plan(category_ids=["a b"] * 1001)) == ["plan.rules[0].match.category_ids"]


def test_items_that_a_method_judges_by_itself_do_not_fail_the_request() -> None:
    """Their number still counts, where the contract limits it."""
    bad = BindingQuery()
    assert offending(BatchResolveBindingsRequest(brand_id=ID, queries=[bad] * 1000)) == []
    assert offending(BatchResolveBindingsRequest(brand_id=ID, queries=[bad] * 1001)) == ["queries"]
    assert offending(BatchResolveBindingsRequest(brand_id=ID)) == ["queries"]
    assert offending(IngestOrderEventsRequest(brand_id=ID, events=[OrderEvent()] * 2000)) == []


def test_a_judged_item_is_named_by_its_own_paths() -> None:
    """The reply of a batch says which item it was; the path begins inside it."""
    assert sorted(offending(OrderEvent(lines=[OrderLine()]))) == [
        "channel",
        "currency_code",
        "event_id",
        "happened_time",
        "kind",
        "lines[0].line_id",
        "lines[0].quantity",
        "lines[0].sku_id",
        "order_id",
        "order_placed_time",
    ]


def update(*paths: str, **fields: Any) -> UpdateStoreRequest:
    """A request to change a store."""
    return UpdateStoreRequest(
        brand_id=ID,
        store_id=ID,
        request_id="request-1",
        store=Store(**fields),
        update_mask=FieldMask(paths=paths),
    )


def test_an_update_is_held_to_its_masked_fields_alone() -> None:
    """Who changes an address need not send name and kind again."""
    assert offending(update("address", address="1 Nanjing Road")) == []
    assert offending(update("address", address="x" * 301, display_name="x" * 101)) == ["store.address"]
    assert offending(update("display_name")) == ["store.display_name"]
    assert offending(update("location", location=place(longitude=181))) == ["store.location.longitude"]
    assert offending(update("address", "address", address="x" * 301)) == ["store.address"]


@pytest.mark.parametrize("path", ["nonsense", "location.latitude", "", "*", "Address", "x" * 10_000])
def test_a_mask_that_names_no_field_is_an_offence(path: str) -> None:
    """Else a typing mistake would change nothing and say OK."""
    [violation] = limits.violations(update(path))
    assert violation.field == "update_mask"
    assert len(violation.description) < 200


def test_an_update_without_a_mask_is_an_offence() -> None:
    """It would change nothing, or everything."""
    assert set(offending(update(address="1 Nanjing Road"))) == {"update_mask"}
    assert set(offending(UpdateBrandRequest(brand_id=ID, request_id="request-1"))) == {"brand", "update_mask"}


def test_broken_text_does_not_get_in() -> None:
    """Half a character is no text: neither our own code nor a caller can put one into a message."""
    with pytest.raises(UnicodeEncodeError):
        Brand(display_name="a\ud800b")
    with pytest.raises(DecodeError):
        Brand.FromString(b"\x12\x05a\xed\xa0\x80b")
