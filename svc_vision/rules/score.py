"""Whose face this is, of the people searched: the nearest one who is near enough and clearly the nearest.

Open set: whoever is not among them is UNKNOWN, not the nearest of them. A person's score is that of the best
of her templates. Ranking compares 2 x.y - |y|^2, which for one probe x falls exactly as the distance |x - y|
rises and costs one matrix product; it needs no vector to be of unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

MARGIN_MIN: Final = 0.03
"""How much nearer than the runner-up the nearest person must be, in the model's distance."""

Floats = NDArray[np.float32]


class Verdict(Enum):
    """What a search comes to."""

    RECOGNISED = "RECOGNISED"
    UNKNOWN = "UNKNOWN"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person, and how far the nearest of her templates, `template`, is from the probe."""

    person_id: str
    distance: float
    template: int


@dataclass(frozen=True, slots=True)
class Recognition:
    """`person_id` is empty unless RECOGNISED. `margin`: how far behind the runner-up is; None: nobody is."""

    verdict: Verdict
    person_id: str
    margin: float | None


def rank_scores(probes: Floats, templates: Floats, squares: Floats) -> Floats:
    """2 x.y - |y|^2 of each probe (rows) and each template (columns). `squares`: |y|^2 of each template."""
    scores = probes @ templates.T
    scores *= 2
    scores -= squares
    return scores


def recognised(nearest: Sequence[Candidate], threshold: float, margin_min: float = MARGIN_MIN) -> Recognition:
    """What the nearest people, nearest first, come to.

    A runner-up less than the margin behind, himself near enough or not, makes it AMBIGUOUS: nobody is let
    in as somebody else.

    With a threshold of 0.45: Ann at 0.30 and Cyd at 0.61 are RECOGNISED, Ann; Ann at 0.30 and Bea at 0.32
    AMBIGUOUS; Cyd at 0.61 alone UNKNOWN.
    """
    if not nearest or not nearest[0].distance <= threshold:
        return Recognition(Verdict.UNKNOWN, "", None)
    margin = nearest[1].distance - nearest[0].distance if len(nearest) > 1 else None
    if margin is not None and margin < margin_min:
        return Recognition(Verdict.AMBIGUOUS, "", margin)
    return Recognition(Verdict.RECOGNISED, nearest[0].person_id, margin)
