"""What several unit tests of recognition share: the default model, made once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from svc_vision.recognition import dlib_graph

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="session")
def dlib_graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model's graph."""
    return dlib_graph.graph_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def embed(dlib_graph_file: Path) -> Embed:
    """Chips in, embeddings out, by the default model."""
    session = onnxruntime.InferenceSession(dlib_graph_file, providers=["CPUExecutionProvider"])
    return lambda chips: np.asarray(session.run(None, {"chips": chips})[0], np.float32)
