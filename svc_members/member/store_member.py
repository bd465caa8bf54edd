"""Members and their bindings in MongoDB: `members`, in the form of `member_document`.

All that a scan decides about one member is one compare-and-set on his document, whose pipeline takes the
time of recording from the primary's clock and keeps it rising. Rows beyond the last few stand in
`binding_history`, one document a row; they go there in one transaction with the write that pushes them out.

A member who was merged into another has `merged_into`, one who was erased `erased_time`: nothing is decided
about either any more.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from chassis import backoff
from chassis.clock import Clock
from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo import transaction
from chassis.mongo.connection import Database, Document, Session
from chassis.mongo.schema import Index
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import NO_CHANGES, Member, WholeMember, member_of, row_of, rows_update
from svc_members.member.store_identity import Held, IdentityStore, changed_meanwhile
from svc_members.rules import binding
from svc_members.rules.binding import Decision

ACTIVITIES: Final = ("purchase", "contact", "renewal")
"""Of each kind the latest is kept. `renewal`: one of either that kept a binding from lapsing."""
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


class MemberStore:
    """Reads and writes members."""

    def __init__(self, database: Database, identities: IdentityStore, clock: Clock) -> None:
        self._database = database
        self._identities = identities
        self._members = database["members"]
        self._history = database["binding_history"]
        self._clock = clock

    async def find(self, brand_id: str, member_id: str) -> Member:
        """The member who answers for an id: whoever he was merged into, if he was.

        Raises: NotFound MEMBER_UNKNOWN, MEMBER_ERASED.
        """
        found = await self._answering(brand_id, member_id)
        if found is None:
            raise unknown()
        if "erased_time" in found:
            raise NotFound("MEMBER_ERASED", "the member was erased")
        return member_of(found, "" if found["member_id"] == member_id else member_id)

    async def _answering(self, brand_id: str, member_id: str) -> Document | None:
        """The document of whoever answers for an id. Raises: Conflict MEMBER_CHANGED."""
        for _ in range(_ATTEMPTS):
            found = await self._members.find_one({"_id": f"{brand_id}|{member_id}"})
            while found is not None and "merged_into" in found:
                found = await self._members.find_one({"_id": f"{brand_id}|{found['merged_into']}"})
            if found is None or _answers_for(found, member_id):
                return found
            # A merge was undone between two reads.
        raise changed_meanwhile()

    async def existing(self, brand_id: str, member_ids: Sequence[str]) -> set[str]:
        """Which of the ids are written, merged and erased ones included."""
        ids = [f"{brand_id}|{member_id}" for member_id in set(member_ids)]
        found = await self._members.find({"_id": {"$in": ids}}, {"member_id": 1}).to_list(None)
        return {member["member_id"] for member in found}

    async def holder_of(
        self, brand_id: str, identity: StoredIdentity, new_id: Callable[[], str], now: datetime
    ) -> Member:
        """The member who holds the identity; a new one, nowhere written yet, where nobody does.

        A member whose enrolment was cut off between its two writes is found here under the id that the
        first of them gave him, and completed by the next write to him. Raises: Conflict MEMBER_CHANGED.
        """
        held = await self._identities.holder(brand_id, identity.index)
        if held is None:
            return Member(brand_id, new_id(), 0, (), now)
        found = await self._answering(brand_id, held.member_id)
        if found is None:
            return Member(brand_id, held.member_id, 0, (), now)
        if "erased_time" in found:
            # The identity goes with him this moment; the next read finds nobody's.
            raise changed_meanwhile()
        if held.origin_id and not _answers_for(found, held.origin_id):
            # A merge was undone between the two reads.
            raise changed_meanwhile()
        return member_of(found, _origin_of(held, found["member_id"]), held.since_time)

    async def reached_by(self, member: Member, index: str) -> Member:
        """A member, as found by an identity of his; as he is, where it is another's."""
        held = await self._identities.holder(member.brand_id, index)
        if held is None or held.member_id != member.member_id:
            return member
        return replace(member, origin_id=_origin_of(held, member.member_id))

    async def save_rows(
        self,
        member: Member,
        decision: Decision,
        identity: StoredIdentity | None = None,
        changes: Mapping[str, Any] = NO_CHANGES,
    ) -> Member:
        """Supersedes and adds the decided rows in one write, and returns the member as written.

        A new member's identity is linked first: it is what two scans of one customer meet at. `changes`
        are fields of his document that change with the rows.

        Raises: Conflict MEMBER_CHANGED when someone wrote the member since he was read.
        """
        if member.rev == 0:
            assert identity is not None, "a member who is not written yet is known by an identity alone"
            await self._identities.link_first(member.brand_id, member.member_id, identity)
        try:
            written = await self._written(member, decision, changes)
        except DuplicateKeyError:
            written = None
        if written is None:
            raise changed_meanwhile()
        return replace(member_of(written), origin_id=member.origin_id, not_before=member.not_before)

    async def _written(
        self, member: Member, decision: Decision, changes: Mapping[str, Any]
    ) -> Document | None:
        if not _touches_history(member, decision):
            return await self.write(member, decision, changes)

        async def body(started: Session) -> Document | None:
            return await self.write(member, decision, changes, started)

        return await transaction.run(self._database, body)

    async def write(
        self,
        member: Member,
        decision: Decision,
        changes: Mapping[str, Any] = NO_CHANGES,
        started: Session | None = None,
        *,
        stamp: datetime | None = None,
        active_time: datetime | None = None,
    ) -> Document | None:
        """The member's document once a decision is carried out; None where he was written meanwhile.

        In a transaction, rows that go to `binding_history` and rows there that are superseded follow.
        `stamp`: the primary's time, where more than this write is to be recorded at it. `active_time`: as
        of `rows_update`.
        """
        pushed_out = binding.pushed_out(member.rows, decision) if started else []
        now = stamp or self._clock.database_now()
        written = await self._members.find_one_and_update(
            {"_id": member.key, "rev": member.rev},
            rows_update(member, decision, now, changes, pushed_out, active_time),
            upsert=member.rev == 0,
            return_document=ReturnDocument.AFTER,
            session=started,
        )
        if written is None or not started:
            return written
        whose = {"brand_id": member.brand_id, "member_id": member.member_id}
        if pushed_out:
            older = [{"_id": f"{member.key}|{row.binding_id}", **whose, **asdict(row)} for row in pushed_out]
            await self._history.insert_many(older, session=started)
        in_document = {row.binding_id for row in member.rows}
        there = [
            f"{member.key}|{superseded}"
            for superseded in decision.superseded
            if superseded not in in_document
        ]
        if there:
            superseded = {"superseded_time": written["last_recorded_time"]}
            await self._history.update_many({"_id": {"$in": there}}, {"$set": superseded}, session=started)
        return written

    async def whole(self, brand_id: str, member_id: str, started: Session) -> WholeMember:
        """A member by his own id, merged or not, with all his rows. Raises: Conflict MEMBER_CHANGED."""
        found = await self._members.find_one({"_id": f"{brand_id}|{member_id}"}, session=started)
        if found is None:
            raise changed_meanwhile()
        member = member_of(found)
        rows = list(member.rows)
        if member.history_count:
            query = {"brand_id": brand_id, "member_id": member_id}
            wanted = {"_id": 0, "brand_id": 0, "member_id": 0}
            older = await self._history.find(query, wanted, session=started).to_list(None)
            rows += [row_of(row) for row in older]
        return WholeMember(found, member, tuple(rows))

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
            try:
                member = await read()
                decision = await decide(member, member.next_id)
                if not decision.added and not decision.superseded:
                    return member, decision
                return await self.save_rows(member, decision, identity), decision
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
            # Many scans of one customer at once: whoever lost reads what the winner wrote.
            await backoff.pause(attempt)
        raise AssertionError("unreachable: the loop returns or raises")

    async def record_activity(
        self, member: Member, kind: str, time: datetime, *, renews: bool, guide_id: str = ""
    ) -> datetime:
        """Keeps the latest activity of a kind of `ACTIVITIES`, and returns it.

        `renews`: the standing row then counts as active. With `guide_id`, only where he is that guide's.

        Raises: Refused NOT_HER_MEMBER; NotFound MEMBER_ERASED; Conflict MEMBER_CHANGED.
        """
        criteria, update = _activity_update(
            member.brand_id, member.member_id, member.origin_id, kind, time, renews=renews
        )
        if guide_id:
            criteria["standing.guide_id"] = guide_id
        field = f"last_{kind}_time"
        written = await self._members.find_one_and_update(
            criteria, update, {field: 1}, return_document=ReturnDocument.AFTER
        )
        if written is None:
            origin_id = member.origin_id or member.member_id
            if (await self.find(member.brand_id, origin_id)).member_id != member.member_id:
                raise changed_meanwhile()
            raise Refused("NOT_HER_MEMBER", "the member is not this guide's")
        latest_time: datetime = written[field]
        return latest_time

    async def record_purchases(
        self, brand_id: str, purchases: Sequence[tuple[str, str, datetime]], *, renews: bool
    ) -> bool:
        """Keeps the latest purchase of each: of whom, in whose name, when. Whether all were noted.

        One that was merged or erased meanwhile is not; to note it again changes nothing.
        """
        writes = [
            UpdateOne(*_activity_update(brand_id, member_id, origin_id, "purchase", time, renews=renews))
            for member_id, origin_id, time in purchases
        ]
        written = await self._members.bulk_write(writes, ordered=False)
        return written.matched_count == len(writes)

    async def page_of_guide(self, brand_id: str, guide_id: str, after_id: str, size: int) -> list[Member]:
        """Up to `size` members whose standing row is the guide's, by member id, after one."""
        query = {
            "brand_id": brand_id,
            "standing.guide_id": guide_id,
            "_id": {"$gt": f"{brand_id}|{after_id}"},
        }
        return [member_of(found) async for found in self._members.find(query).sort("_id", 1).limit(size)]

    async def count_of_guide(self, brand_id: str, guide_id: str) -> int:
        """How many members a guide has."""
        return int(await self._members.count_documents({"brand_id": brand_id, "standing.guide_id": guide_id}))

    async def inactive(self, brand_id: str, active_before: datetime, size: int) -> list[Member]:
        """Up to `size` members whose standing row was last active before or at a time, longest ago first."""
        query = {"brand_id": brand_id, "standing.active_time": {"$lte": active_before}}
        found = self._members.find(query).sort("standing.active_time", 1).limit(size)
        return [member_of(member) async for member in found]


