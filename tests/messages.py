"""Requests made from the contracts' descriptors alone, so that RPCs written later are tested by themselves.

`every_method` finds the RPCs; `Accepted` makes messages that a contract's limits accept; `Hostile` makes
messages that they mostly do not.
"""

from __future__ import annotations

import importlib
import math
import random
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from daogou.common.v1 import limits_pb2
from daogou.common.v1.limits_pb2 import Format, Limits

GENERATED: Final = Path(__file__).resolve().parent.parent / "gen"
UNKNOWN_ID: Final = "a" * 16
"""Well formed, and nobody's."""

Values = Mapping[str, Sequence[Any]]
"""By a field's full name, its name, or the name of its format, what to choose its value from."""

_TIMESTAMP = "google.protobuf.Timestamp"
_FIELD_MASK = "google.protobuf.FieldMask"
_TEXTS: Final[Mapping[int, str]] = {
    Format.FORMAT_ID: UNKNOWN_ID,
    Format.FORMAT_EXTERNAL_ID: "x-1",
    Format.FORMAT_CURRENCY_CODE: "CNY",
    Format.FORMAT_TIME_ZONE: "Asia/Shanghai",
}


@cache
def every_method() -> tuple[MethodDescriptor, ...]:
    """Every RPC of every service of the packages daogou.*, by full name."""
    modules = [
        importlib.import_module(".".join(path.relative_to(GENERATED).with_suffix("").parts))
        for path in (GENERATED / "daogou").rglob("*_pb2.py")
    ]
    found = [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    return tuple(sorted(found, key=lambda method: method.full_name))


def path_of(method: MethodDescriptor) -> str:
    """The RPC as HTTP/2 names it."""
    return f"/{method.containing_service.full_name}/{method.name}"


def service_of(method: MethodDescriptor) -> str:
    """The process that answers it: members for daogou.members.v1."""
    if method.containing_service.name == "EmbedderService":
        return "embedder"
    return method.containing_service.file.package.split(".")[1]


def message_of(descriptor: Descriptor) -> Message:
    """An empty message of the type."""
    made: Message = GetMessageClass(descriptor)()
    return made


def limits_of(field: FieldDescriptor) -> Limits:
    """What the contract accepts in the field."""
    found: Limits = field.GetOptions().Extensions[limits_pb2.limits]
    return found


def _must_be_set(oneof: OneofDescriptor) -> bool:
    return bool(oneof.GetOptions().Extensions[limits_pb2.oneof_required])


def _message_type(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def _enum_type(field: FieldDescriptor) -> EnumDescriptor:
    assert field.enum_type is not None
    return field.enum_type


class Accepted:
    """Makes messages that the limits accept.

    Without `draw` the least one: only what is required, the last value of an enum (which asks for least
    besides). With it, other fields are set now and then, and values drawn from what the limits allow.
    `values` go before all else, for fields that are set.
    """

    def __init__(
        self, values: Values, *, draw: random.Random | None = None, now: datetime | None = None
    ) -> None:
        self._values = values
        self._draw = draw
        self._now = now or datetime.now(UTC)

    def message(self, descriptor: Descriptor) -> Message:
        """One message of the type."""
        made = message_of(descriptor)
        for field in descriptor.fields:
            if field.containing_oneof is None and self._is_wanted(field):
                self._set(made, field)
        for oneof in descriptor.oneofs:
            members = list(oneof.fields)
            if len(members) == 1 and members[0].has_presence and not _must_be_set(oneof):
                # A field that is declared optional stands in a oneof of its own.
                if self._now_and_then():
                    self._set(made, members[0])
            elif _must_be_set(oneof) or self._now_and_then():
                self._set(made, self._draw.choice(members) if self._draw else members[0])
        return made

    def _now_and_then(self) -> bool:
        return self._draw is not None and self._draw.random() < 0.5

    def _is_wanted(self, field: FieldDescriptor) -> bool:
        limits = limits_of(field)
        return (
            limits.required
            or (limits.HasField("min") and limits.min > 0)
            or field.name in self._values
            or self._now_and_then()
        )

    def _set(self, made: Message, field: FieldDescriptor) -> None:
        if field.is_repeated:
            most = min(limits_of(field).items_max or 3, 3)
            count = self._draw.randint(1, most) if self._draw else 1
            items = getattr(made, field.name)
            for _ in range(count):
                if field.message_type is not None:
                    items.add().CopyFrom(self._part(made, field))
                else:
                    items.append(self._scalar(field))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(self._part(made, field))
        else:
            setattr(made, field.name, self._scalar(field))

    def _given(self, field: FieldDescriptor) -> Any:
        for name in (field.full_name, field.name, Format.Name(limits_of(field).format)):
            if choices := self._values.get(name):
                return self._draw.choice(choices) if self._draw else choices[0]
        return None

    def _part(self, made: Message, field: FieldDescriptor) -> Message:
        given = self._given(field)
        if isinstance(given, Message):
            return given
        part = _message_type(field)
        if part.full_name == _TIMESTAMP:
            return self._time(field)
        if part.full_name == _FIELD_MASK:
            return self._mask(made)
        return self.message(part)

    def _time(self, field: FieldDescriptor) -> Message:
        time = message_of(_message_type(field))
        ago_s = self._draw.randint(10, 3 * 86_400) if self._draw else 60
        time.seconds = int(self._now.timestamp()) - ago_s  # type: ignore[attr-defined]
        return time

    def _mask(self, made: Message) -> Message:
        """A mask of the resource beside it: its name for people, or any field."""
        resource = next(
            field
            for field in made.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.full_name != _FIELD_MASK
        )
        assert resource.message_type is not None
        names = [field.name for field in resource.message_type.fields]
        mask: Any = message_of(made.DESCRIPTOR.fields_by_name["update_mask"].message_type)  # type: ignore[arg-type]
        if self._draw:
            mask.paths.extend(self._draw.sample(names, self._draw.randint(1, 2)))
        else:
            mask.paths.append("display_name" if "display_name" in names else names[0])
        return mask  # type: ignore[no-any-return]

    def _scalar(self, field: FieldDescriptor) -> Any:
        given = self._given(field)
        if given is not None:
            return given
        kind, limits = field.cpp_type, limits_of(field)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            text = self._text(limits)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            numbers = [value.number for value in _enum_type(field).values]
            return self._draw.choice(numbers[1:]) if self._draw else numbers[-1]
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self._draw is not None and self._draw.random() < 0.5
        return self._number(field, limits)

    def _text(self, limits: Limits) -> str:
        if limits.format == Format.FORMAT_REQUEST_ID:
            return str(uuid.UUID(int=self._draw.getrandbits(128)) if self._draw else uuid.uuid4())
        if limits.format in _TEXTS:
            return _TEXTS[limits.format]
        longest = min(limits.length_max or 256, 40)
        count = self._draw.randint(1, longest) if self._draw else 1
        letters = string.ascii_letters + "导购 -_."
        return "".join(self._draw.choices(letters, k=count)).strip() or "x" if self._draw else "x"

    def _number(self, field: FieldDescriptor, limits: Limits) -> Any:
        least = limits.min if limits.HasField("min") else 0
        most = limits.max if limits.HasField("max") else 1000
        value = self._draw.randint(least, most) if self._draw else least
        return (
            float(value)
            if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
            else value
        )


_HOSTILE_TEXTS: Final = (
    "",
    "\x00",
    "a\x00b",
    "\r\n\t",
    " ",
    "|",
    "a|b",
    "$where",
    "$$ROOT",
    "../../etc/passwd",
    "' OR 1=1 --",
    "{}",
    "\u202e\u2028\u200b",
    "\U0001f4a9" * 64,
    "İ" * 128,
    "ß" * 16,
    "a" * 15,
    "a" * 17,
    "A" * 16,
    "x" * 257,
    "x" * 70_000,
    "NaN",
    "-1",
    "%s%n",
    "+" * 40,
    "+86" + "9" * 40,
    "13800138000;ext=1",
    "１３８００１３８０００",
    "=",
    "====",
    "AA==",
    "eyJhbGciOiJub25lIn0.e30.",
)
_HOSTILE_FLOATS: Final = (math.nan, math.inf, -math.inf, -0.0, 1e308, -1e308, 5e-324, 90.0001, 181.0)
_HOSTILE_SECONDS: Final = (
    0,
    -1,
    1,
    253_402_300_799,
    253_402_300_800,
    -62_135_596_800,
    -62_135_596_801,
    2**63 - 1,
    -(2**63),
    2**31,
)
_HOSTILE_NANOS: Final = (0, 999_999_999, 1_000_000_000, -1, 2**31 - 1, -(2**31))


_BYTES_MAX: Final = 7 << 20


class Hostile:
    """Makes messages that a careless service would fall over: extremes, nonsense, too many, too long."""

    def __init__(self, draw: random.Random, values: Values) -> None:
        self._draw = draw
        self._accepted = Accepted(values, draw=draw)

    def message(self, descriptor: Descriptor) -> Message:
        """An acceptable message of which some fields, at any depth, were spoilt; or hardly anything set."""
        if self._draw.random() < 0.05:
            return message_of(descriptor)
        while True:
            made = self._accepted.message(descriptor)
            for _ in range(self._draw.choice((1, 1, 1, 2, 3, 8))):
                self._spoil(made)
            # Larger ones are refused by their size, and nothing of them is tried.
            if made.ByteSize() < _BYTES_MAX:
                return made

    def _spoil(self, made: Message) -> None:
        """Spoils one field, at a random depth."""
        fields: list[Any] = list(made.DESCRIPTOR.fields)
        # A message about no brand, or another's, is refused at the door and tries nothing else.
        if self._draw.random() < 0.9:
            fields = [field for field in fields if field.name != "brand_id"]
        if not fields:
            return
        field: FieldDescriptor = self._draw.choice(fields)
        if field.is_repeated:
            self._spoil_items(made, field)
        elif field.message_type is None:
            setattr(made, field.name, self._scalar(field))
        elif field.message_type.full_name == _TIMESTAMP:
            time = getattr(made, field.name)
            time.seconds, time.nanos = self._draw.choice(_HOSTILE_SECONDS), self._draw.choice(_HOSTILE_NANOS)
        elif self._draw.random() < 0.1:
            made.ClearField(field.name)
        else:
            getattr(made, field.name).SetInParent()
            self._spoil(getattr(made, field.name))

    def _spoil_items(self, made: Message, field: FieldDescriptor) -> None:
        items = getattr(made, field.name)
        choice = self._draw.random()
        if choice < 0.1:
            made.ClearField(field.name)
        elif choice < 0.2:
            self._multiply(items, field)
        elif field.message_type is None:
            items.append(self._scalar(field))
        elif items and choice < 0.8:
            self._spoil(self._draw.choice(items))
        else:
            items.add()

    def _multiply(self, items: Any, field: FieldDescriptor) -> None:
        """The same item many times: beyond what the contract allows, or just within."""
        count = self._draw.choice((2, 21, 501, 1001, 3000))
        if field.message_type is None:
            items.extend([self._scalar(field) if self._draw.random() < 0.5 else "x"] * count) if (
                field.cpp_type == FieldDescriptor.CPPTYPE_STRING
            ) else items.extend([1] * count)
        else:
            one = message_of(field.message_type)
            one.CopyFrom(items[0] if items else self._accepted.message(field.message_type))
            items.extend([one] * count)

    def _scalar(self, field: FieldDescriptor) -> Any:
        makers: Mapping[int, Callable[[], Any]] = {
            FieldDescriptor.CPPTYPE_BOOL: lambda: self._draw.random() < 0.5,
            FieldDescriptor.CPPTYPE_ENUM: lambda: self._draw.choice((-1, 0, 1, 99, 2**31 - 1, -(2**31))),
            FieldDescriptor.CPPTYPE_DOUBLE: lambda: self._draw.choice(_HOSTILE_FLOATS),
            FieldDescriptor.CPPTYPE_FLOAT: lambda: self._draw.choice(_HOSTILE_FLOATS),
            FieldDescriptor.CPPTYPE_INT32: lambda: self._signed(32),
            FieldDescriptor.CPPTYPE_INT64: lambda: self._signed(64),
            FieldDescriptor.CPPTYPE_UINT32: lambda: self._draw.choice((0, 1, 2**32 - 1)),
            FieldDescriptor.CPPTYPE_UINT64: lambda: self._draw.choice((0, 1, 2**64 - 1)),
        }
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            text = self._draw.choice(_HOSTILE_TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        return makers[field.cpp_type]()

    def _signed(self, bits: int) -> int:
        most = 2 ** (bits - 1)
        return self._draw.choice((-most, -1, 0, 1, 10**9, most - 1))

    def bytes_of(self, made: Message) -> bytes:
        """The message's bytes after an accident on the way: flipped, cut, doubled, filled up."""
        raw = bytearray(made.SerializeToString())
        for _ in range(self._draw.randint(1, 4)):
            at = self._draw.randrange(len(raw) + 1)
            match self._draw.randrange(5):
                case 0 if at < len(raw):
                    raw[at] ^= 1 << self._draw.randrange(8)
                case 1:
                    del raw[at:]
                case 2:
                    raw[at:at] = self._draw.randbytes(self._draw.randint(1, 8))
                case 3:
                    raw += raw[:at]
                case _:
                    # Groups within groups, the only nesting that needs no recursive message.
                    raw[at:at] = b"\x0b" * self._draw.choice((1, 50, 200))
        return bytes(raw)
