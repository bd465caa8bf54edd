"""Identities in MongoDB: whose each is. Documents `{_id: brand|KIND|hash, member_id, sealed, holders}`.

`member_id` is who holds it now; missing: nobody. `holders` are the rows of `rules.holder`; they are written
once it has been anybody else's, until then its one holder has held it since ever, known since `linked_time`.
`origin_id`, beside a `member_id` that a merge gave: in whose name it was linked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from pymongo import InsertOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chassis import backoff
from chassis.clock import Clock
from chassis.errors import Conflict, Refused
from chassis.mongo import failures, transaction
from chassis.mongo.connection import Database, Document, Session, primary_time
from chassis.mongo.schema import Index
from chassis.times import EPOCH
from svc_members.member.identities import Link, StoredIdentity
from svc_members.rules import holder
from svc_members.rules.holder import Holder

IDENTITIES_MAX = 50
"""Most identities of one member."""
MEMBER_CHANGED: Final = "MEMBER_CHANGED"
"""The reason of a conflict after which everything is to be read again."""
_ATTEMPTS = 10
INDEXES = (
    Index(
        "identities",
        "by_holder",
        [("brand_id", 1), ("member_id", 1)],
        {"partialFilterExpression": {"member_id": {"$exists": True}}},
    ),
)


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds an identity now, and in whose name it was linked to him; empty: in his own.

    `since_time`: when he came to hold it. None: since ever.
    """

    member_id: str
    origin_id: str
    since_time: datetime | None = None


