"""Raw punches, which nothing changes, and the corrections that stand beside them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeVar

from chassis.errors import Refused, Violation


class PunchDirection(enum.StrEnum):
    """Which way somebody went. UNKNOWN: the door does not tell."""

    IN = "IN"
    OUT = "OUT"
    UNKNOWN = "UNKNOWN"


class PunchMethod(enum.StrEnum):
    """By what the door knew her. Told to whoever looks at a punch; it decides nothing."""

    FACE = "FACE"
    CARD = "CARD"
    PIN = "PIN"
    QR = "QR"


class PunchKey(NamedTuple):
    """What tells a punch from all others: the door, its journal, and the place in it."""

    door_id: str
    journal_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Punch:
    """What a door recorded of one person. `uncertainty_ms`: by at most so much its clock was off."""

    key: PunchKey
    punch_time: datetime
    direction: PunchDirection = PunchDirection.UNKNOWN
    method: PunchMethod = PunchMethod.FACE
    uncertainty_ms: int = 0

    @property
    def earliest_time(self) -> datetime:
        """She was there no earlier than this."""
        return self.punch_time - timedelta(milliseconds=self.uncertainty_ms)

    @property
    def latest_time(self) -> datetime:
        """She was there no later than this."""
        return self.punch_time + timedelta(milliseconds=self.uncertainty_ms)


class OccurrenceKey(NamedTuple):
    """One working of a shift: the shift, and the date on which it begins by the site's clock."""

    shift_id: str
    work_date: date


class CorrectionKind(enum.StrEnum):
    """What a correction says of one occurrence of a shift.

    CAME and WENT: that she came, or went, at `corrected_time`, beside what the punches say; the earliest
    coming and the latest going count. DISREGARD: that a punch does not count for it.
    """

    CAME = "CAME"
    WENT = "WENT"
    DISREGARD = "DISREGARD"


@dataclass(frozen=True, slots=True)
class Correction:
    """What one person says of another's occurrence, and who approved it.

    `corrected_time` with CAME and WENT, `punch_key` with DISREGARD. `approved_by` empty: not yet; until then,
    and once `undone_time` is set, it has no effect.
    """

    correction_id: str
    occurrence: OccurrenceKey
    kind: CorrectionKind
    reason: str
    proposed_by: str
    approved_by: str = ""
    undone_time: datetime | None = None
    corrected_time: datetime | None = None
    punch_key: PunchKey | None = None

    @property
    def in_force(self) -> bool:
        """Whether it has an effect."""
        return bool(self.approved_by) and self.undone_time is None


def check_approvable(correction: Correction, person_id: str, approver: str) -> None:
    """Whether somebody may approve a correction of a person's attendance.

    Raises: Refused CORRECTION_DECIDED, SAME_PERSON.
    """
    if correction.approved_by or correction.undone_time is not None:
        raise Refused("CORRECTION_DECIDED", "it has been approved or undone already")
    if approver in (correction.proposed_by, person_id):
        raise Refused("SAME_PERSON", "neither who proposed it nor whose attendance it is may approve it")


def problems(correction: Correction) -> list[Violation]:
    """What is wrong with a correction by itself. Paths begin at the correction."""
    found = []
    timed = correction.kind is not CorrectionKind.DISREGARD
    if not correction.reason.strip():
        found.append(Violation("reason", "must be given"))
    if timed != (correction.corrected_time is not None):
        found.append(Violation("corrected_time", "comes with CAME and WENT, and only with them"))
    if timed != (correction.punch_key is None):
        found.append(Violation("punch_key", "comes with DISREGARD, and only with it"))
    return found


R = TypeVar("R")


def once(records: Iterable[R], key_of: Callable[[R], object]) -> list[R]:
    """Each record once, however often it came. Whoever takes them must not depend on their order.

    Raises: ValueError if two records of one key differ: neither punches nor corrections are overwritten.
    """
    found: dict[object, R] = {}
    for record in records:
        key = key_of(record)
        if found.setdefault(key, record) != record:
            raise ValueError(f"two different records of {key}")
    return list(found.values())
