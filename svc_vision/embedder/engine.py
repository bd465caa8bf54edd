"""What computes embeddings: the engine's shape, and ONNX Runtime in it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Chips = NDArray[np.uint8]
"""Aligned faces: (n, side, side, 3), RGB."""
Embeddings = NDArray[np.float32]
"""(n, dimension)."""

_MEASURED_FOR_S: Final = 0.3
_MEASURED_TIMES_MIN: Final = 2
_MEASURED_TIMES_MAX: Final = 7
_SAYS_NOTHING: Final = 4  # what fails is raised, and logged where it is caught
_PREFERRED: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")


class EngineLost(Exception):
    """The engine will compute nothing any more and must be started again. No crop is to blame."""


class ModelUnusable(Exception):
    """The file is no model that takes chips and gives embeddings; the message says why."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is served."""

    model_id: str
    aligner_id: str
    side_px: int
    dimension: int
    execution: str
    """What runs it, and on what, for a person."""
    batch_max: int | None = None
    """The most chips of one run. None: any number."""

    @property
    def crop_bytes(self) -> int:
        """Bytes of one crop."""
        return 3 * self.side_px * self.side_px


class Engine(Protocol):
    """Computes embeddings on one device. One thread at a time calls `run`."""

    model: Model

    def run(self, chips: Chips) -> Embeddings:
        """The embeddings of these chips.

        Raises: EngineLost; anything else is the fault of the chips, or of their number.
        """

    def interrupt(self) -> None:
        """Has a run in progress end with an error, if that is possible. Called from another thread."""


class OnnxEngine:
    """A model that ONNX Runtime runs: uint8 (n, side, side, 3) in, float32 (n, dimension) out."""

    def __init__(self, file: Path, model_id: str, aligner_id: str, *, threads: int = 0) -> None:
        """`threads`: within one run; 0 leaves it to ONNX Runtime.

        Raises: ModelUnusable.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _SAYS_NOTHING
        available = onnxruntime.get_available_providers()
        providers = [name for name in _PREFERRED if name in available]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:
            raise ModelUnusable(f"{file.name}: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        match [(one.type, one.shape) for one in (*inputs, *outputs)]:
            case [("tensor(uint8)", [batch, int(side), int(across), 3]), ("tensor(float)", [_, _])] if (
                side == across
            ):
                pass
            case found:
                raise ModelUnusable(f"{file.name}: takes and gives {found}")
        self._input, self._output = inputs[0].name, outputs[0].name
        self._running = onnxruntime.RunOptions()
        self.model = Model(
            model_id,
            aligner_id,
            side,
            dimension=self.run(np.zeros((1, side, side, 3), np.uint8)).shape[1],
            execution=f"onnxruntime {self._session.get_providers()[0].removesuffix('ExecutionProvider')}",
            batch_max=batch if isinstance(batch, int) else None,
        )

    def run(self, chips: Chips) -> Embeddings:
        """As Engine says."""
        self._running = running = onnxruntime.RunOptions()
        running.log_severity_level = _SAYS_NOTHING
        [found] = self._session.run([self._output], {self._input: chips}, running)
        embeddings: Embeddings = np.asarray(found, np.float32)
        return embeddings

    def interrupt(self) -> None:
        """As Engine says: it looks between two operators."""
        self._running.terminate = True


def measured(engine: Engine, sizes: Iterable[int]) -> dict[int, float]:
    """Warms up every batch size and says how long a run of it takes, in seconds: the shortest of a few.

    The machine may be busy with something else for a while, and never makes a run shorter than it is.
    """
    side_px = engine.model.side_px
    found = {}
    for size in sizes:
        chips: Chips = np.full((size, side_px, side_px, 3), 127, np.uint8)
        engine.run(chips)
        took_s: list[float] = []
        while len(took_s) < _MEASURED_TIMES_MIN or (
            len(took_s) < _MEASURED_TIMES_MAX and sum(took_s) < _MEASURED_FOR_S
        ):
            begun = time.perf_counter()
            engine.run(chips)
            took_s.append(time.perf_counter() - begun)
        found[size] = min(took_s)
    return found
