"""A picture for enrolment is told what is wrong with it, and a good one that nothing is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from svc_vision.recognition.alignment import Frame, Points
from svc_vision.recognition.detection import Face
from svc_vision.recognition.quality import Flaw, pose_of, report
from tests import faces

FACE = faces.astronauts_face()


def blurred(picture: Frame, radius: float) -> Frame:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def lit(picture: Frame, factor: float) -> Frame:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor))


def scaled(face: Face, factor: float) -> Face:
    left, top, width, height = (factor * number for number in (face.left, face.top, face.width, face.height))
    return Face(left, top, width, height, face.score, face.points * np.float32(factor))


def shifted(face: Face, right: float, down: float) -> Face:
    move = np.array([right, down], np.float32)
    return replace(face, left=face.left + right, top=face.top + down, points=face.points + move)


def test_a_good_picture_has_no_flaw() -> None:
    found = report(faces.astronaut(), [FACE])
    assert found.flaws == ()
    assert (found.faces, round(found.face_px)) == (1, 91)
    assert 0.5 < found.score <= 1


def test_without_a_face_there_is_nothing_more_to_say() -> None:
    found = report(faces.astronaut(), [])
    assert (found.flaws, found.pose, found.score) == ((Flaw.NO_FACE,), None, 0.0)


@pytest.mark.parametrize(
    ("picture", "face", "flaw"),
    [
        (blurred(faces.astronaut(), 1.5), FACE, Flaw.BLURRED),
        (blurred(faces.resized(faces.astronaut(), 3), 6), scaled(FACE, 3), Flaw.BLURRED),
        (lit(faces.astronaut(), 0.15), FACE, Flaw.TOO_DARK),
        (lit(faces.astronaut(), 2), FACE, Flaw.TOO_BRIGHT),
        (lit(faces.astronaut(), 2), FACE, Flaw.LIGHT_UNEVEN),
        (faces.resized(faces.astronaut(), 0.6), scaled(FACE, 0.6), Flaw.FACE_TOO_SMALL),
        (faces.astronaut()[:, 225:], shifted(FACE, -225, 0), Flaw.FACE_CLIPPED),
        (faces.astronaut()[130:], shifted(FACE, 0, -130), Flaw.FACE_CLIPPED),
    ],
)
def test_each_flaw_is_told(picture: Frame, face: Face, flaw: Flaw) -> None:
    good = report(faces.astronaut(), [FACE])
    found = report(picture, [face])
    assert flaw in found.flaws
    assert found.score < good.score


def test_sharpness_is_not_lost_in_the_dark_nor_by_size() -> None:
    """A dim picture and a large one of the same face are as sharp."""
    good = report(faces.astronaut(), [FACE])
    for picture, face in (
        (lit(faces.astronaut(), 0.4), FACE),
        (faces.resized(faces.astronaut(), 3), scaled(FACE, 3)),
    ):
        found = report(picture, [face])
        assert Flaw.BLURRED not in found.flaws
        assert found.sharpness == pytest.approx(good.sharpness, rel=0.35)


def test_two_faces_are_too_many_and_a_passer_by_is_not() -> None:
    two = np.hstack([faces.astronaut(), faces.astronaut()])
    assert report(two, [FACE, shifted(FACE, 512, 0)]).flaws == (Flaw.SEVERAL_FACES,)
    behind = shifted(scaled(FACE, 0.3), 512, 0)
    found = report(two, [behind, FACE])
    assert (found.flaws, found.faces) == ((), 2)


# ---- pose -----------------------------------------------------------------------------------------------

# Of a head that looks at the camera, in eye distances: right, down, and towards the camera.
HEAD = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0, 0.63, 0.5), (-0.4, 1.0, 0), (0.4, 1.0, 0)])


def seen(yaw: float, pitch: float, roll: float) -> Points:
    """Its five points in a picture, turned by degrees."""
    a, b, c = (math.radians(angle) for angle in (yaw, pitch, roll))
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    nod = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    lean = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    points: Points = ((HEAD @ (lean @ nod @ turn).T)[:, :2] * 60 + 300).astype(np.float32)
    return points


@given(st.floats(-25, 25), st.floats(-20, 20), st.floats(-80, 80))
def test_a_pose_is_told_to_about_ten_degrees(yaw: float, pitch: float, roll: float) -> None:
    found = pose_of(seen(yaw, pitch, roll))
    assert found.yaw == pytest.approx(yaw, abs=12)
    assert found.pitch == pytest.approx(pitch, abs=12)
    assert found.roll == pytest.approx(roll, abs=12)


@pytest.mark.parametrize("turned", [(50, 0, 0), (-50, 0, 0), (0, 45, 0), (0, -45, 0), (0, 0, 45)])
def test_a_head_turned_away_is_told(turned: tuple[float, float, float]) -> None:
    face = replace(FACE, points=seen(*turned), left=200, top=200, width=150, height=180)
    assert Flaw.FACE_TURNED in report(np.full((600, 600, 3), 128, np.uint8), [face]).flaws
