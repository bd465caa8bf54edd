"""The embedder as a process: many callers at once, bad crops, lost engines, overload, kills. No database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families

from chassis.rpc.status import from_rpc_error
from daogou.vision.v1 import embedder_pb2 as pb
from daogou.vision.v1.embedder_pb2_grpc import EmbedderServiceStub
from local import token
from local.children import start_child
from local.keys import LocalKeys
from local.ports import HOST, Ports
from local.stack import ROOT
from svc_vision.embedder.engine import OnnxEngine
from svc_vision.recognition import model_files
from svc_vision.recognition.model_contract import DLIB
from tests.rpc.faulty_embedder import FALLS, STICKS
from tests.rpc.replicas import NOT_SERVING, SERVING, Replica, health
from tests.rpc.running import CHANNEL_OPTIONS, Metadata, eventually, refusal
from tests.triggers import CROP_BYTES, DIMENSION, FAILS, HANGS, NOT_A_NUMBER, crop, embedding, write_model

DOOR: Final = pb.EMBED_PRIORITY_DOOR
REEMBEDDING: Final = pb.EMBED_PRIORITY_REEMBEDDING


class Embedder(Replica):
    """A process of the embedder, and a caller of it."""

    stub: Any
    metadata: Metadata

    async def embed(self, pixels: bytes, *, timeout_s: float = 20.0, **more: Any) -> bytes:
        """The embedding of a crop for a door."""
        request = pb.EmbedRequest(crop=pb.Crop(pixels=pixels), **{"priority": DOOR, **more})
        reply = await self.stub.Embed(request, metadata=self.metadata, timeout=timeout_s)
        return bytes(reply.embedding)

    async def batch(self, crops: Sequence[bytes], *, timeout_s: float = 20.0, **more: Any) -> list[Any]:
        """The results of crops."""
        request = pb.BatchEmbedRequest(
            crops=[pb.Crop(pixels=pixels) for pixels in crops], **{"priority": DOOR, **more}
        )
        reply = await self.stub.BatchEmbed(request, metadata=self.metadata, timeout=timeout_s)
        return list(reply.results)

    async def is_serving(self) -> bool:
        return await health(self.health_target) == SERVING

    @contextlib.asynccontextmanager
    async def told(self) -> AsyncIterator[list[int]]:
        """What its health says during the block, change by change, as clients are told."""
        said: list[int] = []
        async with grpc.aio.insecure_channel(self.health_target, options=CHANNEL_OPTIONS) as channel:
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            call = watch(health_pb2.HealthCheckRequest(service=""))

            first: Any = await call.read()
            said.append(first.status)

            async def listen() -> None:
                reply: Any
                while (reply := await call.read()) is not grpc.aio.EOF:
                    said.append(reply.status)

            listening = asyncio.create_task(listen())
            yield said
            call.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, as Prometheus would scrape it."""
        with urllib.request.urlopen(f"http://{HOST}:{self.ports.metrics}/metrics", timeout=5) as reply:
            text = reply.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextlib.asynccontextmanager
