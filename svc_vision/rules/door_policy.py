"""Who may pass which door when: a decision with its reason. Nobody may unless something says that she may.

`schedule` says when, `anti_passback` whether she is in already, `track` that a face is hers and live. A
terminal decides by the same rule from its snapshot while the service is away: `Circumstances.offline`.

Nobody is kept inside by these rules: the way out, a door that leads OUTSIDE, asks for no grant, no schedule
and no end of a visit, and stays usable in a lockdown. Fire release is hardware, and asks nothing at all.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chassis.errors import Refused, Violation
from svc_vision.rules.anti_passback import OUTSIDE, AntiPassback, Passback, Whereabouts, ZonePassback, judged
from svc_vision.rules.schedule import Calendar, Schedule, is_within
from svc_vision.rules.track import Liveness

TIMED_MINUTES_MAX: Final = 24 * 60


class Camera(enum.StrEnum):
    """What a door sees with. An RGB camera alone cannot tell a face from a good picture of it."""

    RGB = "RGB"
    RGB_DEPTH = "RGB_DEPTH"
    RGB_IR = "RGB_IR"


class FactorKind(enum.StrEnum):
    """What somebody shows. A QR code is for one use."""

    FACE = "FACE"
    CARD = "CARD"
    PIN = "PIN"
    QR = "QR"


class Method(enum.StrEnum):
    """What a door asks for."""

    FACE = "FACE"
    FACE_AND_CARD = "FACE_AND_CARD"
    FACE_AND_PIN = "FACE_AND_PIN"
    CARD = "CARD"
    PIN = "PIN"
    QR = "QR"


FACTORS: Final = {
    Method.FACE_AND_CARD: frozenset({FactorKind.FACE, FactorKind.CARD}),
    Method.FACE_AND_PIN: frozenset({FactorKind.FACE, FactorKind.PIN}),
    Method.CARD: frozenset({FactorKind.CARD}),
    Method.PIN: frozenset({FactorKind.PIN}),
    Method.QR: frozenset({FactorKind.QR}),
    Method.FACE: frozenset({FactorKind.FACE}),
}
"""What each method consists of; those of two factors first."""
NEEDS_SERVICE: Final = frozenset({FactorKind.PIN, FactorKind.QR})
"""PINs are in no snapshot, and only the service knows whether a code was used."""
WITHOUT_FACE: Final = frozenset({Method.CARD, Method.PIN, Method.QR})
"""One of these every door takes: the law asks for it, and cameras fail."""


class Answer(enum.StrEnum):
    """What a door is told."""

    OPEN = "OPEN"
    DENY = "DENY"


class Reason(enum.StrEnum):
    """Why. PASSBACK_REPORTED opens; of the others only ALLOWED and WAY_OUT do."""

    ALLOWED = "ALLOWED"
    WAY_OUT = "WAY_OUT"
    PASSBACK_REPORTED = "PASSBACK_REPORTED"
    NOTHING_SHOWN = "NOTHING_SHOWN"
    FACTORS_DISAGREE = "FACTORS_DISAGREE"
    PERSON_UNKNOWN = "PERSON_UNKNOWN"
    LIVENESS_UNKNOWN = "LIVENESS_UNKNOWN"
    NOT_LIVE = "NOT_LIVE"
    NEEDS_SERVICE = "NEEDS_SERVICE"
    SECOND_FACTOR_NEEDED = "SECOND_FACTOR_NEEDED"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    LOCKDOWN = "LOCKDOWN"
    NOT_BEGUN = "NOT_BEGUN"
    ENDED = "ENDED"
    NO_GRANT = "NO_GRANT"
    OUTSIDE_SCHEDULE = "OUTSIDE_SCHEDULE"
    PASSBACK = "PASSBACK"


@dataclass(frozen=True, slots=True)
class Factor:
    """One thing that was shown and found genuine. `liveness` is of a FACE, and of nothing else."""

    kind: FactorKind
    person_id: str
    liveness: Liveness = Liveness.UNKNOWN


@dataclass(frozen=True, slots=True)
class Door:
    """A door into a zone (`to_zone_id` OUTSIDE: the way out).

    `methods` None: all. FACE among them counts with a depth or IR camera, and with an RGB camera where
    `face_alone` says so: that the brand has chosen to open for such a camera's word, and is on record for it.
    """

    door_id: str
    to_zone_id: str
    camera: Camera
    methods: frozenset[Method] | None = None
    face_alone: bool = False

    def accepted(self) -> frozenset[Method]:
        """What the door takes."""
        chosen = frozenset(Method) if self.methods is None else self.methods
        return chosen - {Method.FACE} if self.camera is Camera.RGB and not self.face_alone else chosen


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may come. A visitor has an end; staff has one once she resigned. None: no end."""

    person_id: str
    group_ids: frozenset[str] = frozenset()
    begin_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may come through which doors when: any of the groups, any of the doors, or any into the zones."""

    grant_id: str
    group_ids: frozenset[str]
    schedule: Schedule
    door_ids: frozenset[str] = frozenset()
    zone_ids: frozenset[str] = frozenset()

    def covers(self, person: Person, door: Door) -> bool:
        """Whether it is about this person at this door."""
        return not self.group_ids.isdisjoint(person.group_ids) and (
            door.door_id in self.door_ids or door.to_zone_id in self.zone_ids
        )


@dataclass(frozen=True, slots=True)
class Site:
    """What holds at a site. `locked_zone_ids`: zones in lockdown. `lockdown`: all of them."""

    calendar: Calendar
    grants: tuple[Grant, ...] = ()
    passback: Mapping[str, ZonePassback] = field(default_factory=dict)
    lockdown: bool = False
    locked_zone_ids: frozenset[str] = frozenset()

    def locked(self, door: Door) -> bool:
        """Whether a lockdown closes the door. The way out stays usable."""
        return door.to_zone_id != OUTSIDE and (self.lockdown or door.to_zone_id in self.locked_zone_ids)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When it is decided, what is known of where she is, and whether the service is away."""

    time: datetime
    whereabouts: Whereabouts | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the door is told, and why.

    `recognised`: what she showed was enough to know her by, so that a clocking door records a punch, also
    where it does not open. `grant_id` empty: none decided.
    """

    answer: Answer
    reason: Reason
    person_id: str = ""
    method: Method | None = None
    grant_id: str = ""
    recognised: bool = False


def decide(
    door: Door, site: Site, person: Person | None, shown: Sequence[Factor], around: Circumstances
) -> Decision:
    """Whether the door opens. `person` is whom the factors name; None: nobody whom this site knows.

    Example: at a door with an RGB camera and no choice of methods Ann's live face alone is denied with
    SECOND_FACTOR_NEEDED; with her card or PIN besides it opens, from 09:00 on if her group's grant says so.
    """
    known = _recognised(door, person, shown, around)
    if person is None or not known.recognised:
        return known
    if site.locked(door):
        return _denied(known, Reason.LOCKDOWN)
    way_out = door.to_zone_id == OUTSIDE
    grant_id = ""
    if not way_out:
        if person.begin_time is not None and around.time < person.begin_time:
            return _denied(known, Reason.NOT_BEGUN)
        if person.end_time is not None and person.end_time <= around.time:
            return _denied(known, Reason.ENDED)
        grants = [grant for grant in site.grants if grant.covers(person, door)]
        if not grants:
            return _denied(known, Reason.NO_GRANT)
        open_now = [
            grant.grant_id for grant in grants if is_within(grant.schedule, site.calendar, around.time)
        ]
        if not open_now:
            return _denied(known, Reason.OUTSIDE_SCHEDULE)
        grant_id = open_now[0]
    passback = judged(
        site.passback.get(door.to_zone_id, ZonePassback()),
        to_zone_id=door.to_zone_id,
        whereabouts=around.whereabouts,
        now=around.time,
        offline=around.offline,
    )
    if passback is Passback.REFUSED:
        return _denied(known, Reason.PASSBACK)
    reason = Reason.WAY_OUT if way_out else Reason.ALLOWED
    if passback is Passback.REPORTED:
        reason = Reason.PASSBACK_REPORTED
    return Decision(Answer.OPEN, reason, person.person_id, known.method, grant_id, recognised=True)


def check_remote_open(door: Door, site: Site, *, reason: str, connected: bool) -> None:
    """Whether an operator may open a door from afar, now. What he opens it for goes on record.

    Raises: Refused REMOTE_OPEN_REASON_MISSING, DOOR_LOCKED_DOWN, DOOR_OFFLINE (it is not sent later).
    """
    if not reason.strip():
        raise Refused("REMOTE_OPEN_REASON_MISSING", "a door is opened from afar for a reason")
    if site.locked(door):
        raise Refused("DOOR_LOCKED_DOWN", "the lockdown has to be lifted first")
    if not connected:
        raise Refused("DOOR_OFFLINE", "the door is not connected; opening it later would surprise somebody")


def door_problems(door: Door) -> list[Violation]:
    """What is wrong with a door. Paths begin at the door."""
    found = []
    if not door.accepted() & WITHOUT_FACE:
        found.append(Violation("methods", "must have one without a face: CARD, PIN or QR"))
    if door.methods is not None and door.methods > door.accepted():
        found.append(Violation("face_alone", "must be chosen for FACE with a camera that is RGB alone"))
    return found


def passback_problems(rule: ZonePassback) -> list[Violation]:
    """What is wrong with a zone's anti-passback. Paths begin at it."""
    if rule.mode is not AntiPassback.TIMED:
        return [Violation("minutes", "are for TIMED alone")] if rule.minutes else []
    if not 0 < rule.minutes <= TIMED_MINUTES_MAX:
        return [Violation("minutes", f"must be 1 to {TIMED_MINUTES_MAX}")]
    return []


