"""A member's document, `{_id: brand|member, rev, rows, standing}`: read, made, changed by a decision.

`rows` are the last few of his binding rows, `standing` repeats the one that stands: members are found by it,
and most questions are answered by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chassis.mongo.connection import Document
from svc_members.rules.binding import Cause, Decision, Row

NO_CHANGES: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Member:
    """A member as read. `rev` 0: he is known by an identity alone, his document is yet to be written.

    `rows` are those of his document; `history_count` more stand in `binding_history`. `origin_id`: the
    merged member by whose id or identity he was found; empty: by his own. `absorbed`: the ids of all who
    were merged into him. `not_before`: no row that a scan makes begins earlier, for what is in the history
    ended then, or the identity that he was found by was another's until then.
    """

    brand_id: str
    member_id: str
    rev: int
    rows: tuple[Row, ...]
    create_time: datetime
    history_count: int = 0
    origin_id: str = ""
    absorbed: tuple[str, ...] = ()
    not_before: datetime | None = None

    @property
    def key(self) -> str:
        """The `_id` of his document."""
        return f"{self.brand_id}|{self.member_id}"

    @property
    def next_id(self) -> str:
        """Begins the ids of the rows that the next write adds."""
        return f"{self.member_id}.{self.rev + 1}"


@dataclass(frozen=True, slots=True)
class WholeMember:
    """A member as a transaction sees him: his document, and all that was ever recorded of him."""

    document: Document
    member: Member
    rows: tuple[Row, ...]


def member_of(document: Document, origin_id: str = "", held_since: datetime | None = None) -> Member:
    """A member, as stored. `held_since`: when he came to hold the identity by which he was found."""
    floors = [time for time in (held_since, document.get("history_end_time")) if time is not None]
    return Member(
        brand_id=document["brand_id"],
        member_id=document["member_id"],
        rev=document["rev"],
        rows=tuple(row_of(row) for row in document["rows"]),
        create_time=document["create_time"],
        history_count=document.get("history_count", 0),
        origin_id=origin_id,
        absorbed=tuple(document.get("absorbed", ())),
        not_before=max(floors, default=None),
    )


def row_of(document: Document) -> Row:
    """A row, as stored."""
    return Row(**{**document, "cause": Cause(document["cause"])})


def row_document(row: Row) -> Document:
    """A row, to be stored."""
    # Not `asdict`, which copies every value deeply and takes ten times as long.
    return {field: getattr(row, field) for field in Row.__slots__}


def new_document(member: Member, decision: Decision, identity_count: int, stamp: datetime) -> Document:
    """The document of a new member, recorded at `stamp` by the primary's clock."""
    rows = [row_document(row) | {"recorded_time": stamp} for row in decision.added]
    stands = decision.standing
    return {
        "_id": member.key,
        **_identity_fields(member),
        "create_time": member.create_time,
        "identity_count": identity_count,
        "rows": rows,
        "last_recorded_time": stamp,
        "standing": _standing(stands) | {"active_time": stands.valid_from_time, "recorded_time": stamp}
        if stands
        else None,
    }


def rows_update(
    member: Member,
    decision: Decision,
    now: Any,
    changes: Mapping[str, Any] = NO_CHANGES,
    pushed_out: Sequence[Row] = (),
    active_time: datetime | None = None,
) -> list[Document]:
    """The update that carries out a decision, also on a document that is not there yet.

    `now`: the primary's clock, as an expression. `changes` are values of other fields; one that is None
    takes the field away. `active_time`: when he was last active, where the row that stands does not tell.
    """
    rising = {"$max": [now, {"$add": ["$last_recorded_time", 1]}]}
    recorded = {"$cond": ["$last_recorded_time", rising, now]}
    changed: Document = {
        **_identity_fields(member),
        "create_time": {"$literal": member.create_time},
        "identity_count": {"$ifNull": ["$identity_count", 1]},
        "rows": _rows_expression(decision, pushed_out),
        "last_recorded_time": "$$recorded",
        "standing": _standing_expression(decision.standing, active_time),
        **{field: {"$literal": value} for field, value in changes.items() if value is not None},
    }
    if pushed_out:
        changed["history_count"] = {"$literal": member.history_count + len(pushed_out)}
        changed["history_end_time"] = {"$max": ["$history_end_time", *_ends(pushed_out)]}
    merged = {"$mergeObjects": ["$$ROOT", changed]}
    update: list[Document] = [{"$replaceWith": {"$let": {"vars": {"recorded": recorded}, "in": merged}}}]
    gone = [field for field, value in changes.items() if value is None]
    return [*update, {"$unset": gone}] if gone else update


def _identity_fields(member: Member) -> Document:
    return {"brand_id": member.brand_id, "member_id": member.member_id, "rev": member.rev + 1}


def _rows_expression(decision: Decision, pushed_out: Sequence[Row]) -> Document:
    """The rows of the document after a decision: superseded, pushed out, added."""
    rows: Any = {"$ifNull": ["$rows", []]}
    if decision.superseded:
        replaced = {"$in": ["$$row.binding_id", list(decision.superseded)]}
        ended = {"$mergeObjects": ["$$row", {"superseded_time": "$$recorded"}]}
        rows = {"$map": {"input": rows, "as": "row", "in": {"$cond": [replaced, ended, "$$row"]}}}
    if pushed_out:
        stays = {"$not": {"$in": ["$$row.binding_id", [row.binding_id for row in pushed_out]]}}
        rows = {"$filter": {"input": rows, "as": "row", "cond": stays}}
    added = [
        {"$mergeObjects": [{"$literal": row_document(row)}, {"recorded_time": "$$recorded"}]}
        for row in decision.added
    ]
    return {"$concatArrays": [rows, added]}


def _ends(rows: Sequence[Row]) -> list[datetime]:
    return [row.valid_to_time for row in rows if row.superseded_time is None and row.valid_to_time]


def _standing_expression(row: Row | None, active_time: datetime | None) -> Document | None:
    """The standing row, and the last activity that keeps it from lapsing.

    Activity is the member's, whichever row takes the place of which, and however late a scan is. Where a
    correction says whose he is who was nobody's, it counts as one, so that it does not lapse the same night.
    """
    if row is None:
        return None
    active: Any = active_time
    if active is None:
        stood = {"$ifNull": ["$standing.active_time", "$$recorded" if row.cause is Cause.CORRECTED else None]}
        active = {"$max": [row.valid_from_time, stood, "$last_renewal_time"]}
    recorded: Any = row.recorded_time or "$$recorded"
    known = {"active_time": active, "recorded_time": recorded}
    return {"$mergeObjects": [{"$literal": _standing(row)}, known]}


def _standing(row: Row) -> Document:
    return {
        "binding_id": row.binding_id,
        "guide_id": row.guide_id,
        "store_id": row.store_id,
        "valid_from_time": row.valid_from_time,
    }
