"""dlib's face recognition network as an ONNX graph: made once from its weights, kept in a cache folder.

In: `chips`, uint8 (n, 150, 150, 3), RGB. Out: `embeddings`, float32 (n, 128), not of unit length: their
metric is the Euclidean distance as they are. How chips are made ready is part of the graph, so that bytes
travel to the device and nobody can do it differently.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from svc_vision.recognition import dlib_weights
from svc_vision.recognition.dlib_weights import Convolution, Floats, Weights

SIDE_PX: Final = 150
DIMENSION: Final = 128
_MEAN_RGB: Final = (122.782, 117.001, 104.298)
_OPSET: Final = 17
_IR_VERSION: Final = 8
# Counts changes of the graph that this file makes: a cached one of another number is left alone.
_REVISION: Final = 1


def graph_file(cache: Path) -> Path:
    """The graph in the cache folder; written there first when it is not there yet.

    Raises: WeightsUnusable, OSError.
    """
    file = cache / f"dlib-resnet-{dlib_weights.FILE_SHA256[:16]}-{_REVISION}.onnx"
    if not file.exists():
        weights = dlib_weights.read(dlib_weights.data_file())
        cache.mkdir(parents=True, exist_ok=True)
        write_whole(file, graph(weights).SerializeToString())
    return file


def write_whole(file: Path, content: bytes) -> None:
    """Whole or not at all, also when another process does the same or this one dies."""
    descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def graph(weights: Weights) -> onnx.ModelProto:
    """The network with these weights."""
    made = _Network()
    made.prepare()
    first, *rest = weights.convolutions
    made.convolve(first)
    made.add("Relu")
    made.pool("MaxPool", 3)
    for into, out in zip(rest[::2], rest[1::2], strict=True):
        made.residual(into, out)
    made.add("GlobalAveragePool")
    made.add("Flatten")
    made.multiply(weights.matrix)
    return made.model()


class _Network:
    """The graph so far: `_last` names its newest value, of `_channels` channels, `_side` squared."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._last = "chips"
        self._channels, self._side = 3, SIDE_PX

    def add(self, operator: str, *more: str, of: str | None = None, **attributes: Any) -> str:
        output = f"{operator.lower()}_{len(self._nodes)}"
        inputs = [self._last if of is None else of, *more]
        self._nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        self._last = output
        return output

    def constant(self, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def prepare(self) -> None:
        """Bytes to floats, channels first, less the mean of each colour, over 256."""
        self.add("Cast", to=TensorProto.FLOAT)
        self.add("Transpose", perm=[0, 3, 1, 2])
        self.add("Sub", self.constant(np.array(_MEAN_RGB, np.float32).reshape(1, 3, 1, 1)))
        self.add("Mul", self.constant(np.array(1 / 256, np.float32)))

    def convolve(self, layer: Convolution) -> None:
        size = layer.filters.shape[2]
        self.add(
            "Conv",
            self.constant(layer.filters),
            self.constant(layer.biases),
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
        )
        self._channels = len(layer.biases)
        self._side = (self._side + 2 * layer.padding - size) // layer.stride + 1

    def pool(self, operator: str, size: int) -> None:
        self.add(operator, kernel_shape=[size] * 2, strides=[2, 2])
        self._side = (self._side - size) // 2 + 1

    def residual(self, into: Convolution, out: Convolution) -> None:
        """Two convolutions, and around them what came in: halved by averaging where they halve it."""
        before, channels, side = self._last, self._channels, self._side
        self.convolve(into)
        self.add("Relu")
        self.convolve(out)
        through = (self._last, self._channels, self._side)
        self._last, self._channels, self._side = before, channels, side
        if into.stride == 2:
            self.pool("AveragePool", 2)
        around = (self._last, self._channels, self._side)
        self._channels, self._side = max(through[1], around[1]), max(through[2], around[2])
        sides = [self._filled_up(*one) for one in (through, around)]
        self.add("Add", sides[1], of=sides[0])
        self.add("Relu")

    def _filled_up(self, value: str, channels: int, side: int) -> str:
        """With zeros, behind the last channel, row and column, up to the common shape."""
        missing = self._side - side
        pads = [0, 0, 0, 0, 0, self._channels - channels, missing, missing]
        return self.add("Pad", self.constant(np.array(pads, np.int64)), of=value) if any(pads) else value

    def multiply(self, matrix: Floats) -> None:
        self.add("MatMul", self.constant(matrix))

    def model(self) -> onnx.ModelProto:
        self._nodes[-1].output[0] = "embeddings"
        chips = helper.make_tensor_value_info("chips", TensorProto.UINT8, ["n", SIDE_PX, SIDE_PX, 3])
        embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", DIMENSION])
        made = helper.make_model(
            helper.make_graph(self._nodes, "dlib_resnet", [chips], [embeddings], self._constants),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="daogou",
        )
        onnx.checker.check_model(made, full_check=True)
        return made
