"""What of members' documents changes when one is merged into another, and when that is undone.

`merged_into` and `answering` (`rules.holder`) say of a merged member who answers for his id, `absorbed` of
the survivor all who answer under his. `last_<kind>_time` tells of the latest activity; once members were
merged, `activity_by_origin` tells it of each who answers under the id, and `profile_from` which fields of the
profile came from whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import datetime

from chassis.mongo.connection import Document
from svc_members.member.member_document import WholeMember
from svc_members.member.store_identity import IDENTITIES_MAX, too_many_identities
from svc_members.member.store_member import ACTIVITIES
from svc_members.rules import holder
from svc_members.rules.binding import Decision, Row
from svc_members.rules.holder import Holder
from svc_members.rules.merge import Merge, Separation

ByOrigin = Mapping[str, Mapping[str, datetime]]
"""The latest activity of each kind, of each who answers under a member's id."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a member: his rows, other fields, and when he was last active whose row stands."""

    decision: Decision
    fields: Document
    active_time: datetime | None


def joined(survivor: WholeMember, other: WholeMember, made: Merge) -> Change:
    """The survivor of a merge. Raises: Refused TOO_MANY_IDENTITIES."""
    count = survivor.document["identity_count"] + other.document["identity_count"]
    if count > IDENTITIES_MAX:
        raise too_many_identities()
    activity = {**_activity_of(survivor.document), **_activity_of(other.document)}
    fields = {
        "identity_count": count,
        "absorbed": [*survivor.member.absorbed, *came_with(other)],
        "last_merge_time": made.time,
        **_activity_fields(activity),
        **_profile_gained(survivor.document, other.document),
    }
    whose = other if made.survivor.added else survivor
    before = active_before(whose.document)
    return Change(made.survivor, fields, _active_time(made.survivor.standing, activity, before))


def gone(other: WholeMember, survivor_id: str, made: Merge, stamp: datetime) -> Change:
    """The member who was merged into a survivor."""
    answering = holder.answering(_answering(other.document), survivor_id, made.time, stamp)
    fields = {
        "identity_count": 0,
        "merged_into": survivor_id,
        "answering": [asdict(row) for row in answering],
        "last_merge_time": made.time,
    }
    return Change(made.other, fields, None)


def left(survivor: WholeMember, merge: Document, parted: Separation, count: int) -> Change:
    """The survivor of a merge that was undone, and who gave so many identities back."""
    origin_ids = frozenset(merge["origin_ids"])
    activity = _activity_of(survivor.document)
    kept = {one: times for one, times in activity.items() if one not in origin_ids}
    fields = {
        "identity_count": survivor.document["identity_count"] - count,
        "absorbed": [one for one in survivor.member.absorbed if one not in origin_ids] or None,
        **_activity_fields(kept),
        **_profile_without(survivor.document, origin_ids),
    }
    decision, before = parted.survivor, merge["survivor_active_time"]
    return Change(decision, fields, _active_time(decision.standing, kept, before))


def back(
    survivor: WholeMember,
    other: WholeMember,
    merge: Document,
    parted: Separation,
    count: int,
    stamp: datetime,
) -> Change:
    """The member who is one by himself again."""
    activity = _activity_of(survivor.document)
    his = {one: times for one, times in activity.items() if one in merge["origin_ids"]}
    answering = holder.answering_no_more(_answering(other.document), stamp)
    fields = {
        "identity_count": count,
        "merged_into": None,
        "answering": [asdict(row) for row in answering],
        **_activity_fields(his),
    }
    decision, before = parted.other, merge["other_active_time"]
    return Change(decision, fields, _active_time(decision.standing, his, before))


def came_with(other: WholeMember) -> list[str]:
    """The ids that a merge makes aliases: the other's, and those that were aliases of it."""
    return [other.member.member_id, *other.member.absorbed]


def active_before(document: Document) -> datetime | None:
    """When the member of a document was last active whose row stands. None: none does."""
    standing = document.get("standing")
    return standing["active_time"] if standing else None


def _answering(document: Document) -> tuple[Holder, ...]:
    return tuple(Holder(**row) for row in document.get("answering", ()))


def _activity_of(document: Document) -> ByOrigin:
    own = {kind: document[f"last_{kind}_time"] for kind in ACTIVITIES if f"last_{kind}_time" in document}
    by_origin: ByOrigin = document.get("activity_by_origin", {document["member_id"]: own})
    return by_origin


def _activity_fields(by_origin: ByOrigin) -> Document:
    """The fields that tell of it: the latest of all, and, of more than one, of each."""
    fields: Document = {"activity_by_origin": by_origin if len(by_origin) > 1 else None}
    return fields | {f"last_{kind}_time": _latest(by_origin, kind) for kind in ACTIVITIES}


def _active_time(row: Row | None, by_origin: ByOrigin, before: datetime | None) -> datetime | None:
    """When a member was last active whose row stands: before, when it began, or when it was renewed.

    None: none stands.
    """
    if row is None:
        return None
    known = [row.begin_time, _latest(by_origin, "renewal"), before]
    return max(time for time in known if time is not None)


def _latest(by_origin: ByOrigin, kind: str) -> datetime | None:
    return max((times[kind] for times in by_origin.values() if kind in times), default=None)


def _profile_gained(survivor: Document, other: Document) -> Document:
    """What a survivor's profile does not say and the other's does."""
    profile, theirs = survivor.get("profile", {}), other.get("profile", {})
    new = {field: value for field, value in theirs.items() if field not in profile}
    if "tier" in profile:
        # A tier ends when it was said to, or never; not when another did.
        new.pop("tier_expire_time", None)
    if not new:
        return {}
    origins = {field: other.get("profile_from", {}).get(field, other["member_id"]) for field in new}
    return {"profile": profile | new, "profile_from": survivor.get("profile_from", {}) | origins}


def _profile_without(survivor: Document, origin_ids: AbstractSet[str]) -> Document:
    """A survivor's profile without what he had from others; those have kept it."""
    origins, profile = survivor.get("profile_from", {}), survivor.get("profile", {})
    if origin_ids.isdisjoint(origins.values()):
        return {}
    return {
        "profile": {field: profile[field] for field in profile if origins.get(field) not in origin_ids},
        "profile_from": {field: origins[field] for field in origins if origins[field] not in origin_ids},
    }
