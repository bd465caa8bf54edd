"""The embedder with an engine that can be lost: `python -m tests.rpc.faulty_embedder`.

By a byte of a crop, as in tests/triggers.py, its thread falls, or is stuck and deaf to being interrupted.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from svc_vision.embedder import __main__ as embedder
from svc_vision.embedder.engine import Chips, Embeddings, EngineLost, OnnxEngine

FALLS: Final = 3
STICKS: Final = 4


class FaultyEngine(OnnxEngine):
    """ONNX Runtime, on a device that is sometimes unplugged."""

    def run(self, chips: Chips) -> Embeddings:
        bytes_of = chips.reshape(len(chips), -1)
        if (bytes_of[:, FALLS] == 255).any():
            raise EngineLost("the device has fallen off the bus")
        if (bytes_of[:, STICKS] == 255).any():
            time.sleep(1000)
        return super().run(chips)


if __name__ == "__main__":
    embedder.main(lambda: FaultyEngine(Path(os.environ["DAOGOU_MODEL_FILE"]), "triggers", "none", threads=1))