class IdentityStore:
    """Reads and writes identities, and the members that they bring into being."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._links = database["identities"]
        self._members = database["members"]

    async def holders(self, brand_id: str, indexes: Sequence[str]) -> dict[str, str]:
        """The member ids of identities, by index; those that nobody holds are left out."""
        ids = [f"{brand_id}|{index}" for index in set(indexes)]
        query = {"_id": {"$in": ids}}
        found = await self._links.find(query, {"member_id": 1}).to_list(None)
        return {link["_id"].partition("|")[2]: link["member_id"] for link in found if "member_id" in link}

    async def holder(self, brand_id: str, index: str) -> Held | None:
        """Who holds an identity. None: nobody."""
        return (await self._held(brand_id, [index])).get(index)

    async def _held(self, brand_id: str, indexes: Sequence[str]) -> dict[str, Held]:
        ids = [f"{brand_id}|{index}" for index in indexes]
        wanted = {"member_id": 1, "origin_id": 1, "holders": 1}
        found = await self._links.find({"_id": {"$in": ids}}, wanted).to_list(None)
        return {link["_id"].partition("|")[2]: held_of(link) for link in found if "member_id" in link}

    async def links(self, brand_id: str, member_id: str) -> list[Link]:
        """What a member is known by, oldest first."""
        found = self._links.find({"brand_id": brand_id, "member_id": member_id}).limit(IDENTITIES_MAX)
        links = [_link(document) async for document in found]
        return sorted(links, key=lambda link: (link.linked_time, link.identity.index))

    async def link_first(self, brand_id: str, member_id: str, identity: StoredIdentity) -> None:
        """Links a new member's identity. Raises: Conflict MEMBER_CHANGED when it is another's by now."""
        link = link_document(brand_id, identity, Held(member_id, ""), EPOCH)
        recorded = {"linked_time": self._clock.database_now()}
        try:
            # Matches nothing that is there: it is inserted, with the primary's time, or a duplicate.
            await self._links.update_one(
                {"_id": link["_id"], "kind": None},
                [{"$replaceWith": {"$mergeObjects": [{"$literal": link}, recorded]}}],
                upsert=True,
            )
        except DuplicateKeyError:
            await self._link_again(brand_id, member_id, identity)

    async def _link_again(self, brand_id: str, member_id: str, identity: StoredIdentity) -> None:
        """Links an identity that somebody holds by now, or gave up before. Raises: as `link_first`."""
        # A majority read may not see the other's link yet; a write, even one that changes nothing,
        # waits until every later read does.
        found = await self._links.find_one_and_update(
            {"_id": f"{brand_id}|{identity.index}"}, {"$set": {"brand_id": brand_id}}
        )
        if found is not None and found.get("member_id") == member_id:
            return
        if found is None or "member_id" in found:
            raise changed_meanwhile()
        try:
            await self._links.bulk_write(await self.link_writes(brand_id, [(identity, Held(member_id, ""))]))
        except BulkWriteError as error:
            failures.duplicates(error)
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
            held = await self._held(brand_id, [identity.index for identity in identities])
            members = {holds.member_id for holds in held.values()}
            if len(members) > 1:
                raise Refused(
                    "IDENTITIES_OF_DIFFERENT_MEMBERS", "the identities belong to different members already"
                )
            member_id = members.pop() if members else new_id()
            # What comes with an identity of a merged member is his, should they be separated.
            origins = {holds.origin_id for holds in held.values()}
            origin_id = origins.pop() if len(origins) == 1 else ""
            missing = [identity for identity in identities if identity.index not in held]
            try:
                if missing or await self._unwritten(brand_id, member_id):
                    await self._linked(brand_id, Held(member_id, origin_id), missing, now)
                return member_id, not held
            except DuplicateKeyError:
                pass
            except Conflict as conflict:
                if conflict.reason != MEMBER_CHANGED:
                    raise
            await backoff.pause(attempt)
        raise changed_meanwhile()

    async def link(self, brand_id: str, held: Held, identity: StoredIdentity, now: datetime) -> str:
        """Links one identity to a member who exists; returns who holds it then: he, or whoever held it.

        Raises: Refused TOO_MANY_IDENTITIES; Conflict MEMBER_CHANGED.
        """
        for attempt in range(_ATTEMPTS):
            holds = await self.holder(brand_id, identity.index)
            try:
                if holds is None:
                    await self._linked(brand_id, held, [identity], now)
                    continue
                if await self._unwritten(brand_id, holds.member_id):
                    # His enrolment was cut off.
                    await self._linked(brand_id, holds, [], now)
                return holds.member_id
            except DuplicateKeyError:
                await backoff.pause(attempt)
        raise changed_meanwhile()

    async def unlink(
        self, brand_id: str, held: Held, index: str, time: datetime | None, now: datetime
    ) -> None:
        """Ends a member's holding of an identity, at a time that is past or now (None).

        Raises: Refused NOT_HIS_IDENTITY, UNLINKED_BEFORE_LINKED; Conflict MEMBER_CHANGED,
        TRANSACTION_CONTENDED.
        """

        async def body(started: Session) -> None:
            key = {"_id": f"{brand_id}|{held.member_id}"}
            _check_answers(await self._members.find_one(key, session=started), held)
            found = await self._links.find_one({"_id": f"{brand_id}|{index}"}, session=started)
            rows = holders_of(found) if found else ()
            after = holder.ended(rows, held.member_id, time, now, await self.stamp())
            if after == rows:
                return
            counted = {"$inc": {"identity_count": -1, "rev": 1}}
            await self._members.update_one(key, counted, session=started)
            await self._links.update_one(
                {"_id": f"{brand_id}|{index}"},
                {
                    "$set": {"holders": [asdict(row) for row in after]},
                    "$unset": {"member_id": "", "origin_id": ""},
                },
                session=started,
            )

        await transaction.run(self._database, body)

    async def _unwritten(self, brand_id: str, member_id: str) -> bool:
        return await self._members.find_one({"_id": f"{brand_id}|{member_id}"}, {"_id": 1}) is None

    async def _linked(
        self, brand_id: str, held: Held, identities: Sequence[StoredIdentity], now: datetime
    ) -> None:
        """Writes links and member in one transaction: all of them or none.

        Raises: DuplicateKeyError when one of the identities was linked meanwhile.
        """

        async def body(started: Session) -> None:
            # Stamped anew at every attempt: what is recorded must be known a moment later.
            writes = await self.link_writes(brand_id, [(identity, held) for identity in identities])
            whose = {"brand_id": brand_id, "member_id": held.member_id}
            count = len(identities)
            if await self._members.find_one({"_id": f"{brand_id}|{held.member_id}"}, session=started) is None:
                # An enrolment that was cut off linked identities and counted none.
                count += await self._links.count_documents(whose, session=started)
            written = await self._members.find_one_and_update(
                {"_id": f"{brand_id}|{held.member_id}"},
                {
                    "$inc": {"identity_count": count, "rev": 1},
                    "$setOnInsert": {**whose, "rows": [], "create_time": now},
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=started,
            )
            if written is None or written["identity_count"] > IDENTITIES_MAX:
                raise too_many_identities()
            _check_answers(written, held)
            if writes:
                await self._links.bulk_write(writes, session=started)

        try:
            await transaction.run(self._database, body)
        except BulkWriteError as error:
            failures.duplicates(error)
            raise DuplicateKeyError("an identity was linked meanwhile", failures.DUPLICATE_KEY) from error

    async def link_writes(
        self, brand_id: str, links: Sequence[tuple[StoredIdentity, Held]]
    ) -> list[InsertOne[Document] | UpdateOne]:
        """The writes that link identities which nobody holds, in order.

        Each fails as a duplicate where somebody does by then.
        """
        ids = [f"{brand_id}|{identity.index}" for identity, _ in links]
        query = {"_id": {"$in": ids}, "member_id": None}
        found = await self._links.find(query, {"holders": 1}).to_list(None)
        given_up = {link["_id"]: link for link in found}
        stamp = await self.stamp()
        return [
            _link_write(link_document(brand_id, identity, held, stamp), given_up) for identity, held in links
        ]

    async def stamp(self) -> datetime:
        """The primary's time, for writes of more than one statement."""
        return await primary_time(self._database) + self._clock.shift()