def _recognised(
    door: Door, person: Person | None, shown: Sequence[Factor], around: Circumstances
) -> Decision:
    """Whether what was shown is enough to know her by at this door: a denial, `recognised` or not."""
    names = {factor.person_id for factor in shown}
    if not names:
        return Decision(Answer.DENY, Reason.NOTHING_SHOWN)
    if len(names) > 1:
        return Decision(Answer.DENY, Reason.FACTORS_DISAGREE)
    if person is None or names != {person.person_id}:
        return Decision(Answer.DENY, Reason.PERSON_UNKNOWN)
    refused = Decision(Answer.DENY, Reason.METHOD_NOT_ALLOWED, person.person_id)
    lives = {factor.liveness for factor in shown if factor.kind is FactorKind.FACE}
    if lives - {Liveness.LIVE}:
        spoof = Liveness.SPOOF in lives
        return _denied(refused, Reason.NOT_LIVE if spoof else Reason.LIVENESS_UNKNOWN)
    kinds = {factor.kind for factor in shown}
    accepted = [method for method in FACTORS if method in door.accepted()]
    usable = [one for one in accepted if not (around.offline and FACTORS[one] & NEEDS_SERVICE)]
    for method in usable:
        if FACTORS[method] <= kinds:
            return Decision(Answer.DENY, Reason.NO_GRANT, person.person_id, method, recognised=True)
    if any(kinds < FACTORS[method] for method in usable):
        return _denied(refused, Reason.SECOND_FACTOR_NEEDED)
    if any(kinds < FACTORS[method] or FACTORS[method] <= kinds for method in accepted):
        # Online the first would have been usable, so that this is about a door that is offline.
        return _denied(refused, Reason.NEEDS_SERVICE)
    return refused


def _denied(decision: Decision, reason: Reason) -> Decision:
    return Decision(Answer.DENY, reason, decision.person_id, decision.method, recognised=decision.recognised)
