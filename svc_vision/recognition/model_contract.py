"""What each model takes and gives, under what licence, and what is known of its errors.

A gallery is pinned to a model and an aligner: embeddings of two models, or of one model through two aligners,
are never compared. FaceNet is left out on purpose: it tells East Asian faces apart measurably worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from svc_vision.recognition.alignment import ARCFACE_112, DLIB_FROM_YUNET, Aligner
from svc_vision.rules.threshold import Evidence, FmrPoint


class Metric(Enum):
    """How far apart two embeddings are. L2: as they are. COSINE: 1 - x.y of their directions alone."""

    L2 = "L2"
    COSINE = "COSINE"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What becomes of a chip, RGB bytes, before the network: (value - mean) x scale in the order of colours.

    `channels_first`: (n, 3, side, side) instead of (n, side, side, 3).
    """

    blue_first: bool
    channels_first: bool
    mean: float
    scale: float


@dataclass(frozen=True, slots=True)
class ModelContract:
    """One model. Chips are RGB, uint8, squares of the aligner's size.

    `file_name`, `file_sha256`: of the file that an operator puts into the folder of models. Without a
    checksum nobody has published one, and the operator vouches for the file himself (model_files.py). All
    three are empty or None for the model that needs no file. `fixed_batch`: the network takes one chip at a
    time.
    """

    model_id: str
    aligner: Aligner
    dimension: int
    metric: Metric
    licence: str
    commercial_use: bool
    points: tuple[FmrPoint, ...]
    file_name: str = ""
    file_sha256: str | None = None
    preparation: Preparation | None = None
    fixed_batch: bool = False


DLIB: Final = ModelContract(
    model_id="dlib-resnet-v1",
    aligner=DLIB_FROM_YUNET,
    dimension=128,
    metric=Metric.L2,
    licence="public domain (weights by Davis King)",
    commercial_use=True,
    points=(FmrPoint(0.45, 5e-4, Evidence.ASSUMED),),
)
"""Needs no download. Enough for a demonstration: its one point is assumed."""

# Of these no false match rate is known for five-point alignment as it is done here: until one is measured or
# published no threshold follows, and every search of many is refused with FPIR_NOT_ATTAINABLE.
SFACE: Final = ModelContract(
    model_id="sface-2021dec",
    aligner=ARCFACE_112,
    dimension=128,
    metric=Metric.COSINE,
    licence="Apache-2.0",
    commercial_use=True,
    points=(),
    file_name="face_recognition_sface_2021dec.onnx",
    file_sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    preparation=Preparation(blue_first=False, channels_first=True, mean=0.0, scale=1.0),
    fixed_batch=True,
)
ARCFACE: Final = ModelContract(
    model_id="arcface-r34-deepface",
    aligner=ARCFACE_112,
    dimension=512,
    metric=Metric.COSINE,
    licence="MIT for the code; trained on MS1M, whose use is for research alone",
    commercial_use=False,
    points=(),
    file_name="arcface_weights.onnx",
    preparation=Preparation(blue_first=True, channels_first=False, mean=0.0, scale=1 / 255),
)
GHOSTFACENET: Final = ModelContract(
    model_id="ghostfacenet-v1-deepface",
    aligner=ARCFACE_112,
    dimension=512,
    metric=Metric.COSINE,
    licence="MIT for the code; trained on MS1M, whose use is for research alone",
    commercial_use=False,
    points=(),
    file_name="ghostfacenet_v1.onnx",
    preparation=Preparation(blue_first=True, channels_first=False, mean=0.0, scale=1 / 255),
)
BUFFALO_L: Final = ModelContract(
    model_id="buffalo-l-w600k-r50",
    aligner=ARCFACE_112,
    dimension=512,
    metric=Metric.COSINE,
    licence="InsightFace: non-commercial research only",
    commercial_use=False,
    points=(),
    file_name="w600k_r50.onnx",
    file_sha256="4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
    preparation=Preparation(blue_first=False, channels_first=True, mean=127.5, scale=1 / 127.5),
)

CONTRACTS: Final = {one.model_id: one for one in (DLIB, SFACE, ARCFACE, GHOSTFACENET, BUFFALO_L)}
