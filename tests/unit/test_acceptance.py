"""Whether a message is acceptable one piece of code decides and another explains: they must agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.errors import Violation
from chassis.rpc import limits
from chassis.rpc.acceptance import Decisions
from daogou.commission.v1.order_event_pb2 import OrderEvent, OrderLine
from daogou.commission.v1.plan_pb2 import Match, Plan, Rule
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1.guide_code_pb2 import ScanGuideCodeRequest
from daogou.members.v1.member_pb2 import EnrolMemberRequest
from tests.messages import Accepted, Hostile, every_method, limits_of, message_of

ID: Final = "abcdefghijklmn27"
DECISIONS: Final = Decisions({})


def _within(descriptor: Descriptor, found: dict[str, Descriptor]) -> dict[str, Descriptor]:
    """The type and all types that it holds, by name."""
    if descriptor.full_name not in found:
        found[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                _within(field.message_type, found)
    return found


_BY_NAME: Final[dict[str, Descriptor]] = {}
for _method in every_method():
    _within(_method.input_type, _BY_NAME)
TYPES: Final = [_BY_NAME[name] for name in sorted(_BY_NAME)]
"""Every type of message that a request may hold, and every request."""


def agreed(message: Message) -> bool:
    """Whether the message is acceptable, on which both have the same opinion."""
    accepted = DECISIONS[message.DESCRIPTOR](message)
    assert accepted is (limits._listed(message, "") == [])
    return accepted


def at_its_bounds(field: FieldDescriptor) -> list[Any]:
    """The last values of a field that its contract accepts, and the first that it does not."""
    accepted = limits_of(field)
    if field.message_type is not None:
        return [message_of(field.message_type)]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        longest = accepted.length_max or 256
        lengths = {0, 1, 7, 8, 15, 16, 17, 64, 65, longest, longest + 1}
        texts = [letter * length for length in lengths for letter in "a店"]
        texts += [f"{letter}{ID[1:]}" for letter in "\n\t |\u2028\x85A2é"] + [
            f"{ID}\n",
            f"\n{ID}",
            "CNY",
            "UTC",
        ]
        return [text.encode() for text in texts] if field.type == FieldDescriptor.TYPE_BYTES else texts
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        last = max(field.enum_type.values_by_number)
        return [-1, 0, 1, last, last + 1]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return [False, True]
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        bounds: list[Any] = [float(accepted.min), float(accepted.max)]
        return [*bounds, bounds[0] - 0.5, bounds[1] + 0.5, float("nan"), float("inf")]
    # Seconds and nanos of a time have their bounds not from the contract.
    known = {"seconds": 253_402_300_799, "nanos": 999_999_999}
    most = known.get(field.name, accepted.max)
    return [accepted.min - 1, accepted.min, most, most + 1, 0, 1]


def moved(message: Message, field: FieldDescriptor) -> Iterator[Message]:
    """The message with other values of one field: at its bounds, none, empty ones, many."""
    if field.is_repeated:
        most = limits_of(field).items_max or 1000
        changes = [
            [],
            *([value] for value in at_its_bounds(field)),
            *[at_its_bounds(field)[:1] * (most + more) for more in (0, 1)],
        ]
    else:
        changes = [None, *at_its_bounds(field)]
    for change in changes:
        made: Any = message_of(message.DESCRIPTOR)
        made.CopyFrom(message)
        made.ClearField(field.name)
        try:
            if field.is_repeated:
                getattr(made, field.name).extend(change)
            elif isinstance(change, Message):
                getattr(made, field.name).CopyFrom(change)
            elif change is not None:
                setattr(made, field.name, change)
        except ValueError:
            continue  # Beyond what the field's type holds: nobody can send it either.
        yield made


@pytest.mark.parametrize("descriptor", TYPES, ids=lambda one: one.full_name)
def test_nothing_and_the_least_are_agreed_on(descriptor: Descriptor) -> None:
    """Nothing may be acceptable. What has all that is required is."""
    agreed(message_of(descriptor))
    assert agreed(Accepted({}).message(descriptor))


@given(st.sampled_from(TYPES), st.integers(0, 2**32))
def test_they_agree_on_what_comes_from_a_careful_caller(descriptor: Descriptor, seed: int) -> None:
    """Whatever he sets of it."""
    assert agreed(Accepted({}, draw=random.Random(seed)).message(descriptor))


@pytest.mark.parametrize("descriptor", TYPES, ids=lambda one: one.full_name)
def test_they_agree_at_the_bounds_of_every_field(descriptor: Descriptor) -> None:
    """A limit is off by one in one of the two sooner than by much."""
    draw = random.Random(descriptor.full_name)
    for field in descriptor.fields:
        # Once with the least beside it, and now and then with a mask that names it.
        for accepted in (Accepted({}), *(Accepted({}, draw=draw) for _ in range(3))):
            for message in moved(accepted.message(descriptor), field):
                agreed(message)


@given(st.sampled_from(TYPES), st.integers(0, 2**32))
def test_they_agree_on_hostile_messages(descriptor: Descriptor, seed: int) -> None:
    """Whoever sends one must not get by the quick look, nor be refused without a reason."""
    agreed(Hostile(random.Random(seed), {}).message(descriptor))


@given(st.sampled_from(TYPES), st.integers(0, 2**32))
def test_they_agree_on_what_is_left_after_an_accident_on_the_way(descriptor: Descriptor, seed: int) -> None:
    """Fields twice, fields unknown, fields that are set and empty: as far as it is a message at all."""
    hostile, message = Hostile(random.Random(seed), {}), message_of(descriptor)
    try:
        message.ParseFromString(hostile.bytes_of(hostile.message(descriptor)))
    except DecodeError:
        return
    agreed(message)


@given(st.lists(st.text(st.sampled_from("a\n|"), max_size=3), min_size=3, max_size=3))
@example(["", "a\na", "a"])
@example(["a\na", "", ""])
def test_a_line_break_does_not_lend_a_field_the_value_of_the_next(texts: list[str]) -> None:
    """The texts of a message are looked at in one go, one on each line."""
    line_id, sku_id, category_id = texts
    good = all(set(text) <= {"a"} for text in texts) and "" not in (line_id, sku_id)
    line = OrderLine(line_id=line_id, sku_id=sku_id, category_id=category_id, quantity=1)
    assert agreed(line) is good


def test_a_list_that_is_too_long_is_refused_however_good() -> None:
    """Up to the very limit it is not."""
    many = [Identity(kind=8, value="77")] * 10
    assert agreed(EnrolMemberRequest(brand_id=ID, identities=many))
    assert not agreed(EnrolMemberRequest(brand_id=ID, identities=[*many, many[0]]))
    assert not agreed(Plan(rules=[Rule(match=Match(category_ids=["a"] * 1001))]))


def test_a_type_that_holds_itself_is_looked_at_to_the_bottom() -> None:
    """Its decision is there before it is finished."""
    leaf = DescriptorProto(name="leaf")
    assert agreed(DescriptorProto(name="root", nested_type=[DescriptorProto(nested_type=[leaf])]))
    leaf.name = "le\naf"
    assert not agreed(DescriptorProto(name="root", nested_type=[DescriptorProto(nested_type=[leaf])]))


def test_a_rule_of_a_type_counts_wherever_a_message_of_it_stands() -> None:
    """Once the limits hold: it may rely on them."""
    asked: list[str] = []

    def rule(identity: Identity, prefix: str) -> list[Violation]:
        asked.append(identity.value)
        return [Violation(f"{prefix}value", "is not ours")] if identity.value == "other" else []

    decisions = Decisions({Identity.DESCRIPTOR: rule})
    scan = ScanGuideCodeRequest(brand_id=ID, code="c", identity=Identity(kind=8, value="ours"))
    assert decisions[scan.DESCRIPTOR](scan)
    scan.identity.value = "other"
    assert not decisions[scan.DESCRIPTOR](scan)
    scan.identity.value = "a\nb"
    assert not decisions[scan.DESCRIPTOR](scan)
    assert asked == ["ours", "other"]


def test_a_rule_counts_also_from_a_type_that_was_looked_at_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services add their rules when they start, each in its turn."""
    rules: dict[object, Any] = {}
    monkeypatch.setattr(limits, "_RULES", rules)
    monkeypatch.setattr(limits, "_DECISIONS", Decisions(rules))
    event = OrderEvent(channel=4, order_id="1", event_id="PLACED", kind=1, currency_code="CNY")
    event.happened_time.seconds = event.order_placed_time.seconds = 1
    assert limits.violations(event) == []
    said = Violation("lines", "are missing")
    limits.also_check(OrderEvent, lambda message, prefix: [said])
    assert limits.violations(event) == [said]
