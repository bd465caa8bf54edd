"""What a door decides by while the service is away: a snapshot that ends, and never goes back.

A manifest names the people by the hashes of their sealed records. It has a version, one higher for each that
is made for a door, and says up to which revocation it knows. A door takes neither an older version nor one
made before a revocation that it has heard, so that nobody comes back by a message that was long on its way.
`door_policy` says what is judged differently offline, `consent` whose face may travel to a device.

Example: manifest 8 is made on Monday at 09:00 with 24 hours to live. On Tuesday at 08:59 the door opens by
it, at 09:00 no more. A door that has started on Monday night and asked nobody for the time since does not
open by it at all.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from chassis.errors import Conflict, Invalid, Refused
from svc_vision.rules.door_policy import FactorKind

LIFE_DEFAULT: Final = timedelta(hours=24)
LIFE_MAX: Final = timedelta(hours=72)
CLOCK_ERROR_MAX: Final = timedelta(minutes=2)
"""By how much a door's trusted time may differ from the service's."""
INT8_ABOVE_PEOPLE: Final = 2000


class Usable(enum.StrEnum):
    """Whether a door may decide by its snapshot; all but LIVE: no."""

    LIVE = "LIVE"
    NONE = "NONE"
    NO_TRUSTED_TIME = "NO_TRUSTED_TIME"
    NOT_YET = "NOT_YET"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds: by person the hash of her record, which is sealed to the door's key.

    `revocation_sequence`: all revocations up to this one are accounted for.
    """

    door_id: str
    version: int
    revocation_sequence: int
    issue_time: datetime
    expire_time: datetime
    records: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Revocations:
    """People who are to be forgotten: all that were revoked after one sequence number, through another."""

    after_sequence: int
    through_sequence: int
    person_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class DoorSnapshot:
    """The door's side, as it survives a restart. `version` is the highest it ever took.

    `manifest` holds only people who were not revoked since. None: it has none.
    """

    door_id: str
    version: int = 0
    revocation_sequence: int = 0
    manifest: Manifest | None = None

    def usable(self, trusted_time: datetime | None) -> Usable:
        """Whether the door may decide by it. `trusted_time` None: there was none since the door started."""
        if self.manifest is None:
            return Usable.NONE
        if trusted_time is None:
            return Usable.NO_TRUSTED_TIME
        if trusted_time < self.manifest.issue_time - CLOCK_ERROR_MAX:
            return Usable.NOT_YET
        if self.manifest.expire_time <= trusted_time:
            return Usable.EXPIRED
        return Usable.LIVE

    def knows(self, person_id: str, trusted_time: datetime | None) -> bool:
        """Whether the door may open for somebody by itself."""
        return (
            self.manifest is not None
            and person_id in self.manifest.records
            and self.usable(trusted_time) is Usable.LIVE
        )

    def missing(self, manifest: Manifest, stored: Set[bytes]) -> frozenset[bytes]:
        """The records that the door has to be sent before it can take a manifest, by their hashes."""
        return frozenset(manifest.records.values()) - stored

    def taken(self, manifest: Manifest, stored: Set[bytes]) -> DoorSnapshot:
        """The door's snapshot from now on. `stored` are the hashes of the records that the door has checked.

        Raises: Invalid SNAPSHOT_FOREIGN, SNAPSHOT_LIFE_OUT_OF_RANGE; Conflict SNAPSHOT_NOT_NEWER,
        SNAPSHOT_BEFORE_REVOCATION; Refused SNAPSHOT_INCOMPLETE.
        """
        if manifest.door_id != self.door_id:
            raise Invalid("SNAPSHOT_FOREIGN", "the snapshot was made for another door")
        checked_life(manifest.expire_time - manifest.issue_time)
        if manifest.version <= self.version:
            raise Conflict("SNAPSHOT_NOT_NEWER", f"the door has taken version {self.version}")
        if manifest.revocation_sequence < self.revocation_sequence:
            raise Conflict("SNAPSHOT_BEFORE_REVOCATION", "somebody was revoked since it was made")
        if self.missing(manifest, stored):
            raise Refused("SNAPSHOT_INCOMPLETE", "records are missing that the manifest names")
        return DoorSnapshot(self.door_id, manifest.version, manifest.revocation_sequence, manifest)

    def revoked(self, revocations: Revocations) -> DoorSnapshot:
        """The door's snapshot without those people, at once.

        After a gap it forgets them too, but does not acknowledge: those in the gap it has not heard of.
        """
        manifest = self.manifest
        if manifest is not None and not revocations.person_ids.isdisjoint(manifest.records):
            left = {who: what for who, what in manifest.records.items() if who not in revocations.person_ids}
            manifest = replace(manifest, records=left)
        heard = self.revocation_sequence
        if revocations.after_sequence <= heard:
            heard = max(heard, revocations.through_sequence)
        return replace(self, revocation_sequence=heard, manifest=manifest)


