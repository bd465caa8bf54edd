"""Who answers for the ids of members, and whose he is: many at once, by the few fields that tell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from chassis.mongo.connection import Database, Document


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers for an id, and for which others (`absorbed`).

    `guide_id`: the guide whose member he is; empty: nobody's.
    """

    member_id: str
    guide_id: str
    erased: bool
    absorbed: tuple[str, ...] = ()


class AnsweringStore:
    """Reads who answers for which id. Writes nothing."""

    def __init__(self, database: Database) -> None:
        self._members = database["members"]

    async def find(self, brand_id: str, member_ids: Collection[str]) -> dict[str, Answering]:
        """Who answers for each of the ids; unknown ones are left out.

        A read for each step from a merged member to the next, whatever the number of ids.
        """
        read: dict[str, Document] = {}
        wanted = set(member_ids)
        while wanted:
            found = await self._read(brand_id, wanted)
            read |= found
            merged_into = {member["merged_into"] for member in found.values() if "merged_into" in member}
            wanted = merged_into - read.keys()
        answering = {}
        for member_id in member_ids:
            member = read.get(member_id)
            while member is not None and "merged_into" in member:
                member = read.get(member["merged_into"])
            if member is not None:
                answering[member_id] = _answering(member)
        return answering

    async def _read(self, brand_id: str, member_ids: Collection[str]) -> dict[str, Document]:
        ids = [f"{brand_id}|{member_id}" for member_id in member_ids]
        fields = {"member_id": 1, "merged_into": 1, "erased_time": 1, "standing.guide_id": 1, "absorbed": 1}
        found = await self._members.find({"_id": {"$in": ids}}, fields).to_list(None)
        return {member["member_id"]: member for member in found}


def _answering(member: Document) -> Answering:
    standing = member.get("standing") or {}
    return Answering(
        member_id=member["member_id"],
        guide_id=standing.get("guide_id", ""),
        erased="erased_time" in member,
        absorbed=tuple(member.get("absorbed", ())),
    )
