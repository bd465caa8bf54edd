"""Bindings as they are asked for: a thousand at a time, as of any moment, as known at any moment.

Nearly every question is answered by what stands. So that alone is read first: identities, then what stands of
their holders; the rows of a member, and his older rows, only where that does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from chassis.mongo.connection import Collection, Database, Document
from chassis.mongo.schema import Index
from svc_members.member.member_document import row_of
from svc_members.member.store_identity import holders_of
from svc_members.member.store_member import unknown
from svc_members.rules import bitemporal
from svc_members.rules.binding import Row
from svc_members.rules.holder import Holder

INDEXES = (Index("binding_history", "by_member", [("brand_id", 1), ("member_id", 1)]),)
_STANDS: Final[Mapping[str, int]] = {
    "_id": 0,
    "member_id": 1,
    "answering": 1,
    "standing.binding_id": 1,
    "standing.guide_id": 1,
    "standing.store_id": 1,
    "standing.valid_from_time": 1,
}
"""What is read of what stands. No more than is needed: a time costs the driver as much as four ids."""
_MERGES_MOST: Final = 50
"""Longest chain of merges that is followed."""


@dataclass(slots=True)
class Question:
    """Whose, by `index` of an identity or by `member_id`, as of when, as known when; None: now."""

    index: str
    member_id: str
    as_of: datetime
    known_at: datetime | None


class Answer(NamedTuple):
    """`member_id` empty: unknown. `binding_id` empty: nobody's."""

    member_id: str
    binding_id: str = ""
    guide_id: str = ""
    store_id: str = ""


_UNKNOWN: Final = Answer("")


class BindingStore:
    """Answers questions about bindings."""

    def __init__(self, database: Database) -> None:
        self._identities = database["identities"]
        self._members = database["members"]
        self._history = database["binding_history"]

    async def resolve(self, brand_id: str, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order."""
        await self._identify(brand_id, questions)
        answers: list[Answer | None] = [None] * len(questions)
        asked = [place for place, question in enumerate(questions) if question.member_id]
        for _ in range(_MERGES_MOST):
            if not asked:
                break
            asked = await self._stand(brand_id, questions, asked, answers)
        return [answer or _UNKNOWN for answer in answers]

    async def rows(self, brand_id: str, member_id: str) -> list[Row]:
        """Every row that was ever recorded of an id, merged, erased or not, in the order of recording.

        Raises: NotFound MEMBER_UNKNOWN.
        """
        found = await self._rows(brand_id, [member_id])
        if member_id not in found:
            raise unknown()
        return sorted(found[member_id], key=_recorded)

    async def _identify(self, brand_id: str, questions: Sequence[Question]) -> None:
        """Puts into the questions by identity who held it at the time."""
        by_identity = [question for question in questions if question.index]
        if not by_identity:
            return
        ids = list({f"{brand_id}|{question.index}" for question in by_identity})
        wanted = {"member_id": 1, "holders": 1}
        if any(question.known_at for question in by_identity):
            wanted["linked_time"] = 1
        prefix = len(brand_id) + 1
        found = await _found(self._identities, ids, wanted)
        held = {identity["_id"][prefix:]: identity for identity in found}
        for question in by_identity:
            identity = held.get(question.index)
            if identity is None:
                continue
            if "holders" not in identity:
                # One holder, since ever.
                if question.known_at is None or identity["linked_time"] <= question.known_at:
                    question.member_id = identity["member_id"]
            elif row := bitemporal.found(holders_of(identity), question.as_of, question.known_at):
                question.member_id = row.member_id

    async def _stand(
        self,
        brand_id: str,
        questions: Sequence[Question],
        asked: Sequence[int],
        answers: list[Answer | None],
    ) -> list[int]:
        """Answers what was asked, but for members for whom another answered then: these are to be asked."""
        ids = list({f"{brand_id}|{questions[place].member_id}" for place in asked})
        wanted = dict(_STANDS)
        if any(questions[place].known_at for place in asked):
            wanted["standing.recorded_time"] = 1
        found = await _found(self._members, ids, wanted)
        members = {member["member_id"]: member for member in found}
        others, unanswered = [], []
        for place in asked:
            question = questions[place]
            member = members.get(question.member_id)
            if member is None:
                # One whose enrolment was cut off is known by his identity alone.
                answers[place] = Answer(question.member_id if question.index else "")
                continue
            if "answering" in member and (other := _answering(member, question)):
                question.member_id = other
                others.append(place)
            elif _stood(member.get("standing"), question):
                answers[place] = _answer(question.member_id, member["standing"])
            else:
                unanswered.append(place)
        if unanswered:
            rows = await self._rows(brand_id, {questions[place].member_id for place in unanswered})
            for place in unanswered:
                answers[place] = _held(questions[place], rows)
        return others

    async def _rows(self, brand_id: str, member_ids: Iterable[str]) -> dict[str, list[Row]]:
        """All rows of those who exist."""
        ids = [f"{brand_id}|{member_id}" for member_id in member_ids]
        wanted = {"_id": 0, "member_id": 1, "rows": 1, "history_count": 1}
        found = await _found(self._members, ids, wanted)
        rows = {member["member_id"]: {row["binding_id"]: row for row in member["rows"]} for member in found}
        longer = [member["member_id"] for member in found if member.get("history_count")]
        if longer:
            query = {"brand_id": brand_id, "member_id": {"$in": longer}}
            async for row in self._history.find(query, {"_id": 0, "brand_id": 0}):
                # A row that was pushed out between the two reads is in both; the later read knows more.
                rows[row.pop("member_id")][row["binding_id"]] = row
        return {member_id: [row_of(row) for row in of_him.values()] for member_id, of_him in rows.items()}


async def _found(collection: Collection, ids: Sequence[str], wanted: Document) -> list[Document]:
    """Those of the documents that exist, in one command."""
    # Room for one more than there can be: a batch that comes back full makes the driver ask for another.
    return await collection.find({"_id": {"$in": ids}}, wanted, batch_size=len(ids) + 1).to_list(None)


def _answering(member: Document, question: Question) -> str:
    """Who answered for a member that had been merged into him; empty: he himself."""
    rows = [Holder(**row) for row in member["answering"]]
    found = bitemporal.found(rows, question.as_of, question.known_at)
    return found.member_id if found else ""


def _stood(standing: Document | None, question: Question) -> bool:
    """Whether what stands now is the answer."""
    return (
        standing is not None
        and standing["valid_from_time"] <= question.as_of
        and (question.known_at is None or standing["recorded_time"] <= question.known_at)
    )


def _answer(member_id: str, row: Document) -> Answer:
    return Answer(member_id, row["binding_id"], row["guide_id"], row["store_id"])


def _held(question: Question, rows: Mapping[str, Sequence[Row]]) -> Answer:
    row = bitemporal.found(rows.get(question.member_id, ()), question.as_of, question.known_at)
    if row is None:
        return Answer(question.member_id)
    return Answer(question.member_id, row.binding_id, row.guide_id, row.store_id)


def _recorded(row: Row) -> datetime:
    assert row.recorded_time is not None, "read from the database"
    return row.recorded_time
