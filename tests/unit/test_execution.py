"""The engine that runs a model is the fastest of those that compute the same."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from svc_vision.embedder.engine import Chips, Embeddings, Engine, Model, ModelUnusable, OnnxEngine
from svc_vision.embedder.execution import EngineChoice, Execution, drifted, fastest, has_amx, probes
from svc_vision.embedder.openvino_engine import OpenVinoEngine


class Slow:
    """An engine that takes its time over what another computes, and moves it by so much."""

    def __init__(self, of: Engine, wait_s: float, off: float = 0.0) -> None:
        self.model: Model = of.model
        self._of, self._wait_s, self._off = of, wait_s, off

    def run(self, chips: Chips) -> Embeddings:
        time.sleep(self._wait_s)
        found = self._of.run(chips)
        found[:, 0] += self._off * np.arange(len(found), dtype=np.float32)
        return found

    def interrupt(self) -> None:
        self._of.interrupt()


@pytest.fixture(scope="module")
def onnx_engine(dlib_graph_file: Path) -> OnnxEngine:
    return OnnxEngine(dlib_graph_file, "dlib-resnet-v1", "aligner", threads=1)


@pytest.fixture(scope="module")
def openvino_engine(dlib_graph_file: Path) -> OpenVinoEngine:
    return OpenVinoEngine(dlib_graph_file, "dlib-resnet-v1", "aligner", "f32", threads=1)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_openvino_computes_what_onnx_runtime_does(
    onnx_engine: OnnxEngine, openvino_engine: OpenVinoEngine, size: int
) -> None:
    chips = probes(150)[:size]
    assert np.abs(openvino_engine.run(chips) - onnx_engine.run(chips)).max() < 1e-4
    assert openvino_engine.model.dimension == onnx_engine.model.dimension == 128
    assert openvino_engine.model.side_px == 150


def test_an_engines_answer_stays_when_it_is_asked_again(openvino_engine: OpenVinoEngine) -> None:
    """The memory that it computes in is its own."""
    first = openvino_engine.run(probes(150)[:2])
    kept = first.copy()
    openvino_engine.run(probes(150)[2:4])
    assert (first == kept).all()


def test_the_fastest_is_taken(onnx_engine: OnnxEngine) -> None:
    best, trials = fastest({"slow": lambda: Slow(onnx_engine, 0.5), "quick": lambda: onnx_engine})
    assert best == "quick"
    assert [(one.name, one.why_not) for one in trials] == [("slow", ""), ("quick", "")]
    assert all(one.chip_s is not None for one in trials)


def test_the_first_stays_where_nothing_is_gained(onnx_engine: OnnxEngine) -> None:
    assert fastest({"first": lambda: onnx_engine, "other": lambda: Slow(onnx_engine, 0.3)})[0] == "first"


def test_one_that_computes_something_else_is_not_taken_however_fast(onnx_engine: OnnxEngine) -> None:
    best, trials = fastest(
        {"slow": lambda: Slow(onnx_engine, 0.5), "wrong": lambda: Slow(onnx_engine, 0, off=0.02)}
    )
    assert best == "slow"
    assert trials[1].drift > 0.01
    assert "distances move" in trials[1].why_not


def test_one_that_cannot_be_made_is_told_and_not_taken(onnx_engine: OnnxEngine) -> None:
    def unusable() -> Engine:
        raise ModelUnusable("not for this processor")

    best, trials = fastest({"first": lambda: onnx_engine, "other": unusable})
    assert (best, trials[1].why_not, trials[1].chip_s) == ("first", "not for this processor", None)


def test_a_file_that_openvino_cannot_read_is_refused(tmp_path: Path) -> None:
    rubbish = tmp_path / "model.onnx"
    rubbish.write_bytes(b"no network")
    with pytest.raises(ModelUnusable, match=r"model\.onnx"):
        OpenVinoEngine(rubbish, "model", "aligner", "f32")


def test_a_shift_of_all_embeddings_is_a_drift_too(onnx_engine: OnnxEngine) -> None:
    """Galleries were embedded before it: distances among the new ones alone would not show it."""
    found = onnx_engine.run(probes(150))
    moved = found + np.float32(0.01)
    assert drifted(found, found) == 0
    assert drifted(found, moved) > 0.1


@pytest.mark.parametrize(
    ("wanted", "execution"),
    [
        (Execution.ONNXRUNTIME, "onnxruntime CPU"),
        (Execution.OPENVINO, "openvino CPU f32"),
        (Execution.OPENVINO_BF16, "openvino CPU bf16"),
    ],
)
def test_the_execution_that_is_asked_for_is_taken(
    dlib_graph_file: Path, wanted: Execution, execution: str
) -> None:
    engine = EngineChoice(wanted, dlib_graph_file, "dlib-resnet-v1", "aligner", 1).made()
    assert engine.model.execution == execution


def test_one_is_chosen_when_none_is_asked_for(
    dlib_graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_engine: OnnxEngine
) -> None:
    """By measuring where the processor has AMX, and then it stays; else ONNX Runtime."""
    cpu_info = tmp_path / "cpuinfo"
    monkeypatch.setattr("svc_vision.embedder.execution._CPU_INFO", cpu_info)
    for flags in ("avx2", "avx2 amx_bf16"):
        cpu_info.write_text(f"model name : any\nflags : {flags}\n", encoding="utf-8")
        assert has_amx(cpu_info.read_text(encoding="utf-8")) is ("amx" in flags)
        choice = EngineChoice(Execution.AUTO, dlib_graph_file, "dlib-resnet-v1", "aligner", 1)
        first, second = choice.made(), choice.made()
        assert first.model == second.model
        assert drifted(onnx_engine.run(probes(150)), first.run(probes(150))) < 0.01
