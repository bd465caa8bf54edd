"""Faces and models for tests: of DAOGOU_TEST_FACES and DAOGOU_MODELS, and one that scikit-image brings."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from chassis.errors import Refused
from svc_vision.recognition import model_files
from svc_vision.recognition.alignment import Frame
from svc_vision.recognition.detection import Face, FaceDetector

PEOPLE = (("13", "14", "15"), ("16", "17"), ("18", "19"), ("20", "21"), ("22", "23"))
"""Numbers of the photographs that show the same person."""


@cache
def astronaut() -> Frame:
    """Eileen Collins, 512 x 512: a photograph by NASA that everybody may use. Her face is 91 pixels wide."""
    from skimage import data

    picture: Frame = data.astronaut()  # type: ignore[no-untyped-call]
    return picture


def astronauts_face() -> Face:
    """What YuNet finds in it, so that tests need not have YuNet."""
    points = np.array(
        [(203.35, 103.62), (247.52, 104.45), (224.10, 127.69), (203.96, 143.14), (242.91, 143.67)], np.float32
    )
    return Face(178.1, 65.0, 91.4, 111.4, 0.94, points)


def resized(picture: Frame, factor: float) -> Frame:
    """The picture, larger or smaller."""
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def scene(*placed: tuple[Frame, int, int], width: int = 1920, height: int = 1080) -> Frame:
    """A grey frame with pictures in it, each with its left and top; what does not fit in is cut off."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for picture, left, top in placed:
        part = picture[: height - top, : width - left]
        frame[top : top + part.shape[0], left : left + part.shape[1]] = part
    return frame


def models_folder() -> Path | None:
    """DAOGOU_MODELS."""
    return Path(os.environ["DAOGOU_MODELS"]) if "DAOGOU_MODELS" in os.environ else None


@cache
def detector() -> FaceDetector:
    """YuNet; skips the test where its file is not there."""
    try:
        return FaceDetector(model_files.yunet_file(models_folder()))
    except Refused as refused:
        pytest.skip(f"needs YuNet in DAOGOU_MODELS ({refused.reason})")


def photographs() -> dict[str, Path]:
    """Number to file of the photographs in DAOGOU_TEST_FACES; skips the test where they are not there."""
    folder = Path(os.environ.get("DAOGOU_TEST_FACES", ""))
    found = {file.stem.removeprefix("img"): file for file in folder.glob("img*.jpg")}
    if not {number for person in PEOPLE for number in person} <= set(found):
        pytest.skip("needs photographs of five people in DAOGOU_TEST_FACES")
    return found


def distances(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Between each two."""
    return np.asarray(np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2))
