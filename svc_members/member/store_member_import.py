"""Writes many new members at once: their identities first, then themselves, each in one bulk command.

An identity that was linked and whose member is missing is completed by whoever writes him next, as for a
single scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo.errors import BulkWriteError

from chassis.errors import Conflict
from chassis.mongo import failures
from chassis.mongo.connection import Database
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import Member, new_document
from svc_members.member.store_identity import Held, IdentityStore
from svc_members.rules.binding import Decision


@dataclass(frozen=True, slots=True)
class Arrival:
    """A member who arrives: what he is known by that is not linked yet, and the row he brings."""

    member: Member
    missing: Sequence[StoredIdentity]
    identity_count: int
    decision: Decision


class MemberImportStore:
    """Writes arrivals."""

    def __init__(self, database: Database, identities: IdentityStore) -> None:
        self._identities = identities
        self._links = database["identities"]
        self._members = database["members"]

    async def write(self, arrivals: Sequence[Arrival]) -> list[bool | Conflict]:
        """Writes what is not there; for each arrival whether he is new, or Conflict MEMBER_CHANGED."""
        changed = await self._link(arrivals)
        fresh = [index for index in range(len(arrivals)) if index not in changed]
        known = await self._insert([arrivals[index] for index in fresh])
        conflict = Conflict("MEMBER_CHANGED", "others write the same member: send him again")
        outcomes: list[bool | Conflict] = [conflict] * len(arrivals)
        for place, index in enumerate(fresh):
            outcomes[index] = place not in known
        return outcomes

    async def _link(self, arrivals: Sequence[Arrival]) -> set[int]:
        """Links the missing identities; the places of arrivals of which somebody else linked one."""
        places = [place for place, arrival in enumerate(arrivals) for _ in arrival.missing]
        if not places:
            return set()
        brand_id = arrivals[0].member.brand_id
        links = [
            (identity, Held(arrival.member.member_id, ""))
            for arrival in arrivals
            for identity in arrival.missing
        ]
        try:
            await self._links.bulk_write(await self._identities.link_writes(brand_id, links), ordered=False)
        except BulkWriteError as error:
            failed = {failure["index"] for failure in failures.duplicates(error)}
            changed = {places[index] for index in failed}
            # Of whoever is not written, nothing is left: what was linked to him just now is taken back.
            half = [
                f"{brand_id}|{identity.index}"
                for index, (identity, _) in enumerate(links)
                if places[index] in changed and index not in failed
            ]
            await self._links.delete_many({"_id": {"$in": half}, "holders": None})
            return changed
        return set()

    async def _insert(self, arrivals: Sequence[Arrival]) -> set[int]:
        """Inserts the members; the places of those who were there already."""
        if not arrivals:
            return set()
        stamp = await self._identities.stamp()
        new = [
            new_document(arrival.member, arrival.decision, arrival.identity_count, stamp)
            for arrival in arrivals
        ]
        try:
            await self._members.insert_many(new, ordered=False)
        except BulkWriteError as error:
            return {failure["index"] for failure in failures.duplicates(error)}
        return set()
