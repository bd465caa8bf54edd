"""Finds a model's file, by its checksum, and makes of it a graph that takes chips as they are.

Files lie in one folder, DAOGOU_MODELS, where an operator puts them; nothing is downloaded here. A file is
known by what it holds, not by its name. Where nobody has published a checksum, the operator vouches for the
file in SHA256SUMS beside it, as sha256sum writes it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from chassis.errors import Refused
from svc_vision.recognition import dlib_graph
from svc_vision.recognition.model_contract import ModelContract, Preparation

SUMS_FILE: Final = "SHA256SUMS"
YUNET_SHA256: Final = "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12"
"""YuNet of March 2023 for frames of any size. OpenCV Zoo's file of the same name takes 640 x 640 alone."""
YUNET_FILE: Final = "face_detection_yunet_2023mar.onnx"
_REVISION: Final = 1
_PIECE_BYTES: Final = 1 << 20


def graph_of(contract: ModelContract, models: Path | None, cache: Path) -> Path:
    """A graph of the model: uint8 (n, side, side, 3), RGB, in; float32 (n, dimension) out.

    `models`: the folder of files; None: there is none. `cache`: where graphs made here are kept.

    Raises: Refused MODEL_FILE_MISSING, MODEL_FILE_UNVERIFIED, MODEL_UNUSABLE; WeightsUnusable.
    """
    if contract.preparation is None:
        return dlib_graph.graph_file(cache)
    file, digest = _found(contract, models)
    made = cache / f"{contract.model_id}-{digest[:16]}-{_REVISION}.onnx"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        dlib_graph.write_whole(made, prepared(contract, contract.preparation, file).SerializeToString())
    return made


def yunet_file(models: Path | None) -> Path:
    """The face detector's file.

    Raises: Refused MODEL_FILE_MISSING.
    """
    return _with_checksum("the face detector", YUNET_FILE, YUNET_SHA256, models)


def _found(contract: ModelContract, models: Path | None) -> tuple[Path, str]:
    if contract.file_sha256 is not None:
        file = _with_checksum(contract.model_id, contract.file_name, contract.file_sha256, models)
        return file, contract.file_sha256
    file = (models or Path()) / contract.file_name
    if models is None or not file.is_file():
        raise _missing(contract.model_id, contract.file_name, models)
    digest = sha256_of(file)
    if _vouched(models).get(contract.file_name) != digest:
        raise Refused(
            "MODEL_FILE_UNVERIFIED",
            f"nobody has published a checksum of {file.name}: vouch for it in {SUMS_FILE} beside it",
        )
    return file, digest


def _with_checksum(what: str, name: str, wanted: str, models: Path | None) -> Path:
    files = sorted(models.glob("*.onnx")) if models is not None else []
    # The one of the right name first: the others are large, and seldom it.
    for file in sorted(files, key=lambda one: one.name != name):
        if sha256_of(file) == wanted:
            return file
    raise _missing(what, f"{name} (sha256 {wanted})", models)


def _missing(what: str, wanted: str, models: Path | None) -> Refused:
    where = f"{models} does not hold it" if models is not None else "DAOGOU_MODELS names no folder"
    return Refused("MODEL_FILE_MISSING", f"{what} needs the file {wanted}: {where}")


def _vouched(models: Path) -> dict[str, str]:
    """File name to checksum, from lines such as `4c06...  name.onnx`."""
    sums = models / SUMS_FILE
    if not sums.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines())
    return {
        name.strip().removeprefix("*"): digest for digest, name in (line for line in lines if len(line) == 2)
    }


