"""Embeddings over gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from chassis.errors import DaogouError, Invalid, Refused, invalid_fields
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from daogou.vision.v1 import embedder_pb2 as pb
from svc_vision.embedder.batching import Outcome
from svc_vision.embedder.supervision import Supervised
from svc_vision.rules.batcher import Priority

_PRIORITIES = {
    pb.EMBED_PRIORITY_DOOR: Priority.DOOR,
    pb.EMBED_PRIORITY_ENROLMENT: Priority.ENROLMENT,
    pb.EMBED_PRIORITY_REEMBEDDING: Priority.REEMBEDDING,
}


class EmbedderServicer:
    """Implements daogou.vision.v1.EmbedderService."""

    def __init__(self, supervised: Supervised, timeout_s: float) -> None:
        """`timeout_s`: the deadline of calls that bring none."""
        self._supervised = supervised
        self._timeout_s = timeout_s

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        self._check_served(request)
        [outcome] = await self._embedded([request.crop], request.priority, context)
        if isinstance(outcome, DaogouError):
            raise outcome
        model = self._supervised.model
        return pb.EmbedResponse(embedding=outcome, model_id=model.model_id, aligner_id=model.aligner_id)

    async def BatchEmbed(self, request: pb.BatchEmbedRequest, context: Any) -> pb.BatchEmbedResponse:
        self._check_served(request)
        outcomes = await self._embedded(request.crops, request.priority, context)
        model = self._supervised.model
        return pb.BatchEmbedResponse(
            results=[_result(outcome) for outcome in outcomes],
            model_id=model.model_id,
            aligner_id=model.aligner_id,
        )

    async def DescribeModel(self, request: pb.DescribeModelRequest, context: Any) -> pb.DescribeModelResponse:
        model, costs = self._supervised.model, self._supervised.batching.costs
        return pb.DescribeModelResponse(
            model_id=model.model_id,
            aligner_id=model.aligner_id,
            side_px=model.side_px,
            dimension=model.dimension,
            execution=model.execution,
            run_costs=[
                pb.RunCost(size=size, run_micros=round(took_s * 1e6), in_use=size in costs.usable)
                for size, took_s in costs.seconds.items()
            ],
        )

    def _check_served(self, request: pb.EmbedRequest | pb.BatchEmbedRequest) -> None:
        """Raises: Refused MODEL_NOT_SERVED, ALIGNER_NOT_SERVED."""
        model = self._supervised.model
        if request.model_id not in ("", model.model_id):
            raise Refused("MODEL_NOT_SERVED", f"{model.model_id} is served here")
        if request.aligner_id not in ("", model.aligner_id):
            raise Refused("ALIGNER_NOT_SERVED", f"the model is served for crops of {model.aligner_id}")

    async def _embedded(
        self, crops: Sequence[pb.Crop], priority: pb.EmbedPriority.ValueType, context: Any
    ) -> list[Outcome]:
        """The outcome of each crop, in order; those that are none are not run."""
        remaining_s = context.time_remaining()
        deadline_s = time.monotonic() + min(self._timeout_s, remaining_s or self._timeout_s)
        wrong = [self._problem(crop) for crop in crops]
        good = [crop.pixels for crop, problem in zip(crops, wrong, strict=True) if problem is None]
        batching = self._supervised.batching
        done = iter(await batching.embed(good, _PRIORITIES[priority], deadline_s) if good else ())
        return [next(done) if problem is None else problem for problem in wrong]

    def _problem(self, crop: pb.Crop) -> Invalid | None:
        if found := limits.violations(crop):
            return invalid_fields(found)
        expected = self._supervised.model.crop_bytes
        if len(crop.pixels) != expected:
            return Invalid("CROP_WRONG_SIZE", f"a crop has {expected} bytes, not {len(crop.pixels)}")
        return None


def _result(outcome: Outcome) -> pb.EmbedResult:
    if isinstance(outcome, DaogouError):
        return pb.EmbedResult(error=to_item_error(outcome))
    return pb.EmbedResult(embedding=outcome)
