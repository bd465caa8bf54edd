"""Corrections in MongoDB: what is said of a member's past is written with whoever answered for him then.

For the id of a member who was merged into another that is he himself until the merge, and the other since.
All is written in one transaction; `receipts`, in the document of the id that was named, tell of repeats
(`chassis.mongo.idempotency`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from chassis.clock import Clock
from chassis.errors import NotFound
from chassis.mongo import transaction
from chassis.mongo.connection import Database, Document, Session, primary_time
from svc_members.member.member_document import WholeMember
from svc_members.member.store_identity import changed_meanwhile
from svc_members.member.store_member import MemberStore
from svc_members.rules import bitemporal
from svc_members.rules.binding import Decision
from svc_members.rules.holder import Holder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered:
    """A member who answered for an id, from when until when; None: from ever, and still."""

    whole: WholeMember
    from_time: datetime | None
    until_time: datetime | None


@dataclass(frozen=True, slots=True)
class Corrected(Generic[T]):
    """What to write: a decision for each who answered, and the receipts to keep. No receipts: nothing.

    `said`: what to tell of it.
    """

    said: T
    decisions: Sequence[Decision] = ()
    receipts: Sequence[Document] = ()


class CorrectionStore:
    """Writes corrections."""

    def __init__(self, database: Database, members: MemberStore, clock: Clock) -> None:
        self._database = database
        self._members = members
        self._clock = clock

    async def receipts(self, brand_id: str, member_id: str) -> list[Document]:
        """The receipts of what was corrected in the name of an id."""
        key = {"_id": f"{brand_id}|{member_id}"}
        found = await self._database["members"].find_one(key, {"receipts": 1})
        return receipts_of(found or {})

    async def correct(
        self, brand_id: str, member_id: str, decide: Callable[[Sequence[Answered]], Corrected[T]]
    ) -> T:
        """Writes what is decided of all who ever answered for an id, the one whose it is first.

        Raises: NotFound MEMBER_ERASED; Conflict MEMBER_CHANGED, TRANSACTION_CONTENDED.
        """

        async def body(started: Session) -> T:
            answered = await self._answered(brand_id, member_id, started)
            decided = decide(answered)
            if decided.receipts:
                stamp = await primary_time(self._database) + self._clock.shift()
                for one, decision in zip(answered, decided.decisions, strict=True):
                    receipts = {"receipts": list(decided.receipts)} if one is answered[0] else {}
                    await self._write(one.whole, decision, receipts, stamp, started)
            return decided.said

        return await transaction.run(self._database, body)

    async def _answered(self, brand_id: str, member_id: str, started: Session) -> list[Answered]:
        answered: list[Answered] = []
        since: datetime | None = None
        while True:
            whole = await self._members.whole(brand_id, member_id, started)
            if "erased_time" in whole.document:
                raise NotFound("MEMBER_ERASED", "the member was erased")
            other = bitemporal.standing([Holder(**row) for row in whole.document.get("answering", ())])
            answered.append(Answered(whole, since, other.valid_from_time if other else None))
            if other is None:
                return answered
            member_id, since = other.member_id, other.valid_from_time

    async def _write(
        self, whole: WholeMember, decision: Decision, receipts: Document, stamp: datetime, started: Session
    ) -> None:
        if not (decision.added or decision.superseded or receipts):
            return
        if await self._members.write(whole.member, decision, receipts, started, stamp=stamp) is None:
            raise changed_meanwhile()


def receipts_of(document: Document) -> list[Document]:
    """The receipts that a member's document keeps."""
    receipts: list[Document] = document.get("receipts", [])
    return receipts
