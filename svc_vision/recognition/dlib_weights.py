"""Reads the weights of dlib's face recognition network from the file that dlib wrote. Next: dlib_graph.py.

The file (public domain, by Davis King) comes with the package `face_recognition_models`. It is found without
importing the package, whose own code asks for what newer Pythons no longer have.

In the file an integer is one byte, whose low 4 bits count the bytes that follow and whose 0x80 is the sign,
and these bytes, little-endian. A string is its length and its bytes. A tensor is the integer 2, four integers
(samples, channels, rows, columns) and float32 values. Layers stand in order from input to output, each after
its name: `con_4` has a tensor (filters, then a bias for each) and seven integers (filters, rows, columns,
stride down and right, padding down and right); `affine_` a tensor of a factor for each channel, then an
offset for each; `fc_2` two integers and the matrix.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

FILE_SHA256: Final = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
_PACKAGE: Final = "face_recognition_models"
_FILE: Final = "models/dlib_face_recognition_resnet_model_v1.dat"
_CONVOLUTION, _AFFINE, _MATRIX = b"con_4", b"affine_", b"fc_2"
_TENSOR_VERSION: Final = 2

Floats = NDArray[np.float32]


class WeightsUnusable(Exception):
    """The file is missing, or is not the one that this reads; the message says which and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution with the affine layer after it folded in: the same result with one layer less.

    `filters`: (filters, channels, rows, columns). `stride` and `padding` are the same down and right.
    """

    filters: Floats
    biases: Floats
    stride: int
    padding: int


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """All that the network has learnt, from input to output. `matrix`: (inputs, outputs), without biases."""

    convolutions: tuple[Convolution, ...]
    matrix: Floats


def data_file() -> Path:
    """Where the package has put the file.

    Raises: WeightsUnusable when the package is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        file = Path(folder) / _FILE
        if file.is_file():
            return file
    raise WeightsUnusable(f"the package {_PACKAGE}, which brings dlib's weights, is not installed")


def read(file: Path) -> Weights:
    """The weights in a file, which must be the very one that is known.

    Raises: WeightsUnusable.
    """
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != FILE_SHA256:
        raise WeightsUnusable(f"{file.name} has the checksum {digest}, not {FILE_SHA256}")
    reader = _Reader(content)
    convolutions = []
    channels = 3
    while reader.next_layer(_CONVOLUTION, _MATRIX) == _CONVOLUTION:
        convolutions.append(_folded(reader, channels))
        channels = len(convolutions[-1].biases)
    outputs, inputs = reader.integer(), reader.integer()
    assert inputs == channels
    return Weights(tuple(convolutions), reader.tensor().reshape(channels, outputs))


def _folded(reader: _Reader, channels: int) -> Convolution:
    parameters = reader.tensor()
    count, rows, columns, stride, stride_right, padding, padding_right = (reader.integer() for _ in range(7))
    assert (stride, padding) == (stride_right, padding_right)
    filters, biases = np.split(parameters, [count * channels * rows * columns])
    reader.next_layer(_AFFINE)
    factors, offsets = np.split(reader.tensor(), 2)
    return Convolution(
        filters.reshape(count, channels, rows, columns) * factors[:, None, None, None],
        biases * factors + offsets,
        stride,
        padding,
    )


class _Reader:
    """A place in the file, and what can be read from there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def next_layer(self, *names: bytes) -> bytes:
        """Go to behind the first of these names that comes; what lies between has no weights."""
        found = [
            (at, name)
            for name in names
            # Its length stands before a string: an integer of one byte.
            if (at := self._content.find(bytes((1, len(name))) + name, self._at)) >= 0
        ]
        at, name = min(found)
        self._at = at + 2 + len(name)
        return name

    def integer(self) -> int:
        head = self._content[self._at]
        end = self._at + 1 + (head & 0x0F)
        value = int.from_bytes(self._content[self._at + 1 : end], "little")
        self._at = end
        return -value if head & 0x80 else value

    def tensor(self) -> Floats:
        """The values, flat: the layers use the four dimensions in ways of their own."""
        version, *shape = (self.integer() for _ in range(5))
        assert version == _TENSOR_VERSION
        count = int(np.prod(shape))
        values = np.frombuffer(self._content, "<f4", count, self._at)
        self._at += 4 * count
        return values.astype(np.float32)