def _activity_update(
    brand_id: str, member_id: str, origin_id: str, kind: str, time: datetime, *, renews: bool
) -> tuple[Document, list[Document]]:
    """What to update and how, to keep the latest activity of a kind that came in an id's name."""
    kinds = [kind, "renewal"] if renews else [kind]
    origin = origin_id or member_id
    of_origin = f"$activity_by_origin.{origin}"
    latest = {one: {"$max": [f"{of_origin}.{one}", time]} for one in kinds}
    by_origin = {origin: {"$mergeObjects": [of_origin, latest]}}
    changed: Document = {
        **{f"last_{one}_time": {"$max": [f"$last_{one}_time", time]} for one in kinds},
        "rev": {"$add": ["$rev", 1]},
        "activity_by_origin": _if_object(
            "$activity_by_origin", {"$mergeObjects": ["$activity_by_origin", by_origin]}
        ),
    }
    if renews:
        renewed = {"active_time": {"$max": ["$standing.active_time", time]}}
        changed["standing"] = _if_object("$standing", {"$mergeObjects": ["$standing", renewed]})
    criteria: Document = {"_id": f"{brand_id}|{member_id}", "merged_into": None, "erased_time": None}
    if origin_id:
        criteria["absorbed"] = origin_id
    return criteria, [{"$set": changed}]


def _if_object(field: str, changed: Document) -> Document:
    """A pipeline's value of a field that changes where it is a document, and stays what it is elsewhere."""
    stays = {"$ifNull": [field, "$$REMOVE"]}
    return {"$cond": [{"$eq": [{"$type": field}, "object"]}, changed, stays]}


def _touches_history(member: Member, decision: Decision) -> bool:
    in_document = {row.binding_id for row in member.rows}
    return bool(binding.pushed_out(member.rows, decision)) or not in_document.issuperset(decision.superseded)


def _answers_for(found: Document, member_id: str) -> bool:
    return found["member_id"] == member_id or member_id in found.get("absorbed", ())


def _origin_of(held: Held, member_id: str) -> str:
    """Through whom a member is reached by an identity; empty: by his own."""
    origin_id = held.origin_id or held.member_id
    return "" if origin_id == member_id else origin_id


def unknown() -> NotFound:
    """Nobody has that id."""
    return NotFound("MEMBER_UNKNOWN", "the brand knows no such member")
