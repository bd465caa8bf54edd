"""What a scan is decided on, read from MongoDB in one command: whose code it is, the brand, the customer.

To ask five times cost several times what the answers did: the driver's part of a command is larger than the
database's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chassis.errors import NotFound
from chassis.mongo.connection import Database, Document, aggregated
from svc_members.directory.entities import BRAND, Kind
from svc_members.directory.store_directory import DirectoryStore, document_id
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import Member, member_of
from svc_members.member.store_identity import held_of
from svc_members.member.store_member import MemberStore


@dataclass(frozen=True, slots=True)
class Scene:
    """Who meets in a scan: the guide or the store whose code it is, the brand, and the customer."""

    brand: Document
    code_holder: Document
    customer: Member


class ScanStore:
    """Reads what scans are decided on."""

    def __init__(self, database: Database, directory: DirectoryStore, members: MemberStore) -> None:
        self._collections = {name: database[name] for name in ("guides", "stores")}
        self._directory = directory
        self._members = members

    async def scene(
        self,
        code_holder: tuple[Kind[Any], str],
        brand_id: str,
        identity: StoredIdentity,
        fresh_id: str,
        now: datetime,
    ) -> Scene:
        """`code_holder`: a guide or a store, by its id. `fresh_id`: the customer's, if he is known by none.

        Raises: NotFound BRAND_UNKNOWN, or with the kind's reason; Conflict MEMBER_CHANGED.
        """
        kind, entry_id = code_holder
        holder_key, identity_key = document_id(kind, brand_id, entry_id), f"{brand_id}|{identity.index}"
        read = await aggregated(
            self._collections[kind.collection],
            [
                {"$match": {"_id": holder_key}},
                {"$unionWith": {"coll": "brands", "pipeline": [{"$match": {"_id": brand_id}}]}},
                {"$unionWith": {"coll": "identities", "pipeline": _with_member(identity_key)}},
            ],
        )
        found = {document["_id"]: document for document in read}
        if holder_key not in found or brand_id not in found:
            # What is missing is named as everywhere else.
            await self._directory.find(BRAND, brand_id, brand_id)
            await self._directory.find(kind, brand_id, entry_id)
            raise NotFound(kind.unknown_reason, f"the {kind.name} was made this moment: scan again")
        customer = _customer(brand_id, found.get(identity_key), fresh_id, now)
        if customer is None:
            customer = await self._members.holder_of(brand_id, identity, lambda: fresh_id, now)
        return Scene(found[brand_id], found[holder_key], customer)


def _with_member(identity_key: str) -> list[Document]:
    """Finds an identity, with whoever holds it as the one of its `members`."""
    member_key = {"$concat": ["$brand_id", "|", "$member_id"]}
    joined = {"from": "members", "localField": "member_key", "foreignField": "_id", "as": "members"}
    return [{"$match": {"_id": identity_key}}, {"$set": {"member_key": member_key}}, {"$lookup": joined}]


def _customer(brand_id: str, identity: Document | None, fresh_id: str, now: datetime) -> Member | None:
    """The customer, as `MemberStore.holder_of` gives him; None where he cannot be told from this alone."""
    if identity is None:
        return Member(brand_id, fresh_id, 0, (), now)
    if not identity["members"] or "origin_id" in identity:
        return None
    [member] = identity["members"]
    if "merged_into" in member or "erased_time" in member:
        return None
    return member_of(member, held_since=held_of(identity).since_time)
