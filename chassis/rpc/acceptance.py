"""Decides whether a contract accepts a message, without saying why not; `chassis.rpc.limits` says that.

Nearly every message is acceptable, and a call for each of its fields would cost more than looking at them: so
one Python expression is written for each message type, and compiled when its first message comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

from chassis.rpc import accepted_values as values
from daogou.common.v1.limits_pb2 import Limits

Decision = Callable[[Any], bool]
Rule = Callable[[Any, str], object]
"""What else holds of a message: false if nothing is wrong with it. Gets the message and its path."""

# Of a message of seconds and nanos, whose seconds are `s` from then on.
_TIME_IN_RANGE: Final = (
    f"0 <= (s := (t := {{}}).seconds) <= {values.SECONDS_MAX} and 0 <= t.nanos <= {values.NANOS_MAX}"
)


class Decisions(dict[object, Decision]):
    """By message type, whether one is acceptable. To be cleared when a rule is added."""

    def __init__(self, rules: Mapping[object, Rule]) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, descriptor: Descriptor) -> Decision:
        decision = self[descriptor] = _Writer(self._rules).decision(descriptor)
        return decision


class _Writer:
    """Writes the decision on a message type and on the types within it.

    They stand in one scope and find each other by name there, also where a type holds itself. In all that is
    written `m` is the message.
    """

    def __init__(self, rules: Mapping[object, Rule]) -> None:
        self._rules = rules
        self._scope: dict[str, Any] = {}
        self._names: dict[Descriptor, str] = {}

    def decision(self, descriptor: Descriptor) -> Decision:
        written: Decision = self._scope[self._on(descriptor)]
        return written

    def _on(self, descriptor: Descriptor) -> str:
        """The name of the decision on a type."""
        if descriptor not in self._names:
            self._names[descriptor] = name = self._constant(None)
            self._write(name, self._terms(descriptor))
        return self._names[descriptor]

    def _constant(self, value: object) -> str:
        """The name by which what is written finds the value."""
        name = f"_{len(self._scope)}"
        self._scope[name] = value
        return name

    def _write(self, name: str, terms: Iterable[str]) -> None:
        source = f"def {name}(m): return {' and '.join(terms) or True}"
        exec(source, self._scope)  # noqa: S102 -- made of the contract's names and numbers alone

    def _terms(self, descriptor: Descriptor) -> list[str]:
        """All that must hold of a message."""
        fields, oneofs = values.parts(descriptor)
        terms = self._of_each(fields) + [self._oneof(oneof) for oneof in oneofs]
        if (resource := values.masked_resource(descriptor)) is not None:
            terms.append(f"{self._masked(resource)}(m.{resource.name}, m.update_mask.paths)")
        if (rule := self._rules.get(descriptor)) is not None:
            terms.append(f"not {self._constant(rule)}(m, '')")
        return terms

    def _of_each(self, fields: Iterable[FieldDescriptor]) -> list[str]:
        """What must hold of the fields. Those that hold a text are matched in one go."""
        texts, terms = [], []
        for field in fields:
            if _is_plain_text(field):
                texts.append(field)
            elif term := self._field(field):
                terms.append(term)
        return [self._texts(texts), *terms] if texts else terms

    def _texts(self, fields: list[FieldDescriptor]) -> str:
        # No accepted text holds a line break: one in a value is one too many, wherever it stands.
        each = [values.limits_of(field) for field in fields]
        expression = "\n".join(_expression(limits, required=limits.required) for limits in each)
        joined = r"\n".join(f"{{m.{field.name}}}" for field in fields)
        return self._matches(expression, f"f'{joined}'")

    def _matches(self, expression: str, text: str) -> str:
        return f"{self._constant(re.compile(expression).fullmatch)}({text}) is not None"

    def _field(self, field: FieldDescriptor) -> str | None:
        """What must hold of a field. None: nothing."""
        limits, get = values.limits_of(field), f"m.{field.name}"
        if field.is_repeated:
            return self._repeated(field, limits)
        value = self._value(field, limits, get)
        if field.has_presence:
            is_set = f"m.HasField({field.name!r})"
            if not limits.required:
                return f"(not {is_set} or {value})" if value else None
            if _is_time(field):
                # Of one that is not set they are 0: to ask for them is quicker than whether it is set.
                return f"{value} and (s > 0 or {is_set})"
            return f"{is_set} and {value}" if value else is_set
        if value and field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            # Bytes, or one of a choice of texts, none of which is empty.
            if not limits.required:
                return f"(not {get} or {value})"
            return value if values.choice(limits.format) else f"len({get}) > 0 and {value}"
        return value

    def _repeated(self, field: FieldDescriptor, limits: Limits) -> str | None:
        most, terms = values.items_max(limits), []
        if most is not None:
            terms.append(f"len(items) <= {most}")
        if not limits.per_item and (item := self._value(field, limits, "item")):
            # A copy is a list, which is gone through faster. It is made of no more than are accepted.
            terms.append(f"all([{item} for item in items[:]])")
        if limits.required:
            return " and ".join([f"len(items := m.{field.name}) > 0", *terms])
        return f"(len(items := m.{field.name}) == 0 or {' and '.join(terms)})" if terms else None

    def _oneof(self, oneof: OneofDescriptor) -> str:
        """What must hold of the one field that is set."""
        cases = []
        for field in oneof.fields:
            value = self._value(field, values.limits_of(field), f"m.{field.name}")
            cases.append(f"name == {field.name!r}" + (f" and {value}" if value else ""))
        name, met = f"(name := m.WhichOneof({oneof.name!r}))", " or ".join(cases)
        return (
            f"{name} is not None and ({met})" if values.is_required(oneof) else f"({name} is None or {met})"
        )

    def _value(self, field: FieldDescriptor, limits: Limits, get: str) -> str | None:
        """What must hold of a value that is set, or of an item, which `get` gets. None: nothing."""
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_MESSAGE:
                return self._message(field, get)
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return f"len({get}) <= {values.length_max(limits)}"
            case FieldDescriptor.CPPTYPE_STRING if choice := values.choice(limits.format):
                return f"{get} in {self._constant(choice.texts)}"
            case FieldDescriptor.CPPTYPE_STRING:
                return self._matches(_expression(limits, required=limits.format in values.PATTERNS), get)
            case FieldDescriptor.CPPTYPE_ENUM:
                return f"{get} in {self._constant(values.enum_numbers(field, limits))}"
            case FieldDescriptor.CPPTYPE_BOOL:
                return None
        least = f"{limits.min} <= " if limits.HasField("min") else ""
        most = f" <= {limits.max}" if limits.HasField("max") else ""
        return f"{least}{get}{most}" if least or most else None

    def _message(self, field: FieldDescriptor, get: str) -> str | None:
        if _is_time(field):
            return _TIME_IN_RANGE.format(get)
        descriptor = values.message_type(field)
        if values.is_under_mask(field) or descriptor.full_name == "google.protobuf.FieldMask":
            return None
        return f"{self._on(descriptor)}({get})"

    def _masked(self, resource: FieldDescriptor) -> str:
        """The name of the decision on the masked fields of a resource."""
        by_name: dict[str, Decision] = {}
        for field in values.message_type(resource).fields:
            name = self._constant(None)
            self._write(name, self._of_each([field]))
            by_name[field.name] = self._scope[name]

        def masked(message: Any, paths: Collection[str]) -> bool:
            return bool(paths) and all(path in by_name and by_name[path](message) for path in paths)

        return self._constant(masked)


def _is_time(field: FieldDescriptor) -> bool:
    return (
        field.message_type is not None
        and field.message_type.full_name == "google.protobuf.Timestamp"
        and not values.is_under_mask(field)
    )


def _is_plain_text(field: FieldDescriptor) -> bool:
    """Whether it holds a text that a regular expression decides on, and cannot be absent."""
    return (
        field.type == FieldDescriptor.TYPE_STRING
        and not field.is_repeated
        and not field.has_presence
        and values.choice(values.limits_of(field).format) is None
    )


def _expression(limits: Limits, *, required: bool) -> str:
    """The regular expression of a text; unless it is required, of none as well."""
    if pattern := values.PATTERNS.get(limits.format):
        return pattern.expression if required else f"(?:{pattern.expression}|)"
    return f"[^{values.CONTROL}]{{{int(required)},{values.length_max(limits)}}}"
