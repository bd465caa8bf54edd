"""Which engine runs a model on this machine: the fastest that computes the same, found by measuring.

A faster engine may compute less exactly. It is taken only if the distances between embeddings stay where they
were, to 0.01; the threshold is tightened by as much (`tighten_by` of rules/threshold.py).

On a processor without AMX nothing is tried: OpenVINO was measured there as fast as ONNX Runtime, 5.9 against
6.1 ms of a core for a chip of dlib's network, and would add seconds to every start.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from chassis import logs
from svc_vision.embedder.engine import Chips, Embeddings, Engine, ModelUnusable, OnnxEngine

DRIFT_MAX: Final = 0.01
GAIN_MIN: Final = 0.1
"""By how much another engine must be faster than the first to be taken: less is within what is measured."""
_CPU_INFO: Final = Path("/proc/cpuinfo")
_BATCH: Final = 8
_ROUNDS: Final = 5


class Execution(StrEnum):
    """What may run a model. AUTO: the fastest of them on this machine."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino-bf16"


class EngineChoice:
    """Makes engines of one model by one execution, chosen when the first is made."""

    def __init__(self, wanted: Execution, file: Path, model_id: str, aligner_id: str, threads: int) -> None:
        self._wanted = wanted
        self._makers: dict[str, Callable[[], Engine]] = {
            Execution.ONNXRUNTIME: partial(OnnxEngine, file, model_id, aligner_id, threads=threads),
            Execution.OPENVINO: partial(_openvino, "f32", file, model_id, aligner_id, threads),
            Execution.OPENVINO_BF16: partial(_openvino, "bf16", file, model_id, aligner_id, threads),
        }

    def made(self) -> Engine:
        """An engine. Raises: ModelUnusable."""
        if self._wanted is Execution.AUTO:
            self._wanted = self._fastest()
        return self._makers[self._wanted]()

    def _fastest(self) -> Execution:
        if not has_amx(_CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.exists() else ""):
            return Execution.ONNXRUNTIME
        best, trials = fastest(self._makers)
        for trial in trials:
            logs.logger("engine").info(
                "execution_tried",
                execution=trial.name,
                chip_ms=None if trial.chip_s is None else round(trial.chip_s * 1000, 2),
                drift=round(trial.drift, 5),
                why_not=trial.why_not,
            )
        return Execution(best)


def has_amx(cpu_info: str) -> bool:
    """Whether a processor that Linux describes so multiplies matrices of bfloat16 by itself."""
    flags = (line.partition(":")[2].split() for line in cpu_info.splitlines() if line.startswith("flags"))
    return "amx_bf16" in next(flags, [])


def _openvino(precision: str, file: Path, model_id: str, aligner_id: str, threads: int) -> Engine:
    try:
        from svc_vision.embedder.openvino_engine import (  # noqa: PLC0415 - takes a second to import
            OpenVinoEngine,
        )
    except ImportError as error:
        raise ModelUnusable("OpenVINO is not installed") from error
    return OpenVinoEngine(file, model_id, aligner_id, precision, threads=threads)


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found of one engine. `chip_s`: seconds a chip, in batches of 8; None: it could not be tried.

    `drift`: the farthest by which a distance between two embeddings moved. `why_not`: empty where nothing
    speaks against it.
    """

    name: str
    chip_s: float | None
    drift: float
    why_not: str


def fastest(makers: Mapping[str, Callable[[], Engine]]) -> tuple[str, list[Trial]]:
    """The name of the engine to take, and what was found of each; others must equal the first.

    Raises: ModelUnusable when the first cannot be made.
    """
    (first, make_first), *others = makers.items()
    reference = make_first()
    chips = probes(reference.model.side_px)
    engines: dict[str, Engine] = {first: reference}
    found: dict[str, Trial] = {}
    for name, make in others:
        try:
            engine = make()
            drift = drifted(reference.run(chips), engine.run(chips))
        except ModelUnusable as error:
            found[name] = Trial(name, None, 0.0, str(error))
            continue
        engines[name] = engine
        found[name] = Trial(name, None, drift, "" if drift <= DRIFT_MAX else f"distances move by {drift:.3f}")
    took = _took_s(engines, chips)
    trials = [Trial(first, took[first], 0.0, "")]
    trials += [Trial(one.name, took.get(one.name), one.drift, one.why_not) for one in found.values()]
    best = first
    for trial in trials[1:]:
        bound = took[first] * (1 - GAIN_MIN)
        if not trial.why_not and took[trial.name] <= min(bound, took[best]):
            best = trial.name
    return best, trials


def probes(side_px: int) -> Chips:
    """Pictures of every kind, the same ones always: smooth, striped and rough, dark and bright."""
    down, right = np.mgrid[0:side_px, 0:side_px] / side_px
    made = []
    for number in range(_BATCH):
        waves = [np.sin((number + 1) * (right * (colour + 1) + down * 2 + number)) for colour in range(3)]
        rough = np.sin(12.9898 * np.arange(side_px * side_px * 3).reshape(side_px, side_px, 3) * (number + 1))
        made.append(128 + (100 - 8 * number) * np.stack(waves, axis=-1) + 4 * number * rough)
    chips: Chips = np.clip(np.stack(made), 0, 255).astype(np.uint8)
    return chips


def drifted(one: Embeddings, other: Embeddings) -> float:
    """The farthest by which a distance between two embeddings differs, also from one's to the other's."""

    def apart(left: Embeddings, right: Embeddings) -> Embeddings:
        return np.asarray(np.linalg.norm(left[:, None] - right[None], axis=2), np.float32)

    known = apart(one, one)
    return float(max(np.abs(apart(other, other) - known).max(), np.abs(apart(one, other) - known).max()))


def _took_s(engines: Mapping[str, Engine], chips: Chips) -> dict[str, float]:
    """Seconds a chip: medians of rounds in which every engine has its turn, so that noise falls on all."""
    took: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(_ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.run(chips)
            took[name].append((time.perf_counter() - begun) / len(chips))
    return {name: statistics.median(times) for name, times in took.items()}
