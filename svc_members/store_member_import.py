"""Writes many new members at once: their identities first, then themselves, each in one bulk command.

An identity that was linked and whose member is missing is completed by whoever writes him next, as for a
single scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from chassis.errors import Conflict
from chassis.mongo import failures
from chassis.mongo.connection import Database
from svc_members.identities import StoredIdentity
from svc_members.rules.binding import Decision
from svc_members.store_identity import link_document
from svc_members.store_member import Member, MemberStore


@dataclass(frozen=True, slots=True)
class Arrival:
    """A member who arrives: what he is known by that is not linked yet, and the row he brings."""

    member: Member
    missing: Sequence[StoredIdentity]
    identity_count: int
    decision: Decision


class MemberImportStore:
    """Writes arrivals."""

    def __init__(self, database: Database, members: MemberStore) -> None:
        self._identities = database["identities"]
        self._collection = database["members"]
        self._members = members

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
        places = []
        links = []
        for place, arrival in enumerate(arrivals):
            for identity in arrival.missing:
                member = arrival.member
                places.append(place)
                links.append(link_document(member.brand_id, identity, member.member_id, member.create_time))
        if not links:
            return set()
        try:
            await self._identities.insert_many(links, ordered=False)
        except BulkWriteError as error:
            failed = {failure["index"] for failure in failures.duplicates(error)}
            changed = {places[index] for index in failed}
            # Of whoever is not written, nothing is left: what was linked to him just now is taken back.
            half = [
                link["_id"]
                for index, link in enumerate(links)
                if places[index] in changed and index not in failed
            ]
            await self._identities.delete_many({"_id": {"$in": half}})
            return changed
        return set()

    async def _insert(self, arrivals: Sequence[Arrival]) -> set[int]:
        """Inserts the members; the places of those who were there already."""
        writes = [
            UpdateOne(
                {"_id": f"{arrival.member.brand_id}|{arrival.member.member_id}", "rev": 0},
                self._members.rows_update(
                    arrival.member, arrival.decision, identity_count=arrival.identity_count
                ),
                upsert=True,
            )
            for arrival in arrivals
        ]
        if not writes:
            return set()
        try:
            await self._collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            return {failure["index"] for failure in failures.duplicates(error)}
        return set()
