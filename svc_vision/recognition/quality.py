"""How good a picture is for enrolment: what is wrong with it, in words that tell a person what to do.

Numbers that can be judged alone: size and place of the face, pose from its five points, sharpness and light
on the aligned chip. The bounds are meant to keep out what would be regretted at the door, not to choose
beauty; of several good pictures `score` says which to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from svc_vision.recognition.alignment import DLIB_FROM_YUNET, Frame, Points, chip
from svc_vision.recognition.detection import Face

FACE_PX_MIN: Final = 80
"""Of a picture to enrol; a door recognises from 50 on."""
YAW_MAX, PITCH_MAX, ROLL_MAX = 30.0, 25.0, 30.0
SHARPNESS_MIN: Final = 0.020
LIGHT_MIN, LIGHT_MAX = 40.0, 205.0  # the darkest skin in good light is near 50
CLIPPED_MAX: Final = 0.25
SECOND_FACE_MIN: Final = 0.5
"""A second face at least so wide as a share of the widest; smaller ones are passers-by far behind."""
# The inner part of the chip: the face without hair and background. Shares of its side.
_INNER: Final = slice(0.2, 0.8)
# Where the tip of the nose lies on a face seen from the front, from between the eyes down to the mouth.
_NOSE_DOWN: Final = 0.63


class Flaw(Enum):
    """What is wrong with a picture; the value is the reason as the contract names it."""

    NO_FACE = "NO_FACE"
    SEVERAL_FACES = "SEVERAL_FACES"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    FACE_CLIPPED = "FACE_CLIPPED"
    FACE_TURNED = "FACE_TURNED"
    BLURRED = "BLURRED"
    TOO_DARK = "TOO_DARK"
    TOO_BRIGHT = "TOO_BRIGHT"
    LIGHT_UNEVEN = "LIGHT_UNEVEN"


@dataclass(frozen=True, slots=True)
class Pose:
    """Degrees, 0 from the front; estimated from five points, so good to ten degrees or so.

    yaw: positive turned towards the right of the image. pitch: positive looking down. roll: positive leaning
    clockwise.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The report on one picture. Without a face all numbers are 0 and the pose None.

    `face_px`: width of the face's box. `sharpness`: how much of the light changes from one pixel of the chip
    to the next, 0 is a wall. `light`: mean brightness of the face, 0 to 255. `clipped_share`: how much of it
    is black or white. `faces`: how many were found. `score`: for ranking pictures of one person, 0 to 1.
    """

    flaws: tuple[Flaw, ...]
    faces: int
    face_px: float = 0.0
    sharpness: float = 0.0
    light: float = 0.0
    clipped_share: float = 0.0
    pose: Pose | None = None
    score: float = 0.0


def report(frame: Frame, faces: Sequence[Face]) -> Quality:
    """What can be said of a picture and of the widest of the faces found in it."""
    if not faces:
        return Quality((Flaw.NO_FACE,), 0)
    face = max(faces, key=lambda one: one.width)
    inner = _grey(chip(frame, face.points, DLIB_FROM_YUNET))
    side = len(inner)
    inner = inner[_part(side), _part(side)]
    pose = pose_of(face.points)
    light = float(inner.mean())
    clipped = float(((inner <= 5) | (inner >= 250)).mean())
    sharpness = _sharpness(inner)
    wide = [one for one in faces if one.width >= SECOND_FACE_MIN * face.width]
    found = {
        Flaw.SEVERAL_FACES: len(wide) > 1,
        Flaw.FACE_TOO_SMALL: face.width < FACE_PX_MIN,
        Flaw.FACE_CLIPPED: _is_clipped(face, *frame.shape[:2]),
        Flaw.FACE_TURNED: abs(pose.yaw) > YAW_MAX or abs(pose.pitch) > PITCH_MAX or abs(pose.roll) > ROLL_MAX,
        Flaw.BLURRED: sharpness < SHARPNESS_MIN,
        Flaw.TOO_DARK: light < LIGHT_MIN,
        Flaw.TOO_BRIGHT: light > LIGHT_MAX,
        Flaw.LIGHT_UNEVEN: clipped > CLIPPED_MAX,
    }
    flaws = tuple(flaw for flaw, is_there in found.items() if is_there)
    good = (
        min(1.0, face.width / 200),
        min(1.0, sharpness / (3 * SHARPNESS_MIN)),
        max(0.0, 1 - abs(light - 128) / 128),
        max(0.0, math.cos(math.radians(pose.yaw)) * math.cos(math.radians(pose.pitch))),
    )
    score = math.prod(good) ** (1 / len(good)) / (1 + len(flaws))
    return Quality(flaws, len(faces), face.width, sharpness, light, clipped, pose, score)


def pose_of(points: Points) -> Pose:
    """How a head is turned, from where the nose lies between eyes and mouth.

    The nose stands out by about half the distance of the eyes: turned by an angle, it moves by that much of
    its sine along the line of the eyes, or across it.
    """
    left_eye, right_eye, nose, mouth_left, mouth_right = points.astype(np.float64)
    eyes = right_eye - left_eye
    middle = (left_eye + right_eye) / 2
    down = (mouth_left + mouth_right) / 2 - middle
    apart, height = float(np.hypot(*eyes)), float(np.hypot(*down))
    roll = math.degrees(math.atan2(eyes[1], eyes[0]))
    if apart == 0 or height == 0:
        return Pose(90.0, 0.0, roll)
    axes = np.column_stack([eyes, down])
    if abs(np.linalg.det(axes)) < 1e-6 * apart * height:
        return Pose(90.0, 0.0, roll)
    along, across = np.linalg.solve(axes, nose - middle)
    yaw = math.degrees(math.asin(float(np.clip(2 * along, -1, 1))))
    pitch = math.degrees(math.asin(float(np.clip(2 * (across - _NOSE_DOWN), -1, 1))))
    return Pose(yaw, pitch, roll)


def _is_clipped(face: Face, height: int, width: int) -> bool:
    """Whether a point, or a tenth of the box, lies outside the picture."""
    allowed_x, allowed_y = face.width / 10, face.height / 10
    inside = (face.points >= 0).all() and (face.points <= (width - 1, height - 1)).all()
    beyond = (
        face.left < -allowed_x
        or face.top < -allowed_y
        or face.left + face.width > width + allowed_x
        or face.top + face.height > height + allowed_y
    )
    return bool(beyond or not inside)


def _part(side: int) -> slice:
    return slice(round(_INNER.start * side), round(_INNER.stop * side))


def _grey(rgb: Frame) -> NDArray[np.float32]:
    return rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _sharpness(grey: NDArray[np.float32]) -> float:
    """Mean second difference, both ways, as a share of the contrast: a dim picture is not a blurred one."""
    down = np.abs(np.diff(grey, 2, axis=0)).mean()
    right = np.abs(np.diff(grey, 2, axis=1)).mean()
    return float((down + right) / 2 / (np.ptp(np.percentile(grey, (2, 98))) + 1))