def checked_life(life: timedelta) -> timedelta:
    """How long a snapshot may live. Raises: Invalid SNAPSHOT_LIFE_OUT_OF_RANGE unless within 72 hours."""
    if not timedelta(0) < life <= LIFE_MAX:
        raise Invalid("SNAPSHOT_LIFE_OUT_OF_RANGE", f"a snapshot lives above 0 and at most {LIFE_MAX}")
    return life


def travelling(
    factors: Mapping[str, Set[FactorKind]], face_on_device: Collection[str]
) -> dict[str, frozenset[FactorKind]]:
    """What of each person goes into a snapshot: her card, and her face where she agreed to it on a device.

    PINs never do, for the few that exist could all be tried on a stolen door; QR codes are for one use, and
    a door alone cannot know of another's. Whoever has nothing left is not in it.
    """
    found = {}
    for person_id, kinds in factors.items():
        may = kinds & {FactorKind.CARD} | (
            kinds & {FactorKind.FACE} if person_id in face_on_device else frozenset()
        )
        if may:
            found[person_id] = frozenset(may)
    return found


def is_int8(people: int) -> bool:
    """Whether templates travel as 8-bit integers, because there are many."""
    return people > INT8_ABOVE_PEOPLE


# ---- the service's side ------------------------------------------------------------------------------


class ErasureState(enum.StrEnum):
    """How far an erasure has come: COMPLETE once no door can open for the person, now or later."""

    ERASED_PENDING_DOORS = "ERASED_PENDING_DOORS"
    COMPLETE = "COMPLETE"


@dataclass(frozen=True, slots=True)
class Issued:
    """A manifest that was made for a door, and may have arrived there, or be on its way."""

    version: int
    expire_time: datetime
    person_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class DoorIssues:
    """What the service knows of a door's snapshots. The acknowledged numbers are the highest it has heard.

    `revocation_floor`: no manifest is made any more that knows of less. Raised as soon as somebody is
    revoked, in the one document where manifests are issued, so that none escapes that was begun before.
    """

    door_id: str
    version: int = 0
    issued: tuple[Issued, ...] = field(default=())
    acknowledged_version: int = 0
    acknowledged_revocation: int = 0
    revocation_floor: int = 0

    def revoking(self, sequence: int) -> DoorIssues:
        """The door when somebody has been revoked with that sequence number."""
        return replace(self, revocation_floor=max(self.revocation_floor, sequence))

    def issue(
        self, records: Mapping[str, bytes], revocation_sequence: int, now: datetime, life: timedelta
    ) -> tuple[DoorIssues, Manifest]:
        """The next manifest of the door. It is to be stored here before it is sent.

        Raises: Invalid SNAPSHOT_LIFE_OUT_OF_RANGE; Conflict SNAPSHOT_BEFORE_REVOCATION (read again).
        """
        if revocation_sequence < self.revocation_floor:
            raise Conflict("SNAPSHOT_BEFORE_REVOCATION", "somebody was revoked since the people were read")
        expire_time = now + checked_life(life)
        version = self.version + 1
        manifest = Manifest(self.door_id, version, revocation_sequence, now, expire_time, dict(records))
        issued = Issued(version, expire_time, frozenset(records))
        return replace(self, version=version, issued=(*self.may_be_live(now), issued)), manifest

    def acknowledged(self, version: int, revocation_sequence: int) -> DoorIssues:
        """What the door says that it holds. Acknowledgements may come late, and more than once."""
        return replace(
            self,
            acknowledged_version=max(self.acknowledged_version, version),
            acknowledged_revocation=max(self.acknowledged_revocation, revocation_sequence),
        )

    def may_be_live(self, now: datetime) -> tuple[Issued, ...]:
        """Manifests by which the door may decide: neither behind the acknowledged one nor certainly over."""
        return tuple(
            one
            for one in self.issued
            if one.version >= self.acknowledged_version and now < one.expire_time + CLOCK_ERROR_MAX
        )

    def holds(self, person_id: str, revoked_sequence: int, now: datetime) -> bool:
        """Whether the door may still open for somebody who was revoked with that sequence number.

        Also where she may be sent still, because the door's floor has not been raised.
        """
        if self.revocation_floor < revoked_sequence:
            return True
        return self.acknowledged_revocation < revoked_sequence and any(
            person_id in one.person_ids for one in self.may_be_live(now)
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """How far an erasure has come, and which doors it waits for."""

    state: ErasureState
    door_ids: tuple[str, ...] = ()


def erasure(doors: Collection[DoorIssues], person_id: str, revoked_sequence: int, now: datetime) -> Erasure:
    """Which doors still hold a live snapshot of somebody who was erased.

    Example: she was in manifests of the doors A and B that live until tomorrow, and revoked with number 12.
    A acknowledges 12 within a second: ERASED_PENDING_DOORS, B. B is never heard of again: COMPLETE two
    minutes after its manifest's end.
    """
    waiting = tuple(sorted(door.door_id for door in doors if door.holds(person_id, revoked_sequence, now)))
    return Erasure(ErasureState.ERASED_PENDING_DOORS if waiting else ErasureState.COMPLETE, waiting)
