"""Adding what belongs to members: in one transaction with a write of their documents.

A merge gives all that a member has to another, its undoing gives some of it back, and an erasure deletes it,
each in a transaction that writes his document, too. What is added at the same moment they would miss. So of
the two that write one document at once one begins again, and sees what the other has done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from chassis.mongo import transaction
from chassis.mongo.connection import Database, Document, Session
from svc_members.member.store_identity import changed_meanwhile

T = TypeVar("T")


class OwnedRecords:
    """Adds records that belong to members."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._members = database["members"]

    async def add(
        self, brand_id: str, whose: Mapping[str, str], write: Callable[[Session], Awaitable[T]]
    ) -> T:
        """Carries out a write through a session, as long as members answer for the ids in whose names it is.

        `whose`: by id, the member who answers for it. Raises: Conflict MEMBER_CHANGED when one of them was
        merged, separated or erased meanwhile, TRANSACTION_CONTENDED; and what `write` raises.
        """
        answering = [_answering(brand_id, member_id, whose) for member_id in set(whose.values())]

        async def body(started: Session) -> T:
            touched = await self._members.update_many(
                {"$or": answering},
                # A write that changed nothing would meet nobody's.
                {"$inc": {"touched": 1}},
                session=started,
            )
            if touched.matched_count < len(answering):
                raise changed_meanwhile()
            return await write(started)

        return await transaction.run(self._database, body)


def _answering(brand_id: str, member_id: str, whose: Mapping[str, str]) -> Document:
    """Matches a member as long as he answers for himself and for the ids."""
    query: Document = {"_id": f"{brand_id}|{member_id}", "merged_into": None, "erased_time": None}
    aliases = [name for name, answers in whose.items() if answers == member_id != name]
    return query | ({"absorbed": {"$all": aliases}} if aliases else {})