async def embedder(
    folder: Path, *, faulty: bool = False, rounds_per_crop: int = 1, **env: str
) -> AsyncIterator[Embedder]:
    """A process of the embedder with these settings, serving; killed at the end if it still runs."""
    keys = LocalKeys.made(folder / "keys")
    ports = Ports.free(["embedder"]).services["embedder"]
    file = write_model(folder / "model.onnx", rounds_per_crop=rounds_per_crop)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DAOGOU_", "MONGO"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]),
        "DAOGOU_LISTEN": f"{HOST}:{ports.grpc}",
        "DAOGOU_HEALTH_LISTEN": f"{HOST}:{ports.health}",
        "DAOGOU_METRICS_LISTEN": f"{HOST}:{ports.metrics}",
        "DAOGOU_JWKS_FILE": str(keys.jwks_file),
        "DAOGOU_DRAIN_S": "0.1",
        "DAOGOU_MODEL_FILE": str(file),
        "DAOGOU_MODEL_ID": "triggers",
        "DAOGOU_ALIGNER_ID": "none",
        "DAOGOU_ENGINE_THREADS": "1",
        "DAOGOU_EXECUTION": "onnxruntime",
        "DAOGOU_LOG_FORMAT": "json",
        **{f"DAOGOU_{name.upper()}": value for name, value in env.items()},
    }
    # What is set to nothing is not set.
    environment = {name: value for name, value in environment.items() if value}
    module = "tests.rpc.faulty_embedder" if faulty else "svc_vision.embedder"
    log = folder / "embedder.log"
    with log.open("ab") as output:
        process = start_child([sys.executable, "-m", module], output=output, env=environment, cwd=ROOT)
    one = Embedder("embedder", ports, environment, log, process)
    bearer = token.mint(keys, "SERVICE", brand="", region="", store="", guide="", subject="svc_vision")
    one.metadata = (("authorization", f"Bearer {bearer}"),)
    try:
        await one.serving()
        async with grpc.aio.insecure_channel(one.target, options=CHANNEL_OPTIONS) as channel:
            one.stub = EmbedderServiceStub(channel)
            yield one
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedder]:
    """One process for the tests that leave it as it is."""
    async with embedder(tmp_path_factory.mktemp("embedder")) as one:
        yield one


def assert_is_of(found: bytes, pixels: bytes) -> None:
    """It is the embedding of this crop and of no other."""
    values = np.frombuffer(found, "<f4")
    assert values.shape == (DIMENSION,)
    assert np.allclose(values, embedding(pixels), atol=1e-4)


# ---- what it serves ---------------------------------------------------------------------------------


async def test_it_says_what_it_serves(shared: Embedder) -> None:
    reply = await shared.stub.DescribeModel(pb.DescribeModelRequest(), metadata=shared.metadata, timeout=5)
    assert (reply.model_id, reply.aligner_id, reply.dimension) == ("triggers", "none", DIMENSION)
    assert 3 * reply.side_px**2 == CROP_BYTES
    assert reply.execution.startswith("onnxruntime")
    assert [cost.size for cost in reply.run_costs] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert all(cost.run_micros > 0 for cost in reply.run_costs)
    assert reply.run_costs[0].in_use


async def test_64_callers_at_once_get_each_his_own(shared: Embedder) -> None:
    """However their crops were put together; and fewer runs than crops were enough."""
    before = shared.metric("daogou_vision_embed_batch_items_count")

    async def caller(number: int) -> None:
        for turn in range(8):
            pixels = crop(1000 * number + turn)
            assert_is_of(await shared.embed(pixels), pixels)

    await asyncio.gather(*[caller(number) for number in range(64)])
    runs = shared.metric("daogou_vision_embed_batch_items_count") - before
    assert 1 <= runs < 64 * 8
    assert shared.metric("daogou_vision_embed_queue_items") == 0


async def test_an_operator_sees_where_time_and_crops_go(shared: Embedder) -> None:
    await shared.batch([crop(number) for number in range(16)], priority=REEMBEDDING)
    assert shared.metric("daogou_vision_embed_items_total", priority="REEMBEDDING") >= 16
    for stage in ("queue", "copy", "compute"):
        assert shared.metric("daogou_vision_embed_stage_seconds_count", stage=stage) > 0
        assert shared.metric("daogou_vision_embed_stage_seconds_sum", stage=stage) > 0
    assert shared.metric("daogou_vision_embed_queue_age_seconds") == 0
    assert shared.metric("daogou_vision_embed_batch_items_sum") >= 16


async def test_a_call_of_128_is_answered_crop_by_crop(shared: Embedder) -> None:
    crops = [crop(number) for number in range(128)]
    results = await shared.batch(crops, priority=REEMBEDDING)
    for pixels, result in zip(crops, results, strict=True):
        assert_is_of(result.embedding, pixels)
    found = await refusal(shared.batch([*crops, crop(129)]))
    assert (found.reason, found.fields) == ("INVALID_FIELDS", {"crops"})


