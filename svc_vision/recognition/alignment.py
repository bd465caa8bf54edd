"""From five points of a face in a frame to the upright chip that a model takes.

The points come in one order everywhere: the eye at the left of the image, the eye at its right, the tip of
the nose, the corner of the mouth at the left of the image, the corner at its right; x to the right, y down,
in pixels, whole numbers in the middle of a pixel. The similarity (turn, scale, shift; never a mirror) that
brings them nearest to the aligner's own five points, by least squares, decides which part of the frame is the
chip.

Two aligners are never mixed: the same face through another one moves by 0.10 to 0.20 in dlib's distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chassis.errors import Invalid

POINTS: Final = 5
SCALE_MAX: Final = 100.0
"""Pixels of the frame for one of the chip: a face wider than any frame is none."""
_RESIDUAL_MAX: Final = 0.35
_REACH: Final = 2

Points = NDArray[np.float32]
Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Aligner:
    """Where the five points come to lie on a chip, and how large it is. The id names both for ever."""

    aligner_id: str
    side_px: int
    points: tuple[tuple[float, float], ...]

    def targets(self) -> NDArray[np.complex128]:
        """The points as complex numbers: a similarity is then a product and a sum."""
        return _as_complex(np.array(self.points))


DLIB_FROM_YUNET: Final = Aligner(
    "yunet-5-points-150", 150, ((46.6, 44.2), (101.5, 44.8), (75.1, 78.5), (48.3, 98.6), (99.0, 99.2))
)
"""Where YuNet sees the points of a face that dlib itself has aligned (padding 0.25)."""
ARCFACE_112: Final = Aligner(
    "yunet-5-points-112",
    112,
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
)
"""What the models trained by InsightFace's recipe expect."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """frame = turn x chip + shift, in complex numbers: |turn| pixels of the frame make one of the chip.

    `residual`: how far the aligner's points miss the face's, in the mean, as a share of the distance of its
    eyes.
    """

    turn: complex
    shift: complex
    residual: float


def similarity(points: Points, aligner: Aligner) -> Similarity:
    """The similarity from the chip to the frame that brings the aligner's points nearest to these.

    Raises: Invalid FACE_POINTS_INVALID (not five finite points, all in one place, mirrored, or so far from a
    face's that no turn and scale makes them one).
    """
    if points.shape != (POINTS, 2) or not np.isfinite(points).all():
        raise Invalid("FACE_POINTS_INVALID", "a face has five points, each with a finite x and y")
    seen, targets = _as_complex(points), aligner.targets()
    centre, target_centre = seen.mean(), targets.mean()
    seen_around, targets_around = seen - centre, targets - target_centre
    turn = complex((targets_around.conj() @ seen_around) / (targets_around.conj() @ targets_around).real)
    if not 1 / SCALE_MAX <= abs(turn) <= SCALE_MAX:
        raise Invalid(
            "FACE_POINTS_INVALID", "the five points lie in one place, or farther apart than a face's"
        )
    missed = np.abs(turn * targets_around - seen_around).mean()
    residual = float(missed / (abs(turn) * abs(targets[1] - targets[0])))
    if residual > _RESIDUAL_MAX:
        raise Invalid(
            "FACE_POINTS_INVALID", "the five points do not lie as those of a face do, or not in order"
        )
    return Similarity(turn, complex(centre - turn * target_centre), residual)


def chip(frame: Frame, points: Points, aligner: Aligner) -> Frame:
    """The aligned face, uint8 (side, side, 3), from the frame at its full resolution; black outside it.

    Raises: Invalid FACE_POINTS_INVALID.
    """
    found = similarity(points, aligner)
    side = aligner.side_px
    corners = np.array([0, side - 1, 1j * (side - 1), (1 + 1j) * (side - 1)])
    corners = found.turn * corners + found.shift
    left, top = int(np.floor(corners.real.min())) - _REACH, int(np.floor(corners.imag.min())) - _REACH
    right, bottom = int(np.ceil(corners.real.max())) + _REACH, int(np.ceil(corners.imag.max())) + _REACH
    left, top = max(left, 0), max(top, 0)
    part = frame[top : max(bottom, 0) + 1, left : max(right, 0) + 1]
    if part.size == 0:
        return np.zeros((side, side, 3), np.uint8)
    # Several pixels of the frame that make one of the chip are averaged first, or the chip would be of a few.
    fewer = max(1, int(abs(found.turn)))
    source = Image.fromarray(part)
    if fewer > 1:
        source = source.reduce(fewer)
    turn = found.turn / fewer
    # Whole numbers are the middle of a pixel here and its corner in Pillow: hence the halves.
    shift = (found.shift - complex(left, top) + 0.5 * (1 + 1j)) / fewer - turn * 0.5 * (1 + 1j)
    affine = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    drawn = source.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(drawn)


def _as_complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    columns = points.astype(np.float64)
    return np.asarray(columns[:, 0] + 1j * columns[:, 1])
