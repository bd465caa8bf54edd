"""Sales credit (业绩): for whom a sale is counted, and on which days. A measure, never a posting.

A sale is counted in full, once, for each store that has a part in it, for the guide who owns it, for the
guide who served, and for the brand: the amounts of a day are the same for all of them. What is told to those
who sum them up is the credits as they are now minus what was told before.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NamedTuple

from svc_commission.rules.attribution import Attribution, guide_of
from svc_commission.rules.event import Event, Kind


class Role(enum.StrEnum):
    """In which role a sale is counted for somebody.

    A guide who owns a sale and served it has one role of her own, so that a sum over roles counts it once.
    """

    BRAND = "BRAND"
    STORE = "STORE"
    OWNER = "OWNER"
    SERVING = "SERVING"
    OWNER_AND_SERVING = "OWNER_AND_SERVING"


class Subject(NamedTuple):
    """For whom a sale is counted. `subject_id`: a store's or a guide's; empty: the brand."""

    role: Role
    subject_id: str


BRAND: Final = Subject(Role.BRAND, "")


class Amounts(NamedTuple):
    """What is counted. `order_count`: 1 on the day of an order's first payment."""

    sold_minor: int = 0
    refunded_minor: int = 0
    order_count: int = 0

    def minus(self, other: Amounts) -> Amounts:
        """What is to be added to the other to come here."""
        return Amounts(
            self.sold_minor - other.sold_minor,
            self.refunded_minor - other.refunded_minor,
            self.order_count - other.order_count,
        )

    def plus(self, other: Amounts) -> Amounts:
        """Both together."""
        return Amounts(
            self.sold_minor + other.sold_minor,
            self.refunded_minor + other.refunded_minor,
            self.order_count + other.order_count,
        )

    @property
    def net_minor(self) -> int:
        """Sold minus refunded."""
        return self.sold_minor - self.refunded_minor


NOTHING: Final = Amounts()


@dataclass(frozen=True, slots=True)
class SalesCredits:
    """What an order counts: for each of the subjects, on each of the days."""

    subjects: frozenset[Subject] = frozenset()
    days: Mapping[date, Amounts] = field(default_factory=dict)

    def each(self) -> dict[tuple[Subject, date], Amounts]:
        """What is counted for each of the subjects on each of the days."""
        return {
            (subject, day): amounts
            for day, amounts in sorted(self.days.items())
            for subject in sorted(self.subjects)
        }


@dataclass(frozen=True, slots=True)
class Change:
    """So much more, or less, is counted for each of the subjects on a day."""

    date: date
    subjects: tuple[Subject, ...]
    amounts: Amounts


class Tally:
    """The amounts of an order's days as they grow, event by event."""

    def __init__(self) -> None:
        self._days: dict[date, Amounts] = {}
        self._paid_minor = 0
        self._refunded_minor = 0
        self._counted = False

    def happened(self, event: Event, day: date, paid_minor: int, refunded_minor: int) -> None:
        """Counts on the day of an event by how much it changed what was paid and refunded in all."""
        before = self._days.get(day, NOTHING)
        first = event.kind is Kind.PAID and not self._counted
        self._days[day] = Amounts(
            before.sold_minor + paid_minor - self._paid_minor,
            before.refunded_minor + refunded_minor - self._refunded_minor,
            before.order_count + first,
        )
        self._paid_minor, self._refunded_minor = paid_minor, refunded_minor
        self._counted = self._counted or first

    def credited(self, attribution: Attribution) -> SalesCredits:
        """What has been counted so far, for those whose sale it is."""
        days = {day: amounts for day, amounts in sorted(self._days.items()) if amounts != NOTHING}
        return SalesCredits(subjects_of(attribution), days)


def subjects_of(attribution: Attribution) -> frozenset[Subject]:
    """For whom a sale is counted, each once. Pools are nobody's performance; their stores are counted."""
    stores = {Subject(Role.STORE, store_id) for store_id in attribution.credited_stores()}
    owner, serving = guide_of(attribution.owner), guide_of(attribution.serving)
    if owner and owner == serving:
        guides = {Subject(Role.OWNER_AND_SERVING, owner)}
    else:
        both = {Subject(Role.OWNER, owner), Subject(Role.SERVING, serving)}
        guides = {subject for subject in both if subject.subject_id}
    return frozenset({BRAND, *stores, *guides})


def changes(wanted: SalesCredits, told: SalesCredits) -> list[Change]:
    """What is still to be told: the credits minus what was told, for those who stay, come and go."""
    parts: tuple[tuple[frozenset[Subject], Mapping[date, Amounts], Mapping[date, Amounts]], ...] = (
        (wanted.subjects & told.subjects, wanted.days, told.days),
        (wanted.subjects - told.subjects, wanted.days, {}),
        (told.subjects - wanted.subjects, {}, told.days),
    )
    return [
        Change(day, tuple(sorted(subjects)), amounts)
        for subjects, now, before in parts
        if subjects
        for day in sorted(now.keys() | before.keys())
        if (amounts := now.get(day, NOTHING).minus(before.get(day, NOTHING))) != NOTHING
    ]
