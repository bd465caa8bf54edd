"""Giving tags to members, one or many: read their sets, decide, write; again where others tag them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chassis import backoff
from chassis.errors import Conflict, DaogouError
from svc_members.care.store_tag import TagSet, TagStore
from svc_members.rules import tag

_ATTEMPTS: Final = 20
_AT_ONCE: Final = 100
"""Members whose tags are held in memory at the same time: each may have many and long ones."""


class Tagging:
    """Gives tags."""

    def __init__(self, store: TagStore) -> None:
        self._store = store

    async def add(
        self, brand_id: str, whom: Mapping[str, str], new: frozenset[str]
    ) -> dict[str, int | DaogouError]:
        """Gives tags in the names of ids; `whom`: the member who answers for each of them.

        Per id, how many tags he then has, or why he did not get them: Refused TOO_MANY_TAGS; Conflict
        TAGS_CHANGED, MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """
        results: dict[str, int | DaogouError] = {}
        names = sorted(whom)
        for start in range(0, len(names), _AT_ONCE):
            part = {name: whom[name] for name in names[start : start + _AT_ONCE]}
            try:
                results |= await self._add(brand_id, part, new)
            except Conflict:
                # One was merged or erased meanwhile: let the others not wait for him.
                for name, member_id in part.items():
                    results[name] = await self._add_one(brand_id, name, member_id, new)
        return results

    async def _add_one(
        self, brand_id: str, name: str, member_id: str, new: frozenset[str]
    ) -> int | DaogouError:
        try:
            return (await self._add(brand_id, {name: member_id}, new))[name]
        except Conflict as conflict:
            return conflict

    async def _add(
        self, brand_id: str, whom: Mapping[str, str], new: frozenset[str]
    ) -> dict[str, int | DaogouError]:
        for attempt in range(_ATTEMPTS):
            sets = await self._store.find(brand_id, set(whom.values()))
            decided = {
                name: _decided(name, member_id, sets[member_id], new) for name, member_id in whom.items()
            }
            changed = [one.write for one in decided.values() if one.write is not None]
            if await self._store.save(brand_id, changed):
                return {name: one.result for name, one in decided.items()}
            await backoff.pause(attempt)
        conflict = Conflict("TAGS_CHANGED", "others keep tagging the member", retry_after_s=1.0)
        return dict.fromkeys(whom, conflict)


@dataclass(frozen=True, slots=True)
class _Decided:
    """What to answer for one id, once what is to be written for it, if anything, is."""

    result: int | DaogouError
    write: TagSet | None


def _decided(name: str, member_id: str, sets: Sequence[TagSet], new: frozenset[str]) -> _Decided:
    own = next((one for one in sets if one.origin_id == name), TagSet(member_id, name, 0, frozenset()))
    others = frozenset[str]().union(*(one.tags for one in sets if one.origin_id != name))
    try:
        tags = tag.added(own.tags, others, new)
    except DaogouError as refused:
        return _Decided(refused, None)
    return _Decided(len(tags | others), replace(own, tags=tags) if tags != own.tags else None)
