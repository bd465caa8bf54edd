"""As much of MongoDB as the commission service's stores use, in memory, one document's write at a time.

It serves simulations in which the real stores run and anything may fall between two steps: every step of a
command first awaits `step`, which may let others go on or raise. What it does not know it refuses, by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self

import bson
from bson.codec_options import CodecOptions
from pymongo import ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

Document = dict[str, Any]
Step = Callable[[str], Awaitable[None]]
"""Is awaited before each step of a command, with the collection's and the command's name."""
MISSING: Final = object()
_DUPLICATE_KEY: Final = 11000
_BAD_VALUE: Final = 2
_AS_READ: Final = CodecOptions[Document](tz_aware=True)


class MemoryDatabase:
    """Collections by name, made when they are asked for."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._collections: dict[str, MemoryCollection] = {}

    def __getitem__(self, name: str) -> MemoryCollection:
        return self._collections.setdefault(name, MemoryCollection(name, self._step))


class MemoryCollection:
    """One collection. Its only unique key is `_id`."""

    def __init__(self, name: str, step: Step) -> None:
        self._name = name
        self._step = step
        self.documents: dict[str, Document] = {}
        """What is stored, by `_id`: for whoever sets the scene, and for whoever looks at the end."""

    def with_options(self, **_options: object) -> Self:
        """There is one copy of everything: no read or write is more certain than another."""
        return self

    def find(
        self, query: Mapping[str, Any], projection: object = None, *, batch_size: int = 0
    ) -> MemoryCursor:
        return MemoryCursor(lambda: self._found(query))

    async def find_one(
        self, query: Mapping[str, Any], *_projection: object, **options: Any
    ) -> Document | None:
        cursor = self.find(query).sort(options.get("sort") or [])
        found = await cursor.limit(1).to_list(None)
        return found[0] if found else None

    async def count_documents(self, query: Mapping[str, Any], limit: int = 0) -> int:
        count = len(await self._found(query))
        return min(count, limit) if limit else count

    async def insert_many(self, documents: Sequence[Document], ordered: bool = True) -> None:
        assert not ordered
        errors = []
        for index, document in enumerate(documents):
            await self._step(f"{self._name} insert")
            if document["_id"] in self.documents:
                errors.append({"index": index, "code": _DUPLICATE_KEY})
            else:
                self.documents[document["_id"]] = copied(document)
        _raise(errors)

    async def bulk_write(self, writes: Sequence[ReplaceOne[Any] | UpdateOne], ordered: bool = True) -> None:
        assert not ordered
        errors = []
        for index, write in enumerate(writes):
            await self._step(f"{self._name} write")
            code = self._written(write)
            if code:
                errors.append({"index": index, "code": code})
        _raise(errors)

    async def update_one(self, query: Mapping[str, Any], update: Any, **options: Any) -> None:
        await self._step(f"{self._name} update")
        if self._written(UpdateOne(query, update, **options)):
            raise DuplicateKeyError("the key is there already", _DUPLICATE_KEY)

    async def update_many(
        self, query: Mapping[str, Any], update: Any, array_filters: Sequence[Document] = ()
    ) -> None:
        for key in [key for key, document in self.documents.items() if matches(document, query)]:
            await self._step(f"{self._name} update")
            # Another may have written it since it was found.
            if matches(self.documents[key], query):
                self.documents[key] = _updated(self.documents[key], update, array_filters)

    async def _found(self, query: Mapping[str, Any]) -> list[Document]:
        await self._step(f"{self._name} find")
        return [copied(one) for one in self._candidates(query) if matches(one, query)]

    def _candidates(self, query: Mapping[str, Any]) -> list[Document]:
        """By the primary key where the query names it: simulations ask for little else."""
        wanted = query.get("_id")
        if isinstance(wanted, str):
            wanted = {"$in": [wanted]}
        if isinstance(wanted, dict) and "$in" in wanted:
            return [self.documents[key] for key in dict.fromkeys(wanted["$in"]) if key in self.documents]
        return list(self.documents.values())

    def _written(self, write: ReplaceOne[Any] | UpdateOne) -> int:
        """Writes one document; the code of why it could not be, or 0."""
        query: Document = dict(write._filter)
        for document in self._candidates(query):
            if matches(document, query):
                try:
                    self.documents[document["_id"]] = _applied(document, write)
                except NoSuchPath:
                    return _BAD_VALUE
                return 0
        if write._upsert:
            base = {name: value for name, value in query.items() if not isinstance(value, dict)}
            if base["_id"] in self.documents:
                return _DUPLICATE_KEY
            self.documents[base["_id"]] = _applied(base, write)
        return 0


