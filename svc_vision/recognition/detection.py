"""Faces in a frame: YuNet through ONNX Runtime. Each with its box, its five points and a score.

The frame is not surrounded by a border, which would make small faces smaller; it is only filled up at the
right and the bottom to what the network divides by. Points come in alignment.py's order and in pixels of the
frame as given, however small it was made for the network, so that chips are cut at full resolution.

OpenCV has an object for the same network; it is slower and may not be shared by threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from chassis.errors import Refused
from svc_vision.recognition.alignment import Frame, Points

LONGEST_SIDE_PX: Final = 1280
SCORE_MIN: Final = 0.7
OVERLAP_MAX: Final = 0.3
FACES_MAX: Final = 50
"""Faces of one frame that are looked at, the surest first."""
FACE_PX_MIN: Final = 47
"""Faces with a narrower box are TOO_FAR to be told apart: those of 50 pixels are found as 47 to 53."""
_STRIDES: Final = (8, 16, 32)
_STRIDE_MAX: Final = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face found. Pixels of the frame; the box may reach beyond it."""

    left: float
    top: float
    width: float
    height: float
    score: float
    points: Points

    @property
    def is_too_far(self) -> bool:
        """Whether it is too small to be recognised; the person may come closer."""
        return self.width < FACE_PX_MIN


class FaceDetector:
    """YuNet. May be called by several threads at once."""

    def __init__(self, file: Path, *, threads: int = 1, longest_side_px: int = LONGEST_SIDE_PX) -> None:
        """Read the network.

        Raises: Refused MODEL_UNUSABLE when the file is no YuNet that takes frames of any size.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Refused("MODEL_UNUSABLE", f"{file.name} is not a network that can be read") from error
        wanted = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES]
        given = self._session.get_inputs()
        if {output.name for output in self._session.get_outputs()} != set(wanted) or len(given) != 1:
            raise Refused("MODEL_UNUSABLE", f"{file.name} is not YuNet of 2023")
        if any(isinstance(size, int) for size in given[0].shape[2:]):
            raise Refused("MODEL_UNUSABLE", f"{file.name} is YuNet for frames of one size only")
        self._input, self._outputs = given[0].name, wanted
        self._longest_side_px = longest_side_px

    def detect(self, frame: Frame, *, score_min: float = SCORE_MIN) -> list[Face]:
        """The faces in an RGB frame, uint8 (height, width, 3), the surest first."""
        height, width = frame.shape[:2]
        scale = min(1.0, self._longest_side_px / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        outputs = self._session.run(self._outputs, {self._input: _filled_up(frame)})
        found = _decoded(outputs, -(-frame.shape[1] // _STRIDE_MAX) * _STRIDE_MAX, score_min)
        back = np.array([width / frame.shape[1], height / frame.shape[0]], np.float32)
        # Along pixels' corners, which stay where they are, not their middles.
        return [_face(row, back) for row in _surest(found)[:FACES_MAX]]


def _filled_up(frame: Frame) -> Floats:
    """The frame as the network takes it: blue first, channels first, sides that its strides divide."""
    height, width = (-(-side // _STRIDE_MAX) * _STRIDE_MAX for side in frame.shape[:2])
    filled = np.zeros((1, 3, height, width), np.float32)
    filled[0, :, : frame.shape[0], : frame.shape[1]] = frame[:, :, ::-1].transpose(2, 0, 1)
    return filled


def _decoded(outputs: list[Floats], width: int, score_min: float) -> Floats:
    """Rows of left, top, width, height, five points and score, from every cell that is sure enough."""
    rows = []
    for stride, sure, is_object, box, points in zip(
        _STRIDES, *(outputs[kind : kind + 3] for kind in (0, 3, 6, 9)), strict=True
    ):
        score = np.sqrt(np.clip(sure[0, :, 0], 0, 1) * np.clip(is_object[0, :, 0], 0, 1))
        cells = np.flatnonzero(score >= score_min)
        corner = np.stack([cells % (width // stride), cells // (width // stride)], axis=1)
        size = np.exp(box[0, cells, 2:]) * stride
        middle = (corner + box[0, cells, :2]) * stride
        at = (corner[:, None] + points[0, cells].reshape(-1, 5, 2)) * stride
        rows.append(np.concatenate([middle - size / 2, size, at.reshape(-1, 10), score[cells, None]], axis=1))
    return np.concatenate(rows).astype(np.float32)


def _surest(found: Floats) -> list[Floats]:
    """Of the rows that overlap too much to be two faces, the surest; in order of their scores."""
    kept: list[Floats] = []
    rest = found[np.argsort(-found[:, -1], kind="stable")]
    while len(rest):
        kept.append(rest[0])
        rest = rest[_overlap(rest[0], rest) <= OVERLAP_MAX]
    return kept


def _overlap(one: Floats, others: Floats) -> Floats:
    """What is common to two boxes, as a share of what they cover together. Of a box with itself: 1."""
    begin = np.maximum(one[:2], others[:, :2])
    end = np.minimum(one[:2] + one[2:4], others[:, :2] + others[:, 2:4])
    common = np.clip(end - begin, 0, None).prod(axis=1)
    together = one[2] * one[3] + others[:, 2] * others[:, 3] - common
    return np.asarray(common / np.maximum(together, np.finfo(np.float32).tiny))


def _face(row: Floats, back: Floats) -> Face:
    left, top, width, height = (row[:4] * np.tile(back, 2)).tolist()
    return Face(left, top, width, height, float(row[14]), row[4:14].reshape(5, 2) * back)
