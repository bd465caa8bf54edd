"""Checks a request against the limits that its contract states, and names every offending field at once.

The checks of a message type are compiled once, from the options `(daogou.common.v1.limits)`.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from babel.numbers import list_currencies
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from chassis.errors import Violation
from daogou.common.v1 import limits_pb2
from daogou.common.v1.limits_pb2 import Format, Limits

ITEMS_MAX: Final = 1000
LENGTH_MAX: Final = 256

M = TypeVar("M", bound=Message)
Found = list[Violation]
FieldCheck = Callable[[Message, str, Found], None]
ValueCheck = Callable[[Any, str, Found], None]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PATTERNS: Final = {
    Format.FORMAT_ID: (re.compile(r"[a-z2-7]{16}"), "must be an id: 16 characters of a-z and 2-7"),
    Format.FORMAT_EXTERNAL_ID: (
        re.compile(r"[^\s|\x00-\x1f\x7f-\x9f]{1,64}"),
        "must be 1 to 64 characters, neither spaces, control characters nor |",
    ),
    Format.FORMAT_REQUEST_ID: (
        re.compile(r"[A-Za-z0-9._-]{8,64}"),
        "must be 8 to 64 characters of letters, digits, '-', '_' and '.'",
    ),
}
# 0001-01-01 and 9999-12-31: what a google.protobuf.Timestamp may hold; we begin at 1970.
_TIMESTAMP_SECONDS_MAX: Final = 253_402_300_799


class TooMany(Violation):
    """More items than accepted. Nothing has looked at them, and nothing should: it would take too long."""

    __slots__ = ()


_RULES: dict[object, Callable[[Any, str], Found]] = {}


def also_check(message_type: type[M], problems: Callable[[M, str], Found]) -> None:
    """Has a rule that limits cannot say looked at together with them, wherever a message of the type stands.

    `problems` gets the message and what its fields' paths begin with.
    """
    _RULES[message_type.DESCRIPTOR] = problems


def violations(message: Message, prefix: str = "") -> Found:
    """Every field of the message that its contract does not accept. Paths begin with `prefix`."""
    found: Found = []
    for check in _checks(message.DESCRIPTOR):
        check(message, prefix, found)
    rule = _RULES.get(message.DESCRIPTOR)
    if rule is not None and not (found and any(isinstance(one, TooMany) for one in found)):
        found += rule(message, prefix)
    return found


@cache
def _checks(descriptor: Descriptor) -> tuple[FieldCheck, ...]:
    # To protobuf a field that is `optional` is a oneof of its own.
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1 or _is_required(oneof)]
    apart = {field.name for oneof in oneofs for field in oneof.fields}
    checks = [_field_check(field) for field in descriptor.fields if field.name not in apart]
    checks += [_oneof_check(oneof) for oneof in oneofs]
    if "update_mask" in descriptor.fields_by_name:
        checks.append(_mask_check(descriptor))
    return tuple(check for check in checks if check is not None)


def _oneof_check(oneof: OneofDescriptor) -> FieldCheck:
    """Checks the one field that is set, and asks once which that is."""
    name, required = oneof.name, _is_required(oneof)
    description = f"one of {', '.join(field.name for field in oneof.fields)} is required"
    checks = {field.name: _field_check(field) for field in oneof.fields}

    def check(message: Message, prefix: str, found: Found) -> None:
        field = message.WhichOneof(name)
        if field is None:
            if required:
                found.append(Violation(prefix + name, description))
        elif (field_check := checks[field]) is not None:
            field_check(message, prefix, found)

    return check


def _is_required(oneof: OneofDescriptor) -> bool:
    return oneof.GetOptions().Extensions[limits_pb2.oneof_required]


def _mask_check(descriptor: Descriptor) -> FieldCheck:
    """Checks only the masked fields of the resource beside an update mask, and the mask itself."""
    resource = next(
        field for field in descriptor.fields if field.message_type is not None and field.name != "update_mask"
    )
    by_name = {field.name: _field_check(field) for field in _message_type(resource).fields}

    def check(message: Message, prefix: str, found: Found) -> None:
        value = getattr(message, resource.name)
        paths = list(getattr(message, "update_mask").paths)  # noqa: B009 - the message's type is dynamic
        if not paths:
            found.append(Violation(f"{prefix}update_mask", "names no field to change"))
        for path in dict.fromkeys(paths):
            if path not in by_name:
                found.append(
                    Violation(f"{prefix}update_mask", f"{path!r:.80} is no field that can be changed")
                )
            elif (field_check := by_name[path]) is not None:
                field_check(value, f"{prefix}{resource.name}.", found)

    return check


def _field_check(field: FieldDescriptor) -> FieldCheck | None:
    limits = field.GetOptions().Extensions[limits_pb2.limits]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        raise ValueError(f"{field.full_name}: limits of maps are not supported")
    under_mask = (
        field.containing_type is not None
        and "update_mask" in field.containing_type.fields_by_name
        and field.message_type is not None
        and field.name != "update_mask"
    )
    value_check = None if under_mask else _value_check(field, limits)
    if field.is_repeated:
        return _repeated_check(field.name, limits, value_check)
    if field.has_presence:
        return _optional_check(field.name, limits, value_check)
    return _plain_check(field, limits, value_check)


def _repeated_check(name: str, limits: Limits, value_check: ValueCheck | None) -> FieldCheck:
    items_max = limits.items_max or (None if limits.per_item else ITEMS_MAX)

    def check(message: Message, prefix: str, found: Found) -> None:
        items = getattr(message, name)
        if limits.required and not items:
            found.append(Violation(prefix + name, "is required"))
        if items_max is not None and len(items) > items_max:
            found.append(TooMany(prefix + name, f"must have at most {items_max} items, not {len(items)}"))
        elif value_check is not None and not limits.per_item:
            for index, item in enumerate(items):
                value_check(item, f"{prefix}{name}[{index}]", found)

    return check


def _optional_check(name: str, limits: Limits, value_check: ValueCheck | None) -> FieldCheck:
    def check(message: Message, prefix: str, found: Found) -> None:
        if message.HasField(name):
            if value_check is not None:
                value_check(getattr(message, name), prefix + name, found)
        elif limits.required:
            found.append(Violation(prefix + name, "is required"))

    return check


def _plain_check(field: FieldDescriptor, limits: Limits, value_check: ValueCheck | None) -> FieldCheck | None:
    name, required = field.name, limits.required
    skip_empty = field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM)
    if not required and value_check is None:
        return None

    def check(message: Message, prefix: str, found: Found) -> None:
        value = getattr(message, name)
        if skip_empty and not value:
            if required:
                found.append(Violation(prefix + name, "is required"))
        elif value_check is not None:
            value_check(value, prefix + name, found)

    return check


def _value_check(field: FieldDescriptor, limits: Limits) -> ValueCheck | None:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message_check(_message_type(field))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes_check(limits) if field.type == FieldDescriptor.TYPE_BYTES else _text_check(limits)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        # An item of a list is there because it means something: zero does not.
        specified = limits.required or field.is_repeated
        return _enum_check(frozenset(field.enum_type.values_by_number), required=specified)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return None
    return _number_check(limits)


def _message_type(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def _message_check(descriptor: Descriptor) -> ValueCheck:
    if descriptor.full_name == "google.protobuf.Timestamp":
        return _timestamp_check
    if descriptor.full_name == "google.protobuf.FieldMask":
        return lambda value, path, found: None

    def check(value: Message, path: str, found: Found) -> None:
        found.extend(violations(value, f"{path}."))

    return check


def _timestamp_check(value: Any, path: str, found: Found) -> None:
    if not (0 <= value.seconds <= _TIMESTAMP_SECONDS_MAX and 0 <= value.nanos < 1_000_000_000):
        found.append(Violation(path, "must be a time from 1970 to 9999"))


def _bytes_check(limits: Limits) -> ValueCheck:
    length_max = limits.length_max or LENGTH_MAX

    def check(value: bytes, path: str, found: Found) -> None:
        if len(value) > length_max:
            found.append(Violation(path, f"must have at most {length_max} bytes, not {len(value)}"))

    return check


def _text_check(limits: Limits) -> ValueCheck:
    if limits.format in _PATTERNS:
        pattern, description = _PATTERNS[limits.format]
        matches = pattern.fullmatch
        return lambda value, path, found: (
            None if matches(value) else found.append(Violation(path, description))
        )
    if limits.format == Format.FORMAT_CURRENCY_CODE:
        return _member_check(frozenset(list_currencies()), "must be an ISO 4217 currency code")
    if limits.format == Format.FORMAT_TIME_ZONE:
        return _member_check(frozenset(zoneinfo.available_timezones()), "must be an IANA time zone")
    length_max = limits.length_max or LENGTH_MAX

    def check(value: str, path: str, found: Found) -> None:
        if len(value) > length_max:
            found.append(Violation(path, f"must have at most {length_max} characters, not {len(value)}"))
        elif _CONTROL.search(value):
            found.append(Violation(path, "must not contain control characters"))

    return check


def _member_check(accepted: frozenset[str], description: str) -> ValueCheck:
    return lambda value, path, found: (
        None if value in accepted else found.append(Violation(path, description))
    )


def _enum_check(known: frozenset[int], *, required: bool) -> ValueCheck:
    def check(value: int, path: str, found: Found) -> None:
        if value not in known or (required and value == 0):
            found.append(Violation(path, "must be one of the values that the contract names"))

    return check


def _number_check(limits: Limits) -> ValueCheck | None:
    least = limits.min if limits.HasField("min") else None
    greatest = limits.max if limits.HasField("max") else None
    if least is None and greatest is None:
        return None
    low = float("-inf") if least is None else least
    high = float("inf") if greatest is None else greatest
    description = f"must be from {low} to {high}"

    def check(value: float, path: str, found: Found) -> None:
        # Written so that NaN fails.
        if not low <= value <= high:
            found.append(Violation(path, description))

    return check