class MemoryCursor:
    """What a query finds, read when it is asked for."""

    def __init__(self, find: Callable[[], Awaitable[list[Document]]]) -> None:
        self._find = find
        self._sorts: list[tuple[str, int]] = []
        self._most: int | None = None

    def sort(self, by: str | Sequence[tuple[str, int]], direction: int = 1) -> Self:
        self._sorts = [(by, direction)] if isinstance(by, str) else list(by)
        return self

    def limit(self, most: int) -> Self:
        self._most = most
        return self

    async def to_list(self, _length: int | None) -> list[Document]:
        found = await self._find()
        for name, direction in reversed(self._sorts):
            found.sort(key=lambda one: _rank(min(_values(one, name), key=_rank)), reverse=direction < 0)
        return found[: self._most]

    async def __aiter__(self) -> AsyncIterator[Document]:
        for document in await self.to_list(None):
            yield document


def copied(document: Document) -> Document:
    """A document as it comes back from the database, which keeps it as BSON: nothing of it shared."""
    return bson.decode(bson.encode(document), _AS_READ)


def _raise(errors: Sequence[Document]) -> None:
    if errors:
        raise BulkWriteError({"writeErrors": list(errors), "writeConcernErrors": []})


# ---- which documents --------------------------------------------------------------------------------


def matches(document: Document, query: Mapping[str, Any]) -> bool:
    """Whether a document fulfils a query."""
    return all(_fulfils(_values(document, name), wanted) for name, wanted in query.items())


def _values(value: Any, path: str) -> list[Any]:
    """What a path leads to; a list stands for itself and for its parts."""
    name, _, rest = path.partition(".")
    if isinstance(value, list):
        return [found for one in value for found in _values(one, path)]
    if not isinstance(value, dict) or name not in value:
        return []
    if rest:
        return _values(value[name], rest)
    return [value[name], *value[name]] if isinstance(value[name], list) else [value[name]]


def _fulfils(values: Sequence[Any], wanted: Any) -> bool:
    if not (isinstance(wanted, dict) and any(name.startswith("$") for name in wanted)):
        return wanted in values
    return all(_COMPARED[name](values, than) for name, than in wanted.items())


_COMPARED: Final[Mapping[str, Callable[[Sequence[Any], Any], bool]]] = {
    "$in": lambda values, than: any(one in than for one in values),
    "$lt": lambda values, than: any(type(one) is type(than) and one < than for one in values),
    "$lte": lambda values, than: any(type(one) is type(than) and one <= than for one in values),
    "$gt": lambda values, than: any(type(one) is type(than) and one > than for one in values),
    "$gte": lambda values, than: any(type(one) is type(than) and one >= than for one in values),
    "$exists": lambda values, than: bool(values) == than,
}


# ---- what becomes of them ---------------------------------------------------------------------------


class NoSuchPath(Exception):
    """An update names parts of a list that is not there."""


def _applied(document: Document, write: ReplaceOne[Any] | UpdateOne) -> Document:
    if isinstance(write, ReplaceOne):
        return copied({**write._doc, "_id": document["_id"]})
    return _updated(document, write._doc, [dict(one) for one in write._array_filters or ()])


def _updated(document: Document, update: Any, array_filters: Sequence[Document]) -> Document:
    """The document after an update: a pipeline of stages, or operators."""
    if isinstance(update, list):
        for stage in update:
            [(name, what)] = stage.items()
            document = _STAGES[name](document, what)
        return copied(document)
    after: Document = copied(document)
    parts = {next(iter(one)).partition(".")[0]: one for one in array_filters}
    for operator, fields in update.items():
        for path, given in fields.items():
            for holder, name in _places(after, path.split("."), parts):
                _OPERATORS[operator](holder, name, given)
    return after


