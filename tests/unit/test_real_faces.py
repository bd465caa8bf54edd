"""With real faces: people are found, told apart and known again, at the sizes that doors see them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chassis.errors import Refused
from svc_vision.recognition import images
from svc_vision.recognition.alignment import DLIB_FROM_YUNET, Frame, Points, chip
from svc_vision.recognition.detection import Face, FaceDetector, _overlap, _surest
from svc_vision.recognition.model_contract import DLIB, Metric
from svc_vision.recognition.quality import report
from svc_vision.recognition.search import Gallery
from svc_vision.rules.score import Verdict, recognised
from svc_vision.rules.threshold import threshold
from tests import faces
from tests.unit.conftest import Embed

ASTRONAUTS_WIDTH = 91.4
ACCEPTED = threshold(DLIB.points, templates=11, attempts=1, accepted_fpir=0.01).distance


def embedding(embed: Embed, frame: Frame, points: Points) -> NDArray[np.float32]:
    [found] = embed(chip(frame, points, DLIB_FROM_YUNET)[None])
    return np.asarray(found)


@pytest.fixture(scope="module")
def known(embed: Embed) -> NDArray[np.float32]:
    """The astronaut, as she was enrolled."""
    return embedding(embed, faces.astronaut(), faces.astronauts_face().points)


@pytest.fixture(scope="module")
def photographed(embed: Embed) -> dict[str, NDArray[np.float32]]:
    """Number to embedding of the photographs."""
    found = {}
    for number, file in faces.photographs().items():
        frame = images.decoded(file.read_bytes())
        [face] = faces.detector().detect(frame)
        found[number] = embedding(embed, frame, face.points)
    return found


# ---- with what scikit-image brings ------------------------------------------------------------------------


@pytest.mark.parametrize("face_px", [200, 83, 57, 50])
def test_a_face_is_known_again_at_the_sizes_of_doors(
    embed: Embed, known: NDArray[np.float32], face_px: int
) -> None:
    """A 1080p camera sees 83 pixels at three metres through a lens of 60 degrees, 57 through one of 80."""
    factor = face_px / ASTRONAUTS_WIDTH
    frame = faces.scene((faces.resized(faces.astronaut(), factor), 640, 20))
    points = faces.astronauts_face().points * np.float32(factor) + np.array([640, 20], np.float32)
    assert np.linalg.norm(embedding(embed, frame, points) - known) < ACCEPTED


def test_a_face_is_known_again_turned_mirrored_and_in_another_light(
    embed: Embed, known: NDArray[np.float32]
) -> None:
    picture, points = faces.astronaut(), faces.astronauts_face().points
    turned = np.rot90(picture)
    turned_points = np.stack([points[:, 1], 511 - points[:, 0]], axis=1)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    mirrored_points = (points * np.array([-1, 1], np.float32) + np.array([511, 0], np.float32))[
        [1, 0, 2, 4, 3]
    ]
    dim = (picture * 0.5).astype(np.uint8)
    for frame, at in ((turned, turned_points), (mirrored, mirrored_points), (dim, points)):
        assert np.linalg.norm(embedding(embed, frame, at) - known) < ACCEPTED


def test_what_is_no_face_is_nobody(embed: Embed, known: NDArray[np.float32]) -> None:
    """Cut from the same picture: her arm, the flag, the shuttle."""
    gallery = Gallery(["astronaut"], known[None], Metric.L2)
    for left, top in ((0, 300), (300, 20), (20, 20), (350, 250)):
        probe = embed(np.ascontiguousarray(faces.astronaut()[top : top + 150, left : left + 150])[None])
        assert recognised(gallery.nearest(probe)[0], ACCEPTED).verdict is Verdict.UNKNOWN


def test_faces_that_overlap_too_much_are_one() -> None:
    """The surest of each heap stays, in order."""

    def row(left: float, top: float, score: float) -> list[float]:
        return [left, top, 100, 100, *[0.0] * 10, score]

    found = np.array([row(0, 0, 0.8), row(10, 0, 0.9), row(300, 0, 0.95), row(70, 0, 0.75)], np.float32)
    assert [float(one[0]) for one in _surest(found)] == [300, 10, 70]
    assert _overlap(found[0], found)[0] == pytest.approx(1)
    assert _surest(found[:0]) == []


def test_a_file_that_is_no_detector_is_refused(dlib_graph_file: Path, tmp_path: Path) -> None:
    rubbish = tmp_path / "yunet.onnx"
    rubbish.write_bytes(b"no network")
    for file in (dlib_graph_file, rubbish):
        with pytest.raises(Refused) as refused:
            FaceDetector(file)
        assert refused.value.reason == "MODEL_UNUSABLE"


# ---- with YuNet -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face_px", [83, 57, 50])
@pytest.mark.parametrize(("left", "top"), [(300, 200), (1500, 700), (801, 403)])
def test_a_small_face_in_a_large_frame_is_found_and_known_again(
    embed: Embed, known: NDArray[np.float32], face_px: int, left: int, top: int
) -> None:
    factor = face_px / ASTRONAUTS_WIDTH
    frame = faces.scene((faces.resized(faces.astronaut(), factor), left, top))
    [face] = faces.detector().detect(frame)
    assert face.width == pytest.approx(face_px, abs=4)
    assert not face.is_too_far
    where = faces.astronauts_face().points * np.float32(factor) + np.array([left, top], np.float32)
    assert np.abs(face.points - where).max() < face_px / 10
    assert np.linalg.norm(embedding(embed, frame, face.points) - known) < ACCEPTED


def test_a_face_that_is_too_small_is_too_far() -> None:
    """It is found, so that the terminal can ask her to come closer."""
    small = faces.resized(faces.astronaut(), 36 / ASTRONAUTS_WIDTH)
    [face] = faces.detector().detect(faces.scene((small, 800, 400)))
    assert face.is_too_far


@pytest.mark.parametrize("frame", [(480, 640), (1080, 1920), (33, 47), (1, 1), (2000, 300)])
def test_frames_of_every_shape_without_a_face_have_none(frame: tuple[int, int]) -> None:
    assert faces.detector().detect(np.full((*frame, 3), 128, np.uint8)) == []


def test_detection_may_be_shared_by_threads() -> None:
    """Many at once find what each finds alone."""
    shown = [
        faces.scene((faces.resized(faces.astronaut(), factor), 300, 100), width=960, height=720)
        for factor in (0.7, 0.9, 1.1, 1.3)
    ]
    alone = [faces.detector().detect(frame) for frame in shown]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(faces.detector().detect, shown * 4))
    for found, expected in zip(together, alone * 4, strict=True):
        assert [(one.left, one.score) for one in found] == [(one.left, one.score) for one in expected]


# ---- with photographs of five people ----------------------------------------------------------------------


def test_the_same_person_is_always_nearer_than_another(photographed: dict[str, NDArray[np.float32]]) -> None:
    """With room between: 0.5 for the farthest of the same, 0.75 for the nearest of two."""
    person = {number: index for index, numbers in enumerate(faces.PEOPLE) for number in numbers}
    for one, other in combinations(photographed, 2):
        apart = float(np.linalg.norm(photographed[one] - photographed[other]))
        assert apart < 0.5 if person[one] == person[other] else apart > 0.75, (
            f"{one} and {other}: {apart:.2f}"
        )


def test_everybody_enrolled_is_recognised_and_nobody_else(
    photographed: dict[str, NDArray[np.float32]],
) -> None:
    """Each photograph once as the probe, all others in the gallery; then without all of her own."""
    person = {number: f"person-{index}" for index, numbers in enumerate(faces.PEOPLE) for number in numbers}
    for probe in photographed:
        others = sorted((number for number in photographed if number != probe), key=lambda one: person[one])
        strangers = [number for number in others if person[number] != person[probe]]
        for enrolled, verdict in ((others, Verdict.RECOGNISED), (strangers, Verdict.UNKNOWN)):
            gallery = Gallery(
                [person[number] for number in enrolled],
                np.stack([photographed[number] for number in enrolled]),
                Metric.L2,
            )
            found = recognised(gallery.nearest(photographed[probe][None])[0], ACCEPTED)
            assert found.verdict is verdict, f"photograph {probe}"
            assert found.person_id == (person[probe] if verdict is Verdict.RECOGNISED else "")


def test_two_people_in_one_frame_are_told_apart(
    embed: Embed, known: NDArray[np.float32], photographed: dict[str, NDArray[np.float32]]
) -> None:
    """Each is known by name, wherever they stand."""
    guest = images.decoded(faces.photographs()["20"].read_bytes())
    frame = faces.scene((faces.astronaut(), 1200, 300), (faces.resized(guest, 0.6), 100, 300))
    found: list[Face] = sorted(faces.detector().detect(frame), key=lambda face: face.left)
    assert len(found) == 2
    gallery = Gallery(["astronaut", "guest"], np.stack([known, photographed["20"]]), Metric.L2)
    probes = np.stack([embedding(embed, frame, face.points) for face in found])
    names = [recognised(nearest, ACCEPTED).person_id for nearest in gallery.nearest(probes)]
    assert names == ["guest", "astronaut"]


def test_press_photographs_are_good_enough_to_enrol() -> None:
    for number, file in faces.photographs().items():
        frame = images.decoded(file.read_bytes())
        found = report(frame, faces.detector().detect(frame))
        assert found.flaws == (), f"photograph {number}"
