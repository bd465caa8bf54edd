"""How near two faces must be to pass for one person: as near as the number of trials demands.

A visit compares a stranger with every template, at every attempt, and each comparison may go wrong: with a
false match rate (FMR) per comparison, a visit of N templates and k attempts lets a stranger in with
probability (FPIR) 1 - (1 - FMR)^(N k). A brand says which FPIR it accepts; the threshold follows from what is
known of the model's FMR. What is not known is not assumed: between two known points the nearer one counts,
and a measurement of n comparisons shows no rate below 3/n, even where it saw none go wrong (with none in n,
the rate is below 3/n with 95 % confidence).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from chassis.errors import Refused

ATTEMPTS_MAX: Final = 5
"""Attempts of one visit; then the visit is over."""
ATTEMPT_MS: Final = 2_000
"""So long in front of a door counts as one attempt, however few frames were looked at."""
FPIR_DEFAULT: Final = 0.001


class Evidence(Enum):
    """What a point is known from, the weakest first."""

    ASSUMED = 1
    PUBLISHED = 2
    MEASURED = 3


@dataclass(frozen=True, slots=True)
class FmrPoint:
    """Of two different people's faces, the share `fmr` is nearer than `distance`.

    `trials`: comparisons that the rate was found by; 0: not told, as of what is assumed.
    """

    distance: float
    fmr: float
    evidence: Evidence
    trials: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError for a rate that is none, or a measurement that does not say how large it was."""
        if not 0 <= self.fmr <= 1 or not 0 <= self.distance < math.inf or self.trials < 0:
            raise ValueError(f"an FMR of {self.fmr} at {self.distance} in {self.trials} trials")
        if self.evidence is Evidence.MEASURED and self.trials == 0:
            raise ValueError("a measurement says how many comparisons it made")

    @property
    def shown_fmr(self) -> float:
        """The rate that the evidence bears: never below 3/n. None wrong in 30,000 bears 1 in 10,000."""
        return max(self.fmr, 3 / self.trials) if self.trials else self.fmr


@dataclass(frozen=True, slots=True)
class Threshold:
    """Faces at most `distance` apart pass for one person. `point`: what that is founded on.

    `fpir`: the probability, by that point, that a visit of a stranger takes him for somebody.
    """

    distance: float
    point: FmrPoint
    fpir: float


class LiveImpostors:
    """Distances between faces of different people as one deployment met them. They may only tighten."""

    def __init__(self, distances: Iterable[float]) -> None:
        self._distances = sorted(distances)

    def fmr(self, distance: float) -> float:
        """The share of them at most so far apart; 0 where nothing was met yet."""
        if not self._distances:
            return 0.0
        return bisect_right(self._distances, distance) / len(self._distances)


def attempts_of(tried: int, present_ms: int) -> int:
    """How many independent attempts a visit counts: those made, and at least one for each 2 s that it lasts.

    One try in 2.001 s counts as two, three tries in 2 s as three, anything in a minute as five.
    """
    return max(1, min(ATTEMPTS_MAX, max(tried, -(-present_ms // ATTEMPT_MS))))


def fpir(fmr: float, templates: int, attempts: int) -> float:
    """The probability that a visit of somebody who is not enrolled takes him for somebody who is.

    Twenty templates at a rate of 5 in 10,000, one attempt: 0.00995, one visit in a hundred.
    """
    if fmr >= 1:
        return 1.0 if templates * attempts else 0.0
    return -math.expm1(templates * attempts * math.log1p(-fmr))


def threshold(
    points: Sequence[FmrPoint],
    *,
    templates: int,
    attempts: int,
    accepted_fpir: float = FPIR_DEFAULT,
    weakest: Evidence = Evidence.ASSUMED,
    tighten_by: float = 0.0,
    live: LiveImpostors | None = None,
) -> Threshold:
    """The widest threshold with which a visit stays within the accepted FPIR.

    `weakest`: points with less evidence do not count; production asks for PUBLISHED at doors that a face
    alone opens. `tighten_by`: taken off the distance, for an execution that computes less exactly.

    Raises: Refused FPIR_NOT_ATTAINABLE when no point is good enough for so many templates and attempts. A
    card or PIN with the face, compared with one person alone, may still be.
    """
    if not 0 < accepted_fpir < 1 or templates < 1 or not 1 <= attempts <= ATTEMPTS_MAX or tighten_by < 0:
        raise ValueError(
            f"{templates} templates, {attempts} attempts, FPIR {accepted_fpir}, less {tighten_by}"
        )
    found: Threshold | None = None
    for point in points:
        if point.evidence.value < weakest.value or point.distance <= tighten_by:
            continue
        met = live.fmr(point.distance) if live is not None else 0.0
        risk = fpir(max(point.shown_fmr, met), templates, attempts)
        if risk <= accepted_fpir and (found is None or point.distance - tighten_by > found.distance):
            found = Threshold(point.distance - tighten_by, point, risk)
    if found is None:
        raise Refused(
            "FPIR_NOT_ATTAINABLE",
            f"nothing known of the model keeps {templates} templates and {attempts} attempts so safe",
        )
    return found
