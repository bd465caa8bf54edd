"""The default model computes what dlib computes, and is made once."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dlib
import numpy as np
import pytest

from svc_vision.recognition import dlib_graph, dlib_weights
from svc_vision.recognition.alignment import DLIB_FROM_YUNET, chip
from svc_vision.recognition.dlib_weights import WeightsUnusable
from tests import faces
from tests.unit.conftest import Embed


def chips() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A face, noise, and the ends of what a chip can be."""
    noise = np.random.default_rng(3).integers(0, 256, (2, 150, 150, 3), dtype=np.uint8)
    ramp = (np.arange(150 * 150 * 3) % 256).astype(np.uint8).reshape(1, 150, 150, 3)
    face = chip(faces.astronaut(), faces.astronauts_face().points, DLIB_FROM_YUNET)[None]
    flat = np.zeros((1, 150, 150, 3), np.uint8)
    return np.concatenate([face, noise, ramp, flat, flat + 255])


def test_embeddings_are_those_of_dlib_itself(embed: Embed) -> None:
    """To one part in 100,000: galleries of either can be searched by the other."""
    theirs = dlib.face_recognition_model_v1(str(dlib_weights.data_file()))
    expected = np.array([theirs.compute_face_descriptor(one) for one in chips()])
    assert np.abs(embed(chips()) - expected).max() < 1e-5


def test_embeddings_are_not_of_unit_length(embed: Embed) -> None:
    """And must not be made so: their metric is the distance as they are."""
    lengths = np.linalg.norm(embed(chips()), axis=1)
    assert (lengths > 1.2).all()
    assert np.ptp(lengths) > 0.05


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_batch_of_any_size_gives_what_each_gives_alone(embed: Embed, size: int) -> None:
    batch = chips()[np.arange(size) % len(chips())]
    alone = np.concatenate([embed(one[None]) for one in batch])
    assert np.abs(embed(batch) - alone).max() < 1e-5


def test_the_graph_is_made_once_and_whole(tmp_path: Path) -> None:
    """Also when two processes begin at the same time; nothing half written is ever left or read."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(dlib_graph.graph_file, [tmp_path / "cache"] * 2)
    assert first == second
    assert list((tmp_path / "cache").iterdir()) == [first]
    made = first.stat()
    assert dlib_graph.graph_file(tmp_path / "cache").stat() == made


def test_a_graph_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        dlib_graph.graph_file(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    """One flipped bit would be another model."""
    content = bytearray(dlib_weights.data_file().read_bytes())
    content[10_000] ^= 1
    wrong = tmp_path / "weights.dat"
    wrong.write_bytes(content)
    with pytest.raises(WeightsUnusable, match="checksum"):
        dlib_weights.read(wrong)


def test_a_missing_package_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnusable, match="face_recognition_models"):
        dlib_weights.data_file()
