"""The embedder: `python -m svc_vision.embedder`."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import Final, Self

from pydantic import DirectoryPath, Field, FilePath, model_validator

from chassis import logs, settings
from chassis.rpc import life
from chassis.settings import ServerSettings
from daogou.vision.v1.embedder_pb2_grpc import add_EmbedderServiceServicer_to_server as add_embedder
from svc_vision.embedder.execution import EngineChoice, Execution
from svc_vision.embedder.servicer_embedder import EmbedderServicer
from svc_vision.embedder.supervision import Load, supervised
from svc_vision.recognition import model_files
from svc_vision.recognition.model_contract import CONTRACTS, DLIB
from svc_vision.rules.batch_costs import BATCH_MAX
from svc_vision.rules.batcher import Bounds

_SWITCH_S: Final = 0.0005


class EmbedderSettings(ServerSettings):
    """Settings of the embedder alone."""

    # 128 crops of 150 × 150 are 8.64 MB.
    message_bytes_max: int = Field(default=16 << 20, ge=1 << 16, le=64 << 20)
    model_id: str = Field(default=DLIB.model_id, min_length=1, max_length=64)
    """Which model to serve, of those of recognition/model_contract.py."""
    models: DirectoryPath | None = None
    """Folder of models that an operator has put there. dlib's needs none."""
    model_cache: Path = Path("/var/cache/daogou")
    """Folder for graphs that are made of models on first use."""
    model_file: FilePath | None = None
    """Serve this ONNX graph under the id instead: uint8 (n, side, side, 3) in, float32 (n, dimension) out."""
    aligner_id: str = Field(default="", max_length=64)
    """The aligner whose crops the graph of `model_file` is made for."""
    execution: Execution = Execution.AUTO
    """What runs the model on a processor: auto, onnxruntime, openvino or openvino-bf16."""
    engine_threads: int = Field(default=0, ge=0, le=256)
    """Threads within one run, on a processor. 0: as many as what runs the model finds right."""
    engine_stall_s: float = Field(default=10.0, ge=0.1, le=600)
    """A run that takes longer is taken to hang, and the engine is started again."""
    batch_max: int = Field(default=BATCH_MAX, ge=1, le=BATCH_MAX)
    """Larger batches are never run, nor warmed up at the start."""
    queue_items_max: int = Field(default=1024, ge=2 * BATCH_MAX, le=65_536)
    """Crops that may wait. A call of 128 always fits into the half that re-embedding may fill."""
    queue_bytes_max: int = Field(default=128 << 20, ge=64 << 20, le=8 << 30)
    """Bytes of crops that may wait."""

    @model_validator(mode="after")
    def _known_or_given(self) -> Self:
        if self.model_file is None and self.model_id not in CONTRACTS:
            raise ValueError(f"DAOGOU_MODEL_ID must be one of {', '.join(CONTRACTS)}")
        if (self.model_file is None) == bool(self.aligner_id):
            raise ValueError("DAOGOU_ALIGNER_ID belongs to DAOGOU_MODEL_FILE, and that to it")
        return self


def _engines(config: EmbedderSettings) -> EngineChoice:
    file, aligner_id = config.model_file, config.aligner_id
    if file is None:
        contract = CONTRACTS[config.model_id]
        file = model_files.graph_of(contract, config.models, config.model_cache)
        aligner_id = contract.aligner.aligner_id
    return EngineChoice(config.execution, file, config.model_id, aligner_id, config.engine_threads)


def _own(config: EmbedderSettings) -> Load:
    """Makes the engines of these settings. The model's file is looked for when the first is made."""
    choice = cache(partial(_engines, config))
    return lambda: choice().made()


async def _serve(config: EmbedderSettings, load: Load) -> None:
    bounds = Bounds(config.queue_items_max, config.queue_bytes_max)
    async with (
        life.begun(config) as begun,
        supervised(
            load, begun.ready, bounds, batch_max=config.batch_max, stall_s=config.engine_stall_s
        ) as running,
    ):
        await begun.serve([(add_embedder, EmbedderServicer(running, config.unary_timeout_s))])
    logs.logger("life").info("stopped")


def main(load: Load | None = None) -> None:
    """Runs the embedder, on another engine than its own where one is given."""
    if sys.argv[1:]:
        sys.exit("usage: python -m svc_vision.embedder")
    config = settings.load(EmbedderSettings)
    logs.configure("embedder", config.log_format, config.log_level)
    # Else the engine's thread, back from a run, waits up to 5 ms for the event loop to let it go on.
    sys.setswitchinterval(_SWITCH_S)
    life.run(_serve(config, load or _own(config)))


if __name__ == "__main__":
    main()