def sha256_of(file: Path) -> str:
    """The checksum of a file, however large."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def prepared(contract: ModelContract, preparation: Preparation, file: Path) -> onnx.ModelProto:
    """The network in a file, with what its chips need put before it.

    Raises: Refused MODEL_UNUSABLE when it does not take and give what the contract says.
    """
    network = _loaded(file)
    side = contract.aligner.side_px
    wanted = [3, side, side] if preparation.channels_first else [side, side, 3]
    given = network.graph.input
    if len(given) != 1 or len(network.graph.output) != 1 or _sizes(given[0])[1:] != wanted:
        raise Refused("MODEL_UNUSABLE", f"{file.name} does not take chips of {contract.model_id}: {wanted}")
    if _sizes(network.graph.output[0])[-1] not in {contract.dimension, None}:
        raise Refused("MODEL_UNUSABLE", f"{file.name} does not give {contract.dimension} numbers")
    if not contract.fixed_batch and isinstance(_sizes(given[0])[0], int):
        raise Refused("MODEL_UNUSABLE", f"{file.name} takes a fixed number of chips at a time")
    before = _before(preparation, side, 1 if contract.fixed_batch else "n", network)
    whole = compose.merge_models(before, network, io_map=[("prepared", given[0].name)])
    if contract.fixed_batch:
        whole = _one_after_another(whole, side, contract.dimension)
    # Files that leave the number open are held to it.
    shape: list[str | int | None] = ["n", contract.dimension]
    output = helper.make_tensor_value_info(whole.graph.output[0].name, TensorProto.FLOAT, shape)
    whole.graph.output[0].CopyFrom(output)
    onnx.checker.check_model(whole)
    return whole


def _loaded(file: Path) -> onnx.ModelProto:
    """The network, with its weights as constants: older files name them as inputs too.

    Raises: Refused MODEL_UNUSABLE when the file is no network.
    """
    try:
        network = onnx.load(file)
    except Exception as error:
        raise Refused("MODEL_UNUSABLE", f"{file.name} is not a network that can be read") from error
    constants = {one.name for one in network.graph.initializer}
    inputs = [one for one in network.graph.input if one.name not in constants]
    del network.graph.input[:]
    network.graph.input.extend(inputs)
    network.ir_version = max(network.ir_version, 4)  # the first in which a constant need not be an input
    return network


def _before(
    preparation: Preparation, side: int, batch: int | str, network: onnx.ModelProto
) -> onnx.ModelProto:
    """Bytes to floats in the network's order of colours and axes."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    constants = {
        "mean": np.array(preparation.mean, np.float32),
        "scale": np.array(preparation.scale, np.float32),
    }
    if preparation.blue_first:
        constants["colours"] = np.array([2, 1, 0], np.int64)
        steps.append(("Gather", ["colours"], {"axis": 3}))
    if preparation.channels_first:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    steps += [("Sub", ["mean"], {}), ("Mul", ["scale"], {})]
    values = ["chips", *(f"step_{number}" for number in range(1, len(steps))), "prepared"]
    nodes = [
        helper.make_node(
            operator, [values[number], *(f"prepare_{name}" for name in more)], [values[number + 1]], **how
        )
        for number, (operator, more, how) in enumerate(steps)
    ]
    shape = [batch, 3, side, side] if preparation.channels_first else [batch, side, side, 3]
    graph = helper.make_graph(
        nodes,
        "prepare",
        [helper.make_tensor_value_info("chips", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, f"prepare_{name}") for name, values in constants.items()],
    )
    opsets = [one for one in network.opset_import if one.domain in {"", "ai.onnx"}]
    return helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)


def _one_after_another(whole: onnx.ModelProto, side: int, dimension: int) -> onnx.ModelProto:
    """The same for any number of chips: a network of one is run on each of them."""
    body = compose.add_prefix(whole, "each_").graph
    # Reshape, and no Unsqueeze: that took its axes in another way in older versions of ONNX.
    shapes = {"shape_of_chips": [1, side, side, 3], "shape_of_one": [dimension]}
    body.initializer.extend(
        numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()
    )
    body.node.insert(0, helper.make_node("Reshape", ["chip", "shape_of_chips"], [body.input[0].name]))
    body.node.append(helper.make_node("Reshape", [body.output[0].name, "shape_of_one"], ["embedding_of_one"]))
    del body.input[:], body.output[:]
    body.input.append(helper.make_tensor_value_info("chip", TensorProto.UINT8, [side, side, 3]))
    body.output.append(helper.make_tensor_value_info("embedding_of_one", TensorProto.FLOAT, [dimension]))
    graph = helper.make_graph(
        [helper.make_node("Scan", ["chips"], ["embeddings"], body=body, num_scan_inputs=1)],
        "one_after_another",
        [helper.make_tensor_value_info("chips", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dimension])],
    )
    return helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """The sizes of a value; None where any will do."""
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else None for size in sizes]
