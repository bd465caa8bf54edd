"""A model that OpenVINO runs on a processor: several times as fast as ONNX Runtime where that has AMX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino

from svc_vision.embedder.engine import Chips, Embeddings, Model, ModelUnusable


class OpenVinoEngine:
    """An Engine: uint8 (n, side, side, 3) in, float32 (n, dimension) out, for any n."""

    def __init__(
        self, file: Path, model_id: str, aligner_id: str, precision: str, *, threads: int = 0
    ) -> None:
        """`precision`: f32 or bf16, within the network. `threads`: 0 leaves it to OpenVINO.

        Raises: ModelUnusable.
        """
        how = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            how["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            compiled = openvino.Core().compile_model(file, "CPU", how)
        except RuntimeError as error:
            raise ModelUnusable(f"{file.name}: {error}") from error
        sizes = compiled.input(0).get_partial_shape()
        if len(sizes) != 4 or sizes[0].is_static or sizes[1].is_dynamic or sizes[1] != sizes[2]:
            raise ModelUnusable(f"{file.name}: takes {sizes}")
        side_px = sizes[1].get_length()
        self._running = compiled.create_infer_request()
        dimension = self.run(np.zeros((1, side_px, side_px, 3), np.uint8)).shape[1]
        self.model = Model(model_id, aligner_id, side_px, dimension, f"openvino CPU {precision}")

    def run(self, chips: Chips) -> Embeddings:
        """As Engine says."""
        self._running.start_async({0: chips}, share_inputs=True)
        self._running.wait()
        # A copy: the next run writes into the same memory.
        return np.array(self._running.get_output_tensor(0).data, np.float32)

    def interrupt(self) -> None:
        """As Engine says."""
        self._running.cancel()
