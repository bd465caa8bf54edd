"""Members and their bindings in MongoDB. Documents `{_id: brand|member, rev, rows, standing}`.

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
from pymongo.errors import DuplicateKeyError

from chassis import backoff
from chassis.clock import Clock
from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_members.identities import StoredIdentity
from svc_members.rules.binding import Cause, Decision, Row
from svc_members.store_identity import IdentityStore, changed_meanwhile

_ATTEMPTS = 20
INDEXES = (
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

    def __init__(self, database: Database, identities: IdentityStore, clock: Clock) -> None:
        self._identities = identities
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

    async def holder_of(
        self, brand_id: str, identity: StoredIdentity, new_id: Callable[[], str], now: datetime
    ) -> Member:
        """The member who holds the identity; a new one, nowhere written yet, where nobody does.

        A member whose enrolment was cut off between its two writes is found here under the id that the
        first of them gave him, and completed by the next write to him.
        """
        member_id = (await self._identities.holders(brand_id, [identity.index])).get(identity.index)
        if member_id is None:
            return Member(brand_id, new_id(), 0, (), now)
        found = await self._members.find_one({"_id": f"{brand_id}|{member_id}"})
        return _member(found) if found else Member(brand_id, member_id, 0, (), now)

    async def save_rows(
        self, member: Member, decision: Decision, identity: StoredIdentity | None = None
    ) -> Member:
        """Supersedes and adds the decided rows in one write, and returns the member as written.

        A new member's identity is linked first: it is what two scans of one customer meet at.

        Raises: Conflict MEMBER_CHANGED when someone wrote the member since he was read.
        """
        if member.rev == 0:
            assert identity is not None, "a member who is not written yet is known by an identity alone"
            await self._identities.link_first(member.brand_id, member.member_id, identity, member.create_time)
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
            raise changed_meanwhile()
        return _member(written)

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


def _standing_document(row: Row | None) -> Document | None:
    """The standing row's holder, and the last activity that keeps it from lapsing."""
    if row is None:
        return None
    return {"guide_id": row.guide_id, "store_id": row.store_id, "active_time": row.valid_from_time}


def _unknown() -> NotFound:
    return NotFound("MEMBER_UNKNOWN", "the brand knows no such member")


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
