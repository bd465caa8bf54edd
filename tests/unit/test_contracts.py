"""The contracts themselves: every RPC says who may call it, what it does and how it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from daogou.common.v1 import access_pb2, limits_pb2
from daogou.common.v1.access_pb2 import Scope
from daogou.common.v1.limits_pb2 import Format
from tests.messages import every_method

PROTO = Path(__file__).resolve().parent.parent.parent / "proto"
METHODS = {method.full_name: method for method in every_method()}
_READS = re.compile(r"(Get|List|Search|Explain|Resolve|Batch(Get|Resolve))")
_RPC = re.compile(r"((?:^ *//.*\n)+)? *rpc (\w+)\(", re.MULTILINE)


def comments() -> dict[str, str]:
    """What stands above each RPC in the contracts, by its full name."""
    found = {}
    for path in PROTO.rglob("*.proto"):
        text = path.read_text(encoding="utf-8")
        service = re.search(r"^service (\w+)", text, re.MULTILINE)
        package = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
        assert package
        for comment, name in _RPC.findall(text):
            assert service
            found[f"{package[1]}.{service[1]}.{name}"] = " ".join(
                line.strip().removeprefix("//").strip() for line in comment.splitlines()
            )
    return found


COMMENTS = comments()


def fields(descriptor: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    """All fields of a message and of the messages inside it."""
    if descriptor.full_name not in seen and not descriptor.full_name.startswith("google."):
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            yield field
            if field.message_type is not None:
                yield from fields(field.message_type, seen)


def request_fields() -> list[FieldDescriptor]:
    """Every field that a caller can set."""
    seen: set[str] = set()
    return [field for method in METHODS.values() for field in fields(method.input_type, seen)]


def limits_of(field: FieldDescriptor) -> limits_pb2.Limits:
    """The limits that the contract states of a field."""
    return field.GetOptions().Extensions[limits_pb2.limits]


def test_the_contracts_and_the_generated_code_know_the_same_methods() -> None:
    """Code that was not generated anew would serve yesterday's contract."""
    assert METHODS.keys() == COMMENTS.keys()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    """Without the option it is closed to everybody, which is safe and of no use."""
    options = method.GetOptions()
    assert options.HasExtension(access_pb2.access)
    access = options.Extensions[access_pb2.access]
    assert access.roles
    assert access_pb2.ROLE_UNSPECIFIED not in access.roles
    assert len(set(access.roles)) == len(access.roles)
    assert access.scope != Scope.SCOPE_UNSPECIFIED


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_does_and_how_it_fails(name: str) -> None:
    """Its effect in a sentence, and its errors by their reasons, or that it has none of its own."""
    comment = COMMENTS[name]
    assert len(comment) > 40
    assert re.search(r"\bErrors\b", comment), f"{name} does not say which errors it has"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_changes_something_says_what_a_repeat_does(name: str) -> None:
    """Networks repeat; whoever calls must know what comes of it."""
    method = METHODS[name]
    if _READS.match(method.name):
        return
    comment = COMMENTS[name]
    assert re.search(r"[Rr]epeat|request_id|DUPLICATE|again|changes nothing|Every call", comment), (
        f"{name} does not say"
    )


def test_what_only_reads_asks_for_no_request_id() -> None:
    """There is nothing to do once."""
    for method in METHODS.values():
        if _READS.match(method.name):
            assert "request_id" not in method.input_type.fields_by_name, method.full_name


def test_a_request_id_is_required_wherever_there_is_one() -> None:
    """An optional one would be left out, and a repeat would do it twice."""
    for field in request_fields():
        if field.name == "request_id":
            limits = limits_of(field)
            assert limits.required, field.full_name
            assert limits.format == Format.FORMAT_REQUEST_ID, field.full_name


def test_every_stated_limit_is_one_that_servers_check() -> None:
    """A limit that reads well and is not enforced is worse than none."""
    text, message, number = (
        FieldDescriptor.CPPTYPE_STRING,
        FieldDescriptor.CPPTYPE_MESSAGE,
        {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32}
        | {FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT},
    )
    for field in request_fields():
        limits, kind, name = limits_of(field), field.cpp_type, field.full_name
        if limits.required:
            checked = field.is_repeated or field.has_presence or kind in (text, FieldDescriptor.CPPTYPE_ENUM)
            assert checked, f"{name}: a {field.type} without presence cannot be required"
        if limits.format:
            assert kind == text, f"{name}: a format is of a text"
            assert not limits.length_max, f"{name}: a format has its own length"
        if limits.length_max:
            assert kind == text, f"{name}: a length is of a text"
        if limits.HasField("min") or limits.HasField("max"):
            assert kind in number, f"{name}: a range is of a number"
        if limits.items_max or limits.per_item:
            assert field.is_repeated, f"{name}: only a list has items"
        if limits.per_item:
            assert kind == message, f"{name}: only messages are judged by themselves"


def test_every_amount_and_every_list_has_a_most() -> None:
    """An absurd amount is refused at the door, not in the books."""
    for field in request_fields():
        if field.name.endswith(("_minor", "_bp", "_seconds", "_days", "page_size", "quantity")):
            limits = limits_of(field)
            assert limits.HasField("min"), field.full_name
            assert limits.HasField("max"), field.full_name


def test_money_is_never_a_float() -> None:
    """Whole minor units, in messages that come in and in those that go out."""
    seen: set[str] = set()
    for method in METHODS.values():
        for field in [*fields(method.input_type, seen), *fields(method.output_type, seen)]:
            if field.name.endswith("_minor"):
                assert field.type == FieldDescriptor.TYPE_INT64, field.full_name
            if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
                assert field.name in {"latitude", "longitude"}, field.full_name


def test_times_are_named_as_times() -> None:
    """A Timestamp ends in `_time`, and nothing else does."""
    seen: set[str] = set()
    for method in METHODS.values():
        for field in [*fields(method.input_type, seen), *fields(method.output_type, seen)]:
            is_time = field.message_type is not None and field.message_type.name == "Timestamp"
            assert field.name.endswith("_time") == is_time, field.full_name
