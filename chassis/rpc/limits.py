"""Checks a request against the limits that its contract states, and names every offending field at once.

Whether there is one `chassis.rpc.acceptance` decides first, several times faster. The checks of a message
type are compiled once, from what `chassis.rpc.accepted_values` reads in the contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from chassis.errors import Violation
from chassis.rpc import accepted_values
from chassis.rpc.acceptance import Decisions
from daogou.common.v1.limits_pb2 import Limits

M = TypeVar("M", bound=Message)
Found = list[Violation]
FieldCheck = Callable[[Message, str, Found], None]
ValueCheck = Callable[[Any, str, Found], None]

_CONTROL = re.compile(f"[{accepted_values.CONTROL}]")


class TooMany(Violation):
    """More items than accepted. Nothing has looked at them, and nothing should: it would take too long."""

    __slots__ = ()


_RULES: dict[object, Callable[[Any, str], Found]] = {}
_DECISIONS = Decisions(_RULES)


def also_check(message_type: type[M], problems: Callable[[M, str], Found]) -> None:
    """Has a rule that limits cannot say looked at together with them, wherever a message of the type stands.

    `problems` gets the message and what its fields' paths begin with.
    """
    _RULES[message_type.DESCRIPTOR] = problems
    _DECISIONS.clear()


def violations(message: Message, prefix: str = "") -> Found:
    """Every field of the message that its contract does not accept. Paths begin with `prefix`."""
    return [] if _DECISIONS[message.DESCRIPTOR](message) else _listed(message, prefix)


def _listed(message: Message, prefix: str) -> Found:
    found: Found = []
    for check in _checks(message.DESCRIPTOR):
        check(message, prefix, found)
    rule = _RULES.get(message.DESCRIPTOR)
    if rule is not None and not (found and any(isinstance(one, TooMany) for one in found)):
        found += rule(message, prefix)
    return found


@cache
def _checks(descriptor: Descriptor) -> tuple[FieldCheck, ...]:
    fields, oneofs = accepted_values.parts(descriptor)
    checks = [_field_check(field) for field in fields]
    checks += [_oneof_check(oneof) for oneof in oneofs]
    if (resource := accepted_values.masked_resource(descriptor)) is not None:
        checks.append(_mask_check(resource))
    return tuple(check for check in checks if check is not None)


def _oneof_check(oneof: OneofDescriptor) -> FieldCheck:
    """Checks the one field that is set, and asks once which that is."""
    name, required = oneof.name, accepted_values.is_required(oneof)
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


def _mask_check(resource: FieldDescriptor) -> FieldCheck:
    """Checks only the masked fields of the resource beside an update mask, and the mask itself."""
    by_name = {field.name: _field_check(field) for field in accepted_values.message_type(resource).fields}

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
    limits = accepted_values.limits_of(field)
    value_check = None if accepted_values.is_under_mask(field) else _value_check(field, limits)
    if field.is_repeated:
        return _repeated_check(field.name, limits, value_check)
    if field.has_presence:
        return _optional_check(field.name, limits, value_check)
    return _plain_check(field, limits, value_check)


def _repeated_check(name: str, limits: Limits, value_check: ValueCheck | None) -> FieldCheck:
    items_max = accepted_values.items_max(limits)

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
        return _message_check(accepted_values.message_type(field))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes_check(limits) if field.type == FieldDescriptor.TYPE_BYTES else _text_check(limits)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_check(accepted_values.enum_numbers(field, limits))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return None
    return _number_check(limits)


def _message_check(descriptor: Descriptor) -> ValueCheck:
    if descriptor.full_name == "google.protobuf.Timestamp":
        return _timestamp_check
    if descriptor.full_name == "google.protobuf.FieldMask":
        return lambda value, path, found: None

    def check(value: Message, path: str, found: Found) -> None:
        found.extend(_listed(value, f"{path}."))

    return check


def _timestamp_check(value: Any, path: str, found: Found) -> None:
    in_range = 0 <= value.seconds <= accepted_values.SECONDS_MAX
    if not (in_range and 0 <= value.nanos <= accepted_values.NANOS_MAX):
        found.append(Violation(path, "must be a time from 1970 to 9999"))


def _bytes_check(limits: Limits) -> ValueCheck:
    length_max = accepted_values.length_max(limits)

    def check(value: bytes, path: str, found: Found) -> None:
        if len(value) > length_max:
            found.append(Violation(path, f"must have at most {length_max} bytes, not {len(value)}"))

    return check


def _text_check(limits: Limits) -> ValueCheck:
    if pattern := accepted_values.PATTERNS.get(limits.format):
        return _pattern_check(*pattern)
    if choice := accepted_values.choice(limits.format):
        return _member_check(*choice)
    length_max = accepted_values.length_max(limits)

    def check(value: str, path: str, found: Found) -> None:
        if len(value) > length_max:
            found.append(Violation(path, f"must have at most {length_max} characters, not {len(value)}"))
        elif _CONTROL.search(value):
            found.append(Violation(path, "must not contain control characters"))

    return check


def _pattern_check(expression: str, description: str) -> ValueCheck:
    matches = re.compile(expression).fullmatch
    return lambda value, path, found: None if matches(value) else found.append(Violation(path, description))


def _member_check(accepted: frozenset[str], description: str) -> ValueCheck:
    return lambda value, path, found: (
        None if value in accepted else found.append(Violation(path, description))
    )


def _enum_check(accepted: frozenset[int]) -> ValueCheck:
    def check(value: int, path: str, found: Found) -> None:
        if value not in accepted:
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