def _places(
    value: Any, path: Sequence[str], parts: Mapping[str, Document]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The documents within the document, and their fields, that a path of an update means."""
    name, *rest = path
    if name.startswith("$["):
        if not isinstance(value, list):
            raise NoSuchPath(name)
        part = name[2:-1]
        for one in value:
            if matches({part: one}, parts[part]):
                yield from _places(one, rest, parts)
    elif rest:
        deeper = value.get(name) if rest[0].startswith("$[") else value.setdefault(name, {})
        yield from _places(deeper, rest, parts)
    else:
        yield value, name


def _set(holder: Document, name: str, given: Any) -> None:
    holder[name] = given


def _unset(holder: Document, name: str, _given: Any) -> None:
    holder.pop(name, None)


def _inc(holder: Document, name: str, given: Any) -> None:
    holder[name] = holder.get(name, 0) + given


def _max(holder: Document, name: str, given: Any) -> None:
    holder[name] = max(holder.get(name, given), given)


def _min(holder: Document, name: str, given: Any) -> None:
    holder[name] = min(holder.get(name, given), given)


_OPERATORS: Final = {"$set": _set, "$unset": _unset, "$inc": _inc, "$max": _max, "$min": _min}


def _set_stage(document: Document, fields: Mapping[str, Any]) -> Document:
    new = {name: _value(given, document, {}) for name, given in fields.items()}
    return {name: value for name, value in {**document, **new}.items() if value is not MISSING}


def _unset_stage(document: Document, names: str | Sequence[str]) -> Document:
    gone = {names} if isinstance(names, str) else set(names)
    return {name: value for name, value in document.items() if name not in gone}


_STAGES: Final[Mapping[str, Callable[[Document, Any], Document]]] = {
    "$set": _set_stage,
    "$unset": _unset_stage,
}


def _value(given: Any, document: Document, variables: Mapping[str, Any]) -> Any:
    """The value of an expression."""
    if isinstance(given, str) and given.startswith("$$"):
        name, _, rest = given[2:].partition(".")
        named = {"REMOVE": MISSING, **variables}[name]
        return _at(named, rest) if rest else named
    if isinstance(given, str) and given.startswith("$"):
        return _at(document, given[1:])
    if isinstance(given, list):
        return [_value(one, document, variables) for one in given]
    if not isinstance(given, dict):
        return given
    operator = next(iter(given), "")
    if not operator.startswith("$"):
        return {name: _value(one, document, variables) for name, one in given.items()}
    if operator == "$literal":
        return given[operator]
    if operator == "$filter":
        kept = given[operator]
        return [
            one
            for one in _value(kept["input"], document, variables)
            if _value(kept["cond"], document, {**variables, "this": one})
        ]
    arguments = _value(given[operator], document, variables)
    return _FUNCTIONS[operator](*(arguments if isinstance(arguments, list) else [arguments]))


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def _rank(value: Any) -> tuple[Any, ...]:
    """By which values are compared: what is missing first; documents field by field."""
    if value is MISSING or value is None:
        return (0,)
    if isinstance(value, dict):
        return (2, *((name, _rank(one)) for name, one in value.items()))
    return (1, value)


def _size(*parts: Any) -> int:
    return len(parts)


def _subtracted(one: Any, other: Any) -> Any:
    difference = one - other
    return difference // timedelta(milliseconds=1) if isinstance(difference, timedelta) else difference


def _added(one: Any, other: Any) -> Any:
    return one + timedelta(milliseconds=other) if isinstance(one, datetime) else one + other


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "$add": _added,
    "$and": lambda *all_of: all(all_of),
    "$concatArrays": lambda *lists: [one for part in lists for one in part],
    "$cond": lambda condition, then, otherwise: then if condition else otherwise,
    "$eq": lambda one, other: _rank(one) == _rank(other),
    "$gt": lambda one, other: _rank(one) > _rank(other),
    "$ifNull": lambda one, instead: instead if one is MISSING or one is None else one,
    "$lt": lambda one, other: _rank(one) < _rank(other),
    "$max": lambda *values: max(values, key=_rank),
    "$ne": lambda one, other: _rank(one) != _rank(other),
    "$not": lambda one: not one,
    "$or": lambda *any_of: any(any_of),
    "$setDifference": lambda one, other: [part for part in dict.fromkeys(one) if part not in other],
    "$size": _size,
    "$subtract": _subtracted,
    "$type": lambda one: "missing" if one is MISSING else type(one).__name__,
}
