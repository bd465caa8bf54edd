"""What values a contract accepts in its fields, as its options `(daogou.common.v1.limits)` say.

`chassis.rpc.acceptance` decides by them, and `chassis.rpc.limits` names what is wrong.
"""

from __future__ import annotations

import zoneinfo
from functools import cache
from typing import Final, NamedTuple

from babel.numbers import list_currencies
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

from daogou.common.v1 import limits_pb2
from daogou.common.v1.limits_pb2 import Format, Limits

_ITEMS_MAX: Final = 1000
_LENGTH_MAX: Final = 256

CONTROL: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
"""Control characters, as a regular expression's set holds them. No format accepts one either."""
# 0001-01-01 and 9999-12-31: what a google.protobuf.Timestamp may hold; we begin at 1970.
SECONDS_MAX: Final = 253_402_300_799
NANOS_MAX: Final = 999_999_999


class Pattern(NamedTuple):
    """A regular expression that a text must match as a whole, and that in words."""

    expression: str
    description: str


class Choice(NamedTuple):
    """The texts that are accepted, and that in words."""

    texts: frozenset[str]
    description: str


PATTERNS: Final = {
    Format.FORMAT_ID: Pattern(r"[a-z2-7]{16}", "must be an id: 16 characters of a-z and 2-7"),
    Format.FORMAT_EXTERNAL_ID: Pattern(
        r"[^\s|\x00-\x1f\x7f-\x9f]{1,64}",
        "must be 1 to 64 characters, neither spaces, control characters nor |",
    ),
    Format.FORMAT_REQUEST_ID: Pattern(
        r"[A-Za-z0-9._-]{8,64}", "must be 8 to 64 characters of letters, digits, '-', '_' and '.'"
    ),
}


@cache
def choice(form: Format.ValueType) -> Choice | None:
    """The choice of texts of a format, where it is one."""
    if form == Format.FORMAT_CURRENCY_CODE:
        return Choice(frozenset(list_currencies()), "must be an ISO 4217 currency code")
    if form == Format.FORMAT_TIME_ZONE:
        return Choice(frozenset(zoneinfo.available_timezones()), "must be an IANA time zone")
    return None


def limits_of(field: FieldDescriptor) -> Limits:
    """What the contract says of the field. Raises: ValueError for a map."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        raise ValueError(f"{field.full_name}: limits of maps are not supported")
    limits: Limits = field.GetOptions().Extensions[limits_pb2.limits]
    return limits


def is_required(oneof: OneofDescriptor) -> bool:
    """Whether one of its fields must be set."""
    return bool(oneof.GetOptions().Extensions[limits_pb2.oneof_required])


def items_max(limits: Limits) -> int | None:
    """Most items of a repeated field."""
    return limits.items_max or (None if limits.per_item else _ITEMS_MAX)


def length_max(limits: Limits) -> int:
    """Most characters of a text without a format, or bytes."""
    return limits.length_max or _LENGTH_MAX


def enum_numbers(field: FieldDescriptor, limits: Limits) -> frozenset[int]:
    """The values of an enum that the contract names. Zero where it means something."""
    assert field.enum_type is not None
    known = frozenset(field.enum_type.values_by_number)
    # An item of a list is there because it means something: zero does not.
    return known - {0} if limits.required or field.is_repeated else known


def message_type(field: FieldDescriptor) -> Descriptor:
    """The type of a field that holds messages."""
    assert field.message_type is not None
    return field.message_type


def parts(descriptor: Descriptor) -> tuple[list[FieldDescriptor], list[OneofDescriptor]]:
    """The fields that are looked at one by one, and the oneofs that are looked at as one."""
    # To protobuf a field that is `optional` is a oneof of its own.
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1 or is_required(oneof)]
    apart = {field.name for oneof in oneofs for field in oneof.fields}
    return [field for field in descriptor.fields if field.name not in apart], oneofs


def masked_resource(descriptor: Descriptor) -> FieldDescriptor | None:
    """The resource beside an update mask: of it only the masked fields are looked at."""
    if "update_mask" not in descriptor.fields_by_name:
        return None
    return next(field for field in descriptor.fields if is_under_mask(field))


def is_under_mask(field: FieldDescriptor) -> bool:
    """Whether an update mask says what of the field is looked at."""
    return (
        field.containing_type is not None
        and "update_mask" in field.containing_type.fields_by_name
        and field.message_type is not None
        and field.name != "update_mask"
    )
