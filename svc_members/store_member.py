"""Members, their identities and their bindings in MongoDB.

Documents: identities `{_id: brand|KIND|hash, member_id, sealed}`; members `{_id: brand|member, rev, rows}`.
All that a scan decides about one member is one compare-and-set on his document, whose pipeline takes the
time of recording from the primary's clock and keeps it rising.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chassis import backoff
from chassis.clock import Clock
from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo import failures, transaction
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.identities import Link, StoredIdentity
from svc_members.rules.binding import Cause, Decision, Row

IDENTITIES_MAX = 50
_ATTEMPTS = 20
INDEXES = (
    Index("identities", "by_member", [("brand_id", 1), ("member_id", 1)]),
    Index(
        "members",
        "by_standing_guide",
        [("brand_id", 1), ("standing.guide_id", 1), ("_id", 1)],
        {"partialFilterExpression": {"standing.guide_id": {"$exists": True}}},
    ),
    Index(
        "members",
        "by_activity",
        [("brand_id", 1), ("standing.active_time", 1)],
        {"partialFilterExpression": {"standing.active_time": {"$exists": True}}},
    ),
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member as read. `rev` 0: he is known by an identity alone, his document is yet to be written."""

    brand_id: str
    member_id: str
    rev: int
    rows: tuple[Row, ...]
    create_time: datetime