async def test_it_imports_no_database(shared: Embedder) -> None:
    """A GPU node needs none, and its image shall hold none."""
    code = "import sys; import svc_vision.embedder.__main__; print(*sys.modules)"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=shared.env
    )
    output, _ = await child.communicate()
    loaded = {name.partition(".")[0] for name in output.decode().split()}
    assert "svc_vision" in loaded
    assert not loaded & {"motor", "pymongo", "bson"}


async def test_dlibs_network_is_served_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    """Made from its weights on the first start; through the batcher as by itself, of whatever batch."""
    async with embedder(
        tmp_path, model_file="", aligner_id="", model_id="", batch_max="4", model_cache=str(tmp_path)
    ) as one:
        draw = np.random.default_rng(1)
        crops = [draw.integers(0, 256, (150, 150, 3), np.uint8) for _ in range(5)]
        results = await one.batch([pixels.tobytes() for pixels in crops])
        engine = OnnxEngine(model_files.graph_of(DLIB, None, tmp_path), "dlib", "")
        for pixels, result in zip(crops, results, strict=True):
            [alone] = engine.run(pixels[None])
            assert np.allclose(np.frombuffer(result.embedding, "<f4"), alone, atol=1e-4)
        served = await one.stub.DescribeModel(pb.DescribeModelRequest(), metadata=one.metadata)
        assert (served.model_id, served.dimension) == (DLIB.model_id, DLIB.dimension)
        assert served.aligner_id == DLIB.aligner.aligner_id
        found = await refusal(one.embed(bytes(112 * 112 * 3)))
        assert found.reason == "CROP_WRONG_SIZE"


# ---- bad crops --------------------------------------------------------------------------------------


async def test_bad_crops_fail_alone_each_with_its_reason(shared: Embedder) -> None:
    """One breaks the run, one comes out NaN, one is too short, one empty: the neighbours are served."""
    bisected = shared.metric("daogou_vision_embed_bisected_batches_total")
    crops = [crop(number) for number in range(60)]
    crops[7], crops[8], crops[31] = crop(7, FAILS), crop(8, NOT_A_NUMBER), crop(31)[:-1]
    crops[32], crops[50] = b"", crop(50, FAILS)
    results = await shared.batch(crops)
    reasons = {place: result.error.reason for place, result in enumerate(results) if result.error.reason}
    assert reasons == {
        7: "CROP_NOT_EMBEDDABLE",
        8: "EMBEDDING_NOT_FINITE",
        31: "CROP_WRONG_SIZE",
        32: "INVALID_FIELDS",
        50: "CROP_NOT_EMBEDDABLE",
    }
    for place in set(range(60)) - reasons.keys():
        assert_is_of(results[place].embedding, crops[place])
    usable = (await shared.stub.DescribeModel(pb.DescribeModelRequest(), metadata=shared.metadata)).run_costs
    if sum(cost.in_use for cost in usable) > 1:
        assert shared.metric("daogou_vision_embed_bisected_batches_total") > bisected
    assert await shared.is_serving(), "the engine is not to blame"


async def test_a_bad_crop_spoils_nothing_for_other_callers(shared: Embedder) -> None:
    async def bad(number: int) -> str:
        return (await refusal(shared.embed(crop(number, FAILS)))).reason

    async def good(number: int) -> None:
        assert_is_of(await shared.embed(crop(number)), crop(number))

    reasons = await asyncio.gather(*[bad(n) for n in range(8)], *[good(n) for n in range(56)])
    assert Counter(reasons) == {"CROP_NOT_EMBEDDABLE": 8, None: 56}