def changed_meanwhile() -> Conflict:
    """Somebody else wrote the member since he was read."""
    return Conflict(MEMBER_CHANGED, "the member was written meanwhile", retry_after_s=0.05)


def too_many_identities() -> Refused:
    """He would have more than `IDENTITIES_MAX`."""
    return Refused("TOO_MANY_IDENTITIES", f"a member has at most {IDENTITIES_MAX} identities")


def link_document(brand_id: str, identity: StoredIdentity, held: Held, linked_time: datetime) -> Document:
    """The document of an identity that is linked for the first time."""
    link: Document = {
        "_id": f"{brand_id}|{identity.index}",
        "brand_id": brand_id,
        "member_id": held.member_id,
        "kind": identity.kind,
        "app_id": identity.app_id,
        "sealed": identity.sealed,
        "masked": identity.masked,
        "linked_time": linked_time,
    }
    return link | ({"origin_id": held.origin_id} if held.origin_id else {})


def holders_of(document: Document) -> tuple[Holder, ...]:
    """Whose the identity of a document was. Needs `member_id`, `linked_time` and `holders` of it.

    To change the rows, `origin_id` as well.
    """
    if "holders" in document:
        return tuple(Holder(**row) for row in document["holders"])
    linked_time, origin_id = document["linked_time"], document.get("origin_id", "")
    return (Holder(document["member_id"], None, None, linked_time, None, origin_id),)


def _check_answers(document: Document | None, held: Held) -> None:
    """Whether a member answers for himself still, and for the merged one in whose name he is written.

    Raises: Conflict MEMBER_CHANGED.
    """
    if document is None or "merged_into" in document or "erased_time" in document:
        raise changed_meanwhile()
    if held.origin_id and held.origin_id not in document.get("absorbed", ()):
        raise changed_meanwhile()


def held_of(link: Document) -> Held:
    """Who holds an identity, of its document. Needs `member_id`, `origin_id` and `holders` of it."""
    rows = link.get("holders", ())
    since = next((row["valid_from_time"] for row in rows if _stands(row)), None)
    return Held(link["member_id"], link.get("origin_id", ""), since)


def _stands(row: Document) -> bool:
    return row["superseded_time"] is None and row["valid_to_time"] is None


def _link_write(link: Document, given_up: Mapping[str, Document]) -> InsertOne[Document] | UpdateOne:
    before = given_up.get(link["_id"])
    if before is None or "holders" not in before:
        return InsertOne(link)
    held = link["member_id"], link["linked_time"], link.get("origin_id", "")
    rows = holder.begun(holders_of(before), *held)
    # Matches nothing where somebody holds it by now, or held it meanwhile: then it is a duplicate.
    unchanged = {"_id": link["_id"], "member_id": None, "holders": before["holders"]}
    return UpdateOne(unchanged, {"$set": link | {"holders": [asdict(row) for row in rows]}}, upsert=True)


def identity_of(document: Document) -> StoredIdentity:
    """The identity of a document."""
    return StoredIdentity(
        index=document["_id"].partition("|")[2],
        kind=document["kind"],
        app_id=document["app_id"],
        sealed=bytes(document["sealed"]),
        masked=document["masked"],
    )


def _link(document: Document) -> Link:
    return Link(
        identity=identity_of(document),
        member_id=document["member_id"],
        linked_time=document["linked_time"],
    )
