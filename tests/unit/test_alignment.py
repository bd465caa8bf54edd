"""Chips are cut where the five points say, however a face is turned, placed or scaled."""

from __future__ import annotations

import cmath
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chassis.errors import Invalid
from svc_vision.recognition.alignment import ARCFACE_112, DLIB_FROM_YUNET, Aligner, chip, similarity

aligners = st.sampled_from([DLIB_FROM_YUNET, ARCFACE_112])


def moved(aligner: Aligner, turn: complex, shift: complex) -> NDArray[np.float32]:
    """The aligner's own points, turned, scaled and shifted."""
    points = turn * aligner.targets() + shift
    return np.stack([points.real, points.imag], axis=1).astype(np.float32)


@given(aligners, st.floats(0.1, 20), st.floats(-math.pi, math.pi), st.floats(0, 4000), st.floats(0, 3000))
def test_the_similarity_that_moved_the_points_is_found_again(
    aligner: Aligner, scale: float, angle: float, x: float, y: float
) -> None:
    turn, shift = cmath.rect(scale, angle), complex(x, y)
    found = similarity(moved(aligner, turn, shift), aligner)
    assert found.turn == pytest.approx(turn, rel=1e-3, abs=1e-3)
    assert found.shift == pytest.approx(shift, abs=0.2)
    assert found.residual < 0.01


@cache
def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose colour at any place, also between pixels, is known: see `colour_at`."""
    y, x = np.mgrid[0:height, 0:width]
    return np.round(colour_at(x, y)).astype(np.uint8)


def colour_at(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    waves = [np.sin(x / 23 + 1) * np.cos(y / 31), np.sin((x + y) / 41), np.cos((x - 2 * y) / 53)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1)


@settings(max_examples=40)
@given(st.floats(0.4, 3.5), st.floats(-math.pi, math.pi), st.integers(0, 100), st.integers(0, 100))
def test_a_chip_holds_what_the_frame_shows_there(scale: float, angle: float, x: int, y: int) -> None:
    """Every pixel of it, to a few levels; half a pixel astray would miss by ten."""
    picture = smooth(900, 1000)
    turn = cmath.rect(scale, angle)
    shift = complex(450 + x, 400 + y) - turn * complex(75, 75)
    cut = chip(picture, moved(DLIB_FROM_YUNET, turn, shift), DLIB_FROM_YUNET).astype(np.float64)
    rows, columns = np.mgrid[0:150, 0:150]
    at = turn * (columns + 1j * rows) + shift
    inside = (at.real > 2) & (at.imag > 2) & (at.real < 997) & (at.imag < 897)
    assert np.abs(cut - colour_at(at.real, at.imag))[inside].max() < 5


def test_outside_the_frame_a_chip_is_black() -> None:
    picture = np.full((200, 200, 3), 255, np.uint8)
    cut = chip(picture, moved(DLIB_FROM_YUNET, 1 + 0j, -60 - 60j), DLIB_FROM_YUNET)
    assert not cut[:55, :55].any()
    assert (cut[65:, 65:] == 255).all()
    assert not chip(picture, moved(DLIB_FROM_YUNET, 1 + 0j, 5_000 + 0j), DLIB_FROM_YUNET).any()


GOOD = moved(DLIB_FROM_YUNET, 2 + 0j, 10 + 10j)
WRONG = {
    "mirrored": GOOD * np.array([-1, 1], np.float32) + 300,
    "left and right changed": GOOD[[1, 0, 2, 4, 3]],
    "all in one place": np.full((5, 2), 40, np.float32),
    "in one line": np.array([(number * 20, 50) for number in range(5)], np.float32),
    "not finite": np.where(GOOD[0, 0] == GOOD, np.nan, GOOD),
    "of four points": GOOD[:4],
    "larger than any face": GOOD * 1e6,
    "endless": np.where(GOOD[0, 0] == GOOD, np.inf, GOOD),
}


@pytest.mark.parametrize("points", WRONG.values(), ids=WRONG)
def test_points_that_are_no_face_are_refused(points: NDArray[np.float32]) -> None:
    """They come from a device: whatever it sends, nothing is cut from them."""
    with pytest.raises(Invalid) as refused:
        chip(smooth(300, 300), points, DLIB_FROM_YUNET)
    assert refused.value.reason == "FACE_POINTS_INVALID"
