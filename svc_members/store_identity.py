"""Identities in MongoDB: whose each is. Documents `{_id: brand|KIND|hash, member_id, sealed}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chassis import backoff
from chassis.errors import Conflict, Refused
from chassis.mongo import failures, transaction
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.identities import Link, StoredIdentity

IDENTITIES_MAX = 50
"""Most identities of one member."""
_ATTEMPTS = 10
INDEXES = (Index("identities", "by_member", [("brand_id", 1), ("member_id", 1)]),)


class IdentityStore:
    """Reads and writes identities, and the members that they bring into being."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._links = database["identities"]
        self._members = database["members"]

    async def holders(self, brand_id: str, indexes: Sequence[str]) -> dict[str, str]:
        """The member ids of identities, by index; unknown ones are left out."""
        ids = [f"{brand_id}|{index}" for index in set(indexes)]
        found = await self._links.find({"_id": {"$in": ids}}, {"member_id": 1}).to_list(None)
        return {link["_id"].partition("|")[2]: link["member_id"] for link in found}

    async def links(self, brand_id: str, member_id: str) -> list[Link]:
        """What a member is known by, oldest first."""
        found = self._links.find({"brand_id": brand_id, "member_id": member_id}).limit(IDENTITIES_MAX)
        links = [_link(document) async for document in found]
        return sorted(links, key=lambda link: (link.linked_time, link.identity.index))

    async def link_first(
        self, brand_id: str, member_id: str, identity: StoredIdentity, now: datetime
    ) -> None:
        """Links a new member's identity. Raises: Conflict MEMBER_CHANGED when it is another's by now."""
        link = link_document(brand_id, identity, member_id, now)
        try:
            await self._links.insert_one(link)
        except DuplicateKeyError:
            # A majority read may not see the other's link yet; a write, even one that changes nothing,
            # waits until every later read does.
            held = await self._links.find_one_and_update(
                {"_id": link["_id"]}, {"$set": {"brand_id": brand_id}}
            )
            if held is None or held["member_id"] != member_id:
                raise changed_meanwhile() from None

    async def are_of(self, brand_id: str, member_id: str, guide: Document, index: str = "") -> bool:
        """Whether the member is the guide: one of his identities, or the one at `index`, is her account."""
        accounts = {account["index"] for account in guide.get("accounts", ())}
        if not accounts or index in accounts:
            return bool(accounts)
        return any(link.identity.index in accounts for link in await self.links(brand_id, member_id))

    async def enrol(
        self, brand_id: str, identities: Sequence[StoredIdentity], new_id: Callable[[], str], now: datetime
    ) -> tuple[str, bool]:
        """Makes one member hold all the identities; his id, and whether he is new.

        Raises: Refused IDENTITIES_OF_DIFFERENT_MEMBERS, TOO_MANY_IDENTITIES; Conflict MEMBER_CHANGED.
        """
        for attempt in range(_ATTEMPTS):
            held = await self.holders(brand_id, [identity.index for identity in identities])
            members = set(held.values())
            if len(members) > 1:
                raise _different()
            member_id = members.pop() if members else new_id()
            missing = [identity for identity in identities if identity.index not in held]
            try:
                if missing or await self._unwritten(brand_id, member_id):
                    await self._linked(brand_id, member_id, missing, now)
            except DuplicateKeyError:
                await backoff.pause(attempt)
            else:
                return member_id, not held
        raise changed_meanwhile()

    async def link(self, brand_id: str, member_id: str, identity: StoredIdentity, now: datetime) -> None:
        """Links one identity to a member who exists.

        Raises: Refused IDENTITIES_OF_DIFFERENT_MEMBERS, TOO_MANY_IDENTITIES; Conflict MEMBER_CHANGED.
        """
        for attempt in range(_ATTEMPTS):
            holder = (await self.holders(brand_id, [identity.index])).get(identity.index)
            if holder == member_id:
                return
            if holder is not None:
                raise _different()
            try:
                await self._linked(brand_id, member_id, [identity], now)
            except DuplicateKeyError:
                await backoff.pause(attempt)
        raise changed_meanwhile()

    async def _unwritten(self, brand_id: str, member_id: str) -> bool:
        return await self._members.find_one({"_id": f"{brand_id}|{member_id}"}, {"_id": 1}) is None

    async def _linked(
        self, brand_id: str, member_id: str, identities: Sequence[StoredIdentity], now: datetime
    ) -> None:
        """Writes links and member in one transaction: all of them or none.

        Raises: DuplicateKeyError when one of the identities was linked meanwhile.
        """

        async def body(started: Session) -> None:
            whose = {"brand_id": brand_id, "member_id": member_id}
            count = len(identities)
            if await self._members.find_one({"_id": f"{brand_id}|{member_id}"}, session=started) is None:
                # An enrolment that was cut off linked identities and counted none.
                count += await self._links.count_documents(whose, session=started)
            written = await self._members.find_one_and_update(
                {"_id": f"{brand_id}|{member_id}"},
                {
                    "$inc": {"identity_count": count, "rev": 1},
                    "$setOnInsert": {**whose, "rows": [], "create_time": now},
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=started,
            )
            if written is None or written["identity_count"] > IDENTITIES_MAX:
                raise Refused("TOO_MANY_IDENTITIES", f"a member has at most {IDENTITIES_MAX} identities")
            if identities:
                links = [link_document(brand_id, identity, member_id, now) for identity in identities]
                await self._links.insert_many(links, session=started)

        try:
            await transaction.run(self._database, body)
        except BulkWriteError as error:
            failures.duplicates(error)
            raise DuplicateKeyError("an identity was linked meanwhile", failures.DUPLICATE_KEY) from error


def changed_meanwhile() -> Conflict:
    """Somebody else wrote the member since he was read."""
    return Conflict("MEMBER_CHANGED", "the member was written meanwhile", retry_after_s=0.05)


def _different() -> Refused:
    return Refused("IDENTITIES_OF_DIFFERENT_MEMBERS", "an identity belongs to another member already")


def link_document(brand_id: str, identity: StoredIdentity, member_id: str, now: datetime) -> Document:
    """The document of an identity that is linked to a member."""
    return {
        "_id": f"{brand_id}|{identity.index}",
        "brand_id": brand_id,
        "member_id": member_id,
        "kind": identity.kind,
        "app_id": identity.app_id,
        "sealed": identity.sealed,
        "masked": identity.masked,
        "linked_time": now,
    }


def _link(document: Document) -> Link:
    return Link(
        identity=StoredIdentity(
            index=document["_id"].partition("|")[2],
            kind=document["kind"],
            app_id=document["app_id"],
            sealed=bytes(document["sealed"]),
            masked=document["masked"],
        ),
        member_id=document["member_id"],
        linked_time=document["linked_time"],
    )