class MemberStore:
    """Reads and writes members."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._identities = database["identities"]
        self._members = database["members"]
        self._clock = clock

    async def find(self, brand_id: str, member_id: str) -> Member:
        """Raises: NotFound MEMBER_UNKNOWN."""
        found = await self._members.find_one({"_id": f"{brand_id}|{member_id}"})
        if found is None:
            raise _unknown()
        return _member(found)

    async def find_many(self, brand_id: str, member_ids: Sequence[str]) -> dict[str, tuple[Row, ...]]:
        """The binding rows of the members that exist, by member id."""
        ids = [f"{brand_id}|{member_id}" for member_id in set(member_ids)]
        found = await self._members.find({"_id": {"$in": ids}}, {"member_id": 1, "rows": 1}).to_list(None)
        return {member["member_id"]: _rows(member) for member in found}

    async def holders(self, brand_id: str, indexes: Sequence[str]) -> dict[str, str]:
        """The member ids of identities, by index; unknown ones are left out."""
        ids = [f"{brand_id}|{index}" for index in set(indexes)]
        found = await self._identities.find({"_id": {"$in": ids}}, {"member_id": 1}).to_list(None)
        return {link["_id"].partition("|")[2]: link["member_id"] for link in found}

    async def links(self, brand_id: str, member_id: str) -> list[Link]:
        """What a member is known by, oldest first."""
        found = self._identities.find({"brand_id": brand_id, "member_id": member_id}).limit(IDENTITIES_MAX)
        links = [_link(document) async for document in found]
        return sorted(links, key=lambda link: (link.linked_time, link.identity.index))

    async def holder_of(
        self, brand_id: str, identity: StoredIdentity, new_id: Callable[[], str], now: datetime
    ) -> Member:
        """The member who holds the identity; a new one, nowhere written yet, where nobody does.

        A member whose enrolment was cut off between its two writes is found here under the id that the
        first of them gave him, and completed by the next write to him.
        """
        held = await self._identities.find_one({"_id": f"{brand_id}|{identity.index}"}, {"member_id": 1})
        if held is None:
            return Member(brand_id, new_id(), 0, (), now)
        found = await self._members.find_one({"_id": f"{brand_id}|{held['member_id']}"})
        return _member(found) if found else Member(brand_id, held["member_id"], 0, (), now)

    async def save_rows(
        self, member: Member, decision: Decision, identity: StoredIdentity | None = None
    ) -> Member:
        """Supersedes and adds the decided rows in one write, and returns the member as written.

        A new member's identity is linked first: it is what two scans of one customer meet at.

        Raises: Conflict MEMBER_CHANGED when someone wrote the member since he was read.
        """
        if member.rev == 0:
            assert identity is not None, "a member who is not written yet is known by an identity alone"
            await self._link_first(member, identity)
        try:
            written = await self._members.find_one_and_update(
                {"_id": f"{member.brand_id}|{member.member_id}", "rev": member.rev},
                self.rows_update(member, decision),
                upsert=member.rev == 0,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            written = None
        if written is None:
            raise _changed()
        return _member(written)

    async def _link_first(self, member: Member, identity: StoredIdentity) -> None:
        """Links a new member's identity. Raises: Conflict MEMBER_CHANGED when it is another's by now."""
        link = link_document(member.brand_id, identity, member.member_id, member.create_time)
        try:
            await self._identities.insert_one(link)
        except DuplicateKeyError:
            # A majority read may not see the other's link yet; a write, even one that changes nothing,
            # waits until every later read does.
            held = await self._identities.find_one_and_update(
                {"_id": link["_id"]}, {"$set": {"brand_id": member.brand_id}}
            )
            if held is None or held["member_id"] != member.member_id:
                raise _changed() from None

    async def decided(
        self,
        read: Callable[[], Awaitable[Member]],
        decide: Callable[[Member, str], Awaitable[Decision]],
        identity: StoredIdentity | None = None,
    ) -> tuple[Member, Decision]:
        """Reads a member, decides, writes; again when somebody else wrote in between.

        `decide` gets the id with which those of new rows begin. `identity` is needed where `read` may give
        a member who is not written yet. Raises: Conflict MEMBER_CHANGED when that goes on and on.
        """
        for attempt in itertools.count():
            member = await read()
            decision = await decide(member, f"{member.member_id}.{member.rev + 1}")
            if not decision.added:
                return member, decision
            try:
                return await self.save_rows(member, decision, identity), decision
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
            # Many scans of one customer at once: whoever lost reads what the winner wrote.
            await backoff.pause(attempt)
        raise AssertionError("unreachable: the loop returns or raises")

    def rows_update(self, member: Member, decision: Decision, *, identity_count: int = 1) -> list[Document]:
        """The update that carries out a decision. `identity_count` is that of a new member."""
        now: Any = self._clock.database_now()
        rising = {"$max": [now, {"$add": ["$last_recorded_time", 1]}]}
        rows: Any = {"$ifNull": ["$rows", []]}
        if decision.superseded:
            replaced = {"$in": ["$$row.binding_id", list(decision.superseded)]}
            ended = {"$mergeObjects": ["$$row", {"superseded_time": "$$recorded"}]}
            rows = {"$map": {"input": rows, "as": "row", "in": {"$cond": [replaced, ended, "$$row"]}}}
        added = [
            {"$mergeObjects": [{"$literal": asdict(row)}, {"recorded_time": "$$recorded"}]}
            for row in decision.added
        ]
        changed: Document = {
            "rows": {"$concatArrays": [rows, added]},
            "last_recorded_time": "$$recorded",
            # What stands, beside the rows: members are found by it.
            "standing": _standing_document(decision.standing),
        }
        return [
            {
                "$replaceWith": {
                    "$let": {
                        "vars": {"recorded": {"$cond": ["$last_recorded_time", rising, now]}},
                        "in": {
                            "$mergeObjects": [
                                "$$ROOT",
                                self._identity_fields(member, identity_count),
                                changed,
                            ]
                        },
                    }
                }
            }
        ]

    def _identity_fields(self, member: Member, identity_count: int) -> Document:
        return {
            "brand_id": member.brand_id,
            "member_id": member.member_id,
            "rev": member.rev + 1,
            "create_time": {"$literal": member.create_time},
            "identity_count": {"$ifNull": ["$identity_count", identity_count]},
        }

    async def record_activity(
        self, brand_id: str, member_id: str, kind: str, time: datetime, *, renews: bool, guide_id: str = ""
    ) -> datetime:
        """Keeps the latest activity of a kind (`purchase`, `contact`), and returns it.

        `renews`: the standing row then counts as active.

        With `guide_id`, only where he is that guide's. Raises: NotFound MEMBER_UNKNOWN; Refused
        NOT_HER_MEMBER.
        """
        field = f"last_{kind}_time"
        changed: Document = {field: {"$max": [f"${field}", time]}, "rev": {"$add": ["$rev", 1]}}
        if renews:
            renewed = {"$max": ["$standing.active_time", time]}
            changed["standing"] = {
                "$cond": [
                    {"$eq": [{"$type": "$standing"}, "object"]},
                    {"$mergeObjects": ["$standing", {"active_time": renewed}]},
                    "$standing",
                ]
            }
        criteria = {"_id": f"{brand_id}|{member_id}"} | ({"standing.guide_id": guide_id} if guide_id else {})
        written = await self._members.find_one_and_update(
            criteria, [{"$set": changed}], {field: 1}, return_document=ReturnDocument.AFTER
        )
        if written is None:
            await self.find(brand_id, member_id)
            raise Refused("NOT_HER_MEMBER", "the member is not this guide's")
        latest: datetime = written[field]
        return latest

    async def page_of_guide(self, brand_id: str, guide_id: str, after_id: str, size: int) -> list[Member]:
        """Up to `size` members whose standing row is the guide's, by member id, after one."""
        query = {
            "brand_id": brand_id,
            "standing.guide_id": guide_id,
            "_id": {"$gt": f"{brand_id}|{after_id}"},
        }
        return [_member(found) async for found in self._members.find(query).sort("_id", 1).limit(size)]

    async def count_of_guide(self, brand_id: str, guide_id: str) -> int:
        """How many members a guide has."""
        return int(await self._members.count_documents({"brand_id": brand_id, "standing.guide_id": guide_id}))

    async def inactive(self, brand_id: str, active_before: datetime, size: int) -> list[Member]:
        """Up to `size` members whose standing row was last active before or at a time, longest ago first."""
        query = {"brand_id": brand_id, "standing.active_time": {"$lte": active_before}}
        found = self._members.find(query).sort("standing.active_time", 1).limit(size)
        return [_member(member) async for member in found]

    async def enrol(
        self, brand_id: str, identities: Sequence[StoredIdentity], new_id: Callable[[], str], now: datetime
    ) -> tuple[Member, bool]:
        """Makes one member hold all the identities; him, and whether he is new.

        Raises: Refused IDENTITIES_OF_DIFFERENT_MEMBERS, TOO_MANY_IDENTITIES.
        """
        for _attempt in range(5):
            holders = await self.holders(brand_id, [identity.index for identity in identities])
            members = set(holders.values())
            if len(members) > 1:
                raise _different()
            member_id = members.pop() if members else new_id()
            missing = [identity for identity in identities if identity.index not in holders]
            try:
                if missing or await self._unwritten(brand_id, member_id):
                    await self._linked(brand_id, member_id, missing, now)
            except DuplicateKeyError:
                continue
            return await self.find(brand_id, member_id), not holders
        raise Conflict("MEMBER_CHANGED", "others link the same identities", retry_after_s=0.1)

    async def link(self, brand_id: str, member_id: str, identity: StoredIdentity, now: datetime) -> Member:
        """Links one identity to a member who exists.

        Raises: NotFound MEMBER_UNKNOWN; Refused as `enrol`.
        """
        member = await self.find(brand_id, member_id)
        try:
            holder = (await self.holders(brand_id, [identity.index])).get(identity.index)
            if holder is None:
                await self._linked(brand_id, member_id, [identity], now)
        except DuplicateKeyError:
            holder = (await self.holders(brand_id, [identity.index])).get(identity.index, "")
        if holder not in (None, member_id):
            raise _different()
        return member

    async def _unwritten(self, brand_id: str, member_id: str) -> bool:
        return await self._members.find_one({"_id": f"{brand_id}|{member_id}"}, {"_id": 1}) is None

    async def _linked(
        self, brand_id: str, member_id: str, identities: Sequence[StoredIdentity], now: datetime
    ) -> None:
        """Writes links and member in one transaction: all of them or none.

        Raises: DuplicateKeyError when one of the identities was linked meanwhile.
        """

        async def body(started: Session) -> None:
            written = await self._members.find_one_and_update(
                {"_id": f"{brand_id}|{member_id}"},
                {
                    "$inc": {"identity_count": len(identities), "rev": 1},
                    "$setOnInsert": {
                        "brand_id": brand_id,
                        "member_id": member_id,
                        "rows": [],
                        "create_time": now,
                    },
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=started,
            )
            if written is None or written["identity_count"] > IDENTITIES_MAX:
                raise Refused("TOO_MANY_IDENTITIES", f"a member has at most {IDENTITIES_MAX} identities")
            if identities:
                links = [link_document(brand_id, identity, member_id, now) for identity in identities]
                await self._identities.insert_many(links, session=started)

        try:
            await transaction.run(self._database, body)
        except BulkWriteError as error:
            failures.duplicates(error)
            raise DuplicateKeyError("an identity was linked meanwhile", failures.DUPLICATE_KEY) from error


async def by_herself(members: MemberStore, member: Member, guide: Document, index: str = "") -> bool:
    """Whether the member is the guide: one of his identities, or the one at `index`, is her account."""
    accounts = {account["index"] for account in guide.get("accounts", ())}
    if not accounts:
        return False
    if index in accounts:
        return True
    links = await members.links(member.brand_id, member.member_id) if member.rev else []
    return any(link.identity.index in accounts for link in links)


def _standing_document(row: Row | None) -> Document | None:
    """The standing row's holder, and the last activity that keeps it from lapsing."""
    if row is None:
        return None
    return {"guide_id": row.guide_id, "store_id": row.store_id, "active_time": row.valid_from_time}


def _unknown() -> NotFound:
    return NotFound("MEMBER_UNKNOWN", "the brand knows no such member")


def _changed() -> Conflict:
    return Conflict("MEMBER_CHANGED", "the member was written meanwhile", retry_after_s=0.05)


def _different() -> Refused:
    return Refused("IDENTITIES_OF_DIFFERENT_MEMBERS", "an identity belongs to another member already")


def _row(document: Document) -> Row:
    return Row(**{**document, "cause": Cause(document["cause"])})


def _rows(document: Document) -> tuple[Row, ...]:
    return tuple(_row(row) for row in document["rows"])


def _member(document: Document) -> Member:
    return Member(
        brand_id=document["brand_id"],
        member_id=document["member_id"],
        rev=document["rev"],
        rows=_rows(document),
        create_time=document["create_time"],
    )


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
