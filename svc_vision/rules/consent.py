"""Whose face may be looked for, what for, and where: nobody's without a consent that holds now.

A consent is for one purpose and one place. It ends when it is withdrawn, and all end when the person leaves;
what was withdrawn comes back by a new consent alone. A face agreed to at the door's device is not one agreed
to in the service, and a door's consent clocks nobody in.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from chassis.errors import Invalid, Refused


class Purpose(enum.StrEnum):
    """What a face is looked for."""

    DOOR = "DOOR"
    ATTENDANCE = "ATTENDANCE"
    PRINT_RELEASE = "PRINT_RELEASE"


class Place(enum.StrEnum):
    """Where templates are kept and searched."""

    DEVICE = "DEVICE"
    SERVICE = "SERVICE"


DEVICE_COUNTRIES: Final = frozenset({"CN"})
"""Where the law asks that faces stay on the device unless something speaks for more (ISO 3166-1 alpha-2)."""

Use = tuple[Purpose, Place]


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person has agreed to, from `grant_time` until before `withdraw_time` (None: it stands)."""

    consent_id: str
    purpose: Purpose
    place: Place
    grant_time: datetime
    withdraw_time: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it counts at a moment."""
        return self.grant_time <= now and (self.withdraw_time is None or now < self.withdraw_time)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A person whose face was taken. `resign_time`: when she left; None: she is with the brand.

    `return_time`: when she came back last. `erased`: nothing of her is kept, and no consent counts any more.
    """

    person_id: str
    consents: tuple[Consent, ...] = ()
    resign_time: datetime | None = None
    return_time: datetime | None = None
    erased: bool = False


def default_place(country_code: str) -> Place:
    """Where faces are kept unless the brand chooses and the person agrees otherwise."""
    return Place.DEVICE if country_code in DEVICE_COUNTRIES else Place.SERVICE


def uses(person: Enrolled, now: datetime) -> frozenset[Use]:
    """All that her face may be used for at a moment.

    Example: DOOR on the DEVICE since Monday, ATTENDANCE there withdrawn on Tuesday: on Wednesday DOOR alone.
    She resigns on Friday at 18:00: from that moment on nothing.
    """
    if person.erased or (person.resign_time is not None and person.resign_time <= now):
        return frozenset()
    return frozenset((one.purpose, one.place) for one in person.consents if one.holds(now))


def searchable(people: Iterable[Enrolled], purpose: Purpose, place: Place, now: datetime) -> list[str]:
    """Whom a search for a purpose at a place may find: whoever agreed to both in one consent."""
    return [person.person_id for person in people if (purpose, place) in uses(person, now)]


def lost(before: Enrolled, after: Enrolled, now: datetime) -> frozenset[Use]:
    """The uses that a change takes away: for each of them a revocation is sent to galleries and doors."""
    return uses(before, now) - uses(after, now)


def keeps_templates(person: Enrolled, now: datetime) -> bool:
    """Whether there is anything left to keep her templates for."""
    return bool(uses(person, now))


def granted(person: Enrolled, consent: Consent, now: datetime) -> Enrolled:
    """The person with one more consent. One that is there already, as it is, changes nothing.

    Raises: Invalid CONSENT_IN_FUTURE, CONSENT_ID_TAKEN; Refused PERSON_ERASED, PERSON_RESIGNED.
    """
    if person.erased:
        raise Refused("PERSON_ERASED", "the person was erased: enrol her anew")
    if person.resign_time is not None and person.resign_time <= now:
        raise Refused("PERSON_RESIGNED", "the person has left the brand")
    if consent.grant_time > now:
        raise Invalid("CONSENT_IN_FUTURE", "nobody agrees in advance")
    same = next((one for one in person.consents if one.consent_id == consent.consent_id), None)
    if same is None:
        return replace(person, consents=(*person.consents, consent))
    if replace(same, withdraw_time=None) != replace(consent, withdraw_time=None):
        raise Invalid("CONSENT_ID_TAKEN", "another consent has this id")
    return person


def withdrawn(person: Enrolled, purpose: Purpose, place: Place | None, now: datetime) -> Enrolled:
    """The person without a purpose, at one place or (None) at all. What ended before stays as it ended."""
    return replace(
        person,
        consents=tuple(
            _ended(one, now) if one.purpose is purpose and place in (None, one.place) else one
            for one in person.consents
        ),
    )


def resigned(person: Enrolled, resign_time: datetime) -> Enrolled:
    """The person as she left: at the earlier of two times, when more than one is reported.

    A resignation of before she came back, reported again, is over.
    """
    if person.return_time is not None and resign_time <= person.return_time:
        return person
    if person.resign_time is not None and person.resign_time <= resign_time:
        return person
    return replace(person, resign_time=resign_time)


def returned(person: Enrolled, now: datetime) -> Enrolled:
    """The person back with the brand. What she agreed to before she left is over: she is asked anew.

    Raises: Refused PERSON_ERASED.
    """
    if person.erased:
        raise Refused("PERSON_ERASED", "the person was erased: enrol her anew")
    left = person.resign_time
    if left is None:
        return person
    consents = tuple(_ended(one, left) for one in person.consents) if left <= now else person.consents
    return replace(person, resign_time=None, return_time=now, consents=consents)


def _ended(consent: Consent, time: datetime) -> Consent:
    """The consent, over by then. One granted later, by a clock that is ahead, has never held."""
    if consent.withdraw_time is not None and consent.withdraw_time <= time:
        return consent
    return replace(consent, withdraw_time=max(time, consent.grant_time))


def erased(person: Enrolled) -> Enrolled:
    """The person after an erasure: her id, so that a late message finds nothing to bring back."""
    return Enrolled(person.person_id, erased=True)
