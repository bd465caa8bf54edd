"""Models are found by what their files hold, and take chips as they are, whatever their network takes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from chassis.errors import Refused
from svc_vision.recognition import model_files
from svc_vision.recognition.model_contract import (
    ARCFACE,
    BUFFALO_L,
    CONTRACTS,
    DLIB,
    GHOSTFACENET,
    SFACE,
    ModelContract,
)

FROM_FILES = [SFACE, ARCFACE, GHOSTFACENET, BUFFALO_L]


def network(
    contract: ModelContract, batch: int | str, *, side: int = 112, dimension: int | None = None
) -> bytes:
    """One that takes and gives what the contract's does, and of which one can tell what reached it.

    The first three numbers it gives are the means of the three colours, the fourth is the value at the top in
    the second column.
    """
    assert contract.preparation is not None
    first = contract.preparation.channels_first
    shape = [batch, 3, side, side] if first else [batch, side, side, 3]
    corner = ([0, 0, 0, 1], [2**31, 1, 1, 2]) if first else ([0, 0, 1, 0], [2**31, 1, 2, 1])
    count = contract.dimension if dimension is None else dimension
    constants = [
        helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3] if first else [1, 2]),
        helper.make_tensor("begin", TensorProto.INT64, [4], corner[0]),
        helper.make_tensor("end", TensorProto.INT64, [4], corner[1]),
        helper.make_tensor("flat", TensorProto.INT64, [2], [0, -1]),
        helper.make_tensor("more", TensorProto.INT64, [4], [0, 0, 0, count - 4]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image", "sides"], ["means"], keepdims=0),
        helper.make_node("Slice", ["image", "begin", "end"], ["part"]),
        helper.make_node("Reshape", ["part", "flat"], ["corner"]),
        helper.make_node("Concat", ["means", "corner"], ["known"], axis=1),
        helper.make_node("Pad", ["known", "more"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, shape),
            # As older files have it: constants are inputs too.
            *(helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in constants),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, count])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString()
    return content


def placed(folder: Path, contract: ModelContract, content: bytes, name: str | None = None) -> ModelContract:
    """The file in the folder, and the contract with its checksum, or the operator's word for it."""
    (folder / (name or contract.file_name)).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    if contract.file_sha256 is not None:
        return replace(contract, file_sha256=digest)
    (folder / model_files.SUMS_FILE).write_text(f"{digest}  {contract.file_name}\n", encoding="utf-8")
    return contract


def run(graph: Path, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"chips": chips})[0], np.float32)


def reason_of(contract: ModelContract, folder: Path | None, cache: Path) -> str:
    with pytest.raises(Refused) as refused:
        model_files.graph_of(contract, folder, cache)
    return refused.value.reason


@pytest.mark.parametrize("contract", FROM_FILES, ids=lambda contract: contract.model_id)
def test_a_network_gets_what_its_contract_says(contract: ModelContract, tmp_path: Path) -> None:
    """Colours in its order, axes in its order, each value less the mean and scaled."""
    known = placed(tmp_path, contract, network(contract, 1 if contract.fixed_batch else "n"))
    graph = model_files.graph_of(known, tmp_path, tmp_path / "cache")
    chips = np.zeros((3, 112, 112, 3), np.uint8)
    chips[:] = np.array([(200, 100, 50), (0, 255, 3), (7, 8, 9)])[:, None, None]
    chips[:, 0, 1] = (10, 20, 30)
    means = chips.astype(np.float64).mean(axis=(1, 2))
    corner = chips[:, 0, 1].astype(np.float64)
    how = contract.preparation
    assert how is not None
    if how.blue_first:
        means, corner = means[:, ::-1], corner[:, ::-1]
    expected = (np.concatenate([means, corner[:, :1]], axis=1) - how.mean) * how.scale
    found = run(graph, chips)
    assert found.shape == (len(chips), contract.dimension)
    assert found[:, :4] == pytest.approx(expected, rel=1e-4)


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """Under any name; and a wrong one of the right name is not taken."""
    right = placed(tmp_path, BUFFALO_L, network(BUFFALO_L, "n"), "renamed.onnx")
    (tmp_path / BUFFALO_L.file_name).write_bytes(b"something else")
    assert run(
        model_files.graph_of(right, tmp_path, tmp_path / "cache"), np.zeros((2, 112, 112, 3), np.uint8)
    ).any()
    (tmp_path / "renamed.onnx").unlink()
    assert reason_of(right, tmp_path, tmp_path / "other") == "MODEL_FILE_MISSING"


@pytest.mark.parametrize("contract", FROM_FILES, ids=lambda contract: contract.model_id)
def test_a_missing_file_is_told_by_name_and_never_fetched(contract: ModelContract, tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        with pytest.raises(Refused) as refused:
            model_files.graph_of(contract, folder, tmp_path / "cache")
        assert refused.value.reason == "MODEL_FILE_MISSING"
        assert contract.file_name in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unpublished_checksum_needs_the_operators_word(tmp_path: Path) -> None:
    placed(tmp_path, ARCFACE, network(ARCFACE, "n"))
    sums = tmp_path / model_files.SUMS_FILE
    said = sums.read_text(encoding="utf-8")
    for not_it in ("", said.replace(said[:4], "0000"), said.replace("arcface", "another")):
        sums.write_text(not_it, encoding="utf-8")
        assert reason_of(ARCFACE, tmp_path, tmp_path / "cache") == "MODEL_FILE_UNVERIFIED"
    sums.write_text(said.replace("  ", " *"), encoding="utf-8")
    assert model_files.graph_of(ARCFACE, tmp_path, tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "content",
    [
        network(BUFFALO_L, "n", side=96),
        network(BUFFALO_L, "n", dimension=128),
        network(BUFFALO_L, 1),
        network(ARCFACE, "n"),
        b"no network",
    ],
    ids=["another size", "another dimension", "one chip at a time", "another layout", "no network"],
)
def test_a_network_that_is_not_the_contracts_is_refused(content: bytes, tmp_path: Path) -> None:
    known = placed(tmp_path, BUFFALO_L, content)
    assert reason_of(known, tmp_path, tmp_path / "cache") == "MODEL_UNUSABLE"


def test_the_default_model_needs_no_folder(dlib_graph_file: Path) -> None:
    assert model_files.graph_of(DLIB, None, dlib_graph_file.parent) == dlib_graph_file


def test_contracts_tell_models_apart_and_who_may_use_them() -> None:
    """No two galleries are comparable by accident; whoever sells must see what he may not use."""
    assert set(CONTRACTS) == {one.model_id for one in CONTRACTS.values()}
    assert len({one.aligner.aligner_id for one in CONTRACTS.values()}) == 2
    assert {one.model_id for one in CONTRACTS.values() if one.commercial_use} == {
        DLIB.model_id,
        SFACE.model_id,
    }
    for contract in CONTRACTS.values():
        assert contract.licence
        assert max(max(point) for point in contract.aligner.points) < contract.aligner.side_px
