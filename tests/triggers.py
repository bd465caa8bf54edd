"""A small real model, as an ONNX graph, that goes wrong over crops that ask for it: by their first bytes.

It takes crops of 16 × 16. An embedding is a projection of all bytes onto 24 fixed directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE_PX: Final = 16
CROP_BYTES: Final = 3 * SIDE_PX * SIDE_PX
DIMENSION: Final = 24
FAILS, NOT_A_NUMBER, HANGS = range(3)
"""Which byte of a crop, where it is 255, makes the run fail, the embedding NaN, or the run never end."""

_DIRECTIONS: NDArray[np.float32] = (
    np.random.default_rng(7).normal(0, 0.001, (CROP_BYTES, DIMENSION)).astype(np.float32)
)


def crop(number: int, trigger: int | None = None) -> bytes:
    """Some crop, another for each number, that asks for what the trigger means, or for nothing."""
    pixels = bytearray(np.random.default_rng(number).integers(0, 200, CROP_BYTES, np.uint8).tobytes())
    if trigger is not None:
        pixels[trigger] = 255
    return bytes(pixels)


def embedding(pixels: bytes) -> NDArray[np.float32]:
    """What the model must make of a crop."""
    numbers = np.frombuffer(pixels, np.uint8).astype(np.float32)
    found: NDArray[np.float32] = numbers @ _DIRECTIONS
    return found


def _int64(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _counting() -> onnx.GraphProto:
    """One round of a loop, which adds 1 to a number."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["so_far", "one"], ["after"]),
        ],
        "counting",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("so_far", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )


def write_model(file: Path, *, rounds_per_crop: int = 1) -> Path:
    """Writes the model. Its runs take so many rounds of a loop for each crop, of about 1.5 µs."""
    node = helper.make_node
    nodes = [
        node("Cast", ["chips"], ["numbers"], to=TensorProto.FLOAT),
        node("Reshape", ["numbers", "flat"], ["rows"]),
        node("MatMul", ["rows", "directions"], ["projected"]),
        node("Gather", ["rows", "first_three"], ["triggers"], axis=1),
        node("Split", ["triggers"], ["fails", "nan", "hangs"], axis=1, num_outputs=3),
        # A table of 255 zeros has no place 255.
        node("Cast", ["fails"], ["place"], to=TensorProto.INT64),
        node("Gather", ["zeros", "place"], ["nothing"]),
        # The logarithm of less than nothing.
        node("Sub", ["below_255", "nan"], ["left"]),
        node("Log", ["left"], ["logarithm"]),
        node("Mul", ["logarithm", "zero"], ["nothing_or_nan"]),
        # For each crop some rounds; for one that hangs, more than anybody lives to see.
        node("Greater", ["hangs", "below_255"], ["is_hanging"]),
        node("Cast", ["is_hanging"], ["hanging"], to=TensorProto.INT64),
        node("Mul", ["hanging", "ages"], ["long"]),
        node("Add", ["long", "rounds_per_crop"], ["each"]),
        node("ReduceSum", ["each"], ["trips"], keepdims=0),
        node("Loop", ["trips", "", "zero"], ["counted"], body=_counting()),
        node("Mul", ["counted", "zero"], ["nothing_too"]),
        node("Sum", ["projected", "nothing", "nothing_or_nan", "nothing_too"], ["embeddings"]),
    ]
    constants = [
        _int64("flat", -1, CROP_BYTES),
        _int64("first_three", FAILS, NOT_A_NUMBER, HANGS),
        numpy_helper.from_array(_DIRECTIONS, "directions"),
        numpy_helper.from_array(np.zeros(255, np.float32), "zeros"),
        numpy_helper.from_array(np.array(254.5, np.float32), "below_255"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(10**12, np.int64), "ages"),
        numpy_helper.from_array(np.array(rounds_per_crop, np.int64), "rounds_per_crop"),
    ]
    chips = helper.make_tensor_value_info("chips", TensorProto.UINT8, ["n", SIDE_PX, SIDE_PX, 3])
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", DIMENSION])
    model = helper.make_model(
        helper.make_graph(nodes, "triggers", [chips], [embeddings], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))
    return file