@pytest.mark.parametrize(
    ("pixels", "more", "code", "reason"),
    [
        (crop(1)[:-3], {}, "INVALID_ARGUMENT", "CROP_WRONG_SIZE"),
        (crop(1) * 2, {}, "INVALID_ARGUMENT", "CROP_WRONG_SIZE"),
        (b"", {}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        (bytes(196_609), {}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        (crop(1), {"priority": 0}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        (crop(1, NOT_A_NUMBER), {}, "INVALID_ARGUMENT", "EMBEDDING_NOT_FINITE"),
        (crop(1), {"model_id": "another"}, "FAILED_PRECONDITION", "MODEL_NOT_SERVED"),
        (crop(1), {"aligner_id": "another"}, "FAILED_PRECONDITION", "ALIGNER_NOT_SERVED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_mistake_has_its_reason(
    pixels: bytes, more: dict[str, Any], code: str, reason: str, shared: Embedder
) -> None:
    found = await refusal(shared.embed(pixels, **more))
    assert (found.code.name, found.reason) == (code, reason)


# ---- lost engines -----------------------------------------------------------------------------------


async def test_when_the_engines_thread_falls_callers_are_told_and_it_serves_again(tmp_path: Path) -> None:
    """The caller gets UNAVAILABLE at once, with which he may ask another replica."""
    async with embedder(tmp_path, faulty=True) as one:
        assert_is_of(await one.embed(crop(1)), crop(1))
        begun = time.monotonic()
        async with one.told() as told:
            found = await refusal(one.embed(crop(1, FALLS)))

            async def is_over() -> bool:
                return told == [SERVING, NOT_SERVING, SERVING]

            await eventually(is_over, "clients are told that it does not serve, and then that it does")
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_DOWN")
        assert found.retry_after_s is not None
        assert time.monotonic() - begun < 5
        assert_is_of(await one.embed(crop(2)), crop(2))
        assert one.metric("daogou_vision_embed_engine_restarts_total") == 1
        assert one.process.poll() is None, "the process has stayed"


async def test_what_waits_when_the_engine_falls_is_answered(tmp_path: Path) -> None:
    """In hand or in the queue: each has one answer, an embedding or UNAVAILABLE."""
    async with embedder(tmp_path, faulty=True, rounds_per_crop=2000, batch_max="16") as one:
        calls = [one.embed(crop(n, FALLS if n == 20 else None), timeout_s=15) for n in range(40)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        codes = Counter(
            answer.code() if isinstance(answer, grpc.aio.AioRpcError) else "served" for answer in answers
        )
        assert set(codes) <= {"served", grpc.StatusCode.UNAVAILABLE}
        assert codes[grpc.StatusCode.UNAVAILABLE] >= 1
        await eventually(one.is_serving, "it serves again")
        assert_is_of(await one.embed(crop(2)), crop(2))


async def test_a_run_that_hangs_is_interrupted(tmp_path: Path) -> None:
    async with embedder(tmp_path, engine_stall_s="0.5") as one:
        async with one.told() as told:
            found = await refusal(one.embed(crop(1, HANGS)))
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_DOWN")

            async def is_over() -> bool:
                return told == [SERVING, NOT_SERVING, SERVING]

            await eventually(is_over, "clients are told that it does not serve, and then that it does")
        assert_is_of(await one.embed(crop(2)), crop(2))
        assert one.process.poll() is None


async def test_a_thread_that_is_stuck_for_good_takes_the_process_with_it(tmp_path: Path) -> None:
    """After its caller was told: somebody else starts the process again, and nothing less would help."""
    async with embedder(tmp_path, faulty=True, engine_stall_s="0.5") as one:
        found = await refusal(one.embed(crop(1, STICKS)))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_DOWN")
        found = await refusal(one.embed(crop(2)))
        assert found.reason == "ENGINE_DOWN", "nobody waits behind it"
        assert await one.ended() == 70


async def test_killed_and_started_again_it_serves(tmp_path: Path) -> None:
    """It keeps nothing, so nothing is lost but the calls in progress, which the caller makes again."""
    async with embedder(tmp_path, rounds_per_crop=6000, batch_max="16") as one:
        calls = [asyncio.ensure_future(one.embed(crop(n), timeout_s=10)) for n in range(32)]
        await asyncio.sleep(0.05)
        one.process.kill()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert any(
            isinstance(answer, grpc.aio.AioRpcError) and answer.code() is grpc.StatusCode.UNAVAILABLE
            for answer in answers
        )
    async with embedder(tmp_path) as again:
        assert_is_of(await again.embed(crop(1)), crop(1))


async def test_told_to_stop_it_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async with embedder(tmp_path, rounds_per_crop=3000, batch_max="16") as one:
        await one.embed(crop(1))
        calls = [asyncio.ensure_future(one.embed(crop(n), timeout_s=10)) for n in range(16)]
        await asyncio.sleep(0.05)
        one.process.terminate()
        for number, found in enumerate(await asyncio.gather(*calls)):
            assert_is_of(found, crop(number))
        assert await one.ended() == 0


# ---- overload ---------------------------------------------------------------------------------------


async def test_who_would_be_late_is_refused_early(tmp_path: Path) -> None:
    """Many more callers than can be in time: what is worked on is in time, the rest is told so at once."""
    allowed_s, for_s = 0.5, 3.0
    told: list[tuple[str, float]] = []
    again: list[float | None] = []

    async def caller(number: int, until_s: float) -> None:
        while (asked_s := time.monotonic()) < until_s:
            wait_s, reason = 0.0, "served"
            try:
                await one.embed(crop(number), timeout_s=allowed_s)
            except grpc.aio.AioRpcError as error:
                said = from_rpc_error(error)
                reason = said.reason if said else error.code().name
                if reason == "WOULD_BE_LATE" and said:
                    again.append(said.retry_after_s)
                    wait_s = max(0.05, said.retry_after_s or 0.0)
            told.append((reason, time.monotonic() - asked_s))
            await asyncio.sleep(wait_s)

    async with embedder(tmp_path, rounds_per_crop=4000, batch_max="16") as one:
        until_s = time.monotonic() + for_s
        await asyncio.gather(*[caller(number, until_s) for number in range(120)])
        # Those who came all at once in the beginning were let in by what runs took while nobody called.
        del told[: len(told) // 4]
        counts = Counter(reason for reason, _ in told)
        refused = sorted(took_s for reason, took_s in told if reason == "WOULD_BE_LATE")
        assert refused, counts
        assert all(again_s is not None and again_s >= 0.01 for again_s in again)
        assert refused[len(refused) // 2] < allowed_s / 2, "told at once"
        late = counts.total() - counts["served"] - len(refused)
        assert late < counts["served"] / 2, counts
        assert one.metric("daogou_vision_embed_refused_items_total", reason="WOULD_BE_LATE") == len(again)


async def test_a_backlog_of_reembedding_leaves_room_for_doors_and_goes_after_them(tmp_path: Path) -> None:
    async with embedder(tmp_path, rounds_per_crop=4000, queue_items_max="256", batch_max="8") as one:
        backlog = asyncio.create_task(one.batch([crop(n) for n in range(128)], priority=REEMBEDDING))
        await asyncio.sleep(0.1)
        found = await refusal(one.batch([crop(n) for n in range(128)], priority=REEMBEDDING))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert found.retry_after_s is not None
        assert_is_of(await one.embed(crop(500)), crop(500))
        assert not backlog.done(), "the door was not made to wait for it"
        assert len(await backlog) == 128


async def test_callers_that_left_are_not_worked_for(tmp_path: Path) -> None:
    async with embedder(tmp_path, rounds_per_crop=6000, batch_max="4") as one:
        calls = [asyncio.ensure_future(one.embed(crop(n), timeout_s=20)) for n in range(64)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

        async def dropped() -> bool:
            return one.metric("daogou_vision_embed_cancelled_items_total") > 8

        await eventually(dropped, "what nobody waits for is dropped")
        assert one.metric("daogou_vision_embed_items_total") < 56


# ---- bad settings -----------------------------------------------------------------------------------


async def test_a_file_that_is_no_model_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "picture.onnx").write_bytes(b"no model")
    with pytest.raises(AssertionError, match="ModelUnusable"):
        async with embedder(tmp_path, model_file=str(tmp_path / "picture.onnx")):
            pass
