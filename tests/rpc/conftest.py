"""The real services as processes over loopback, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from local.services import EMBEDDER, SERVICES
from local.stack import Stack
from tests.rpc.running import Running
from tests.rpc.world import World, a_world, plan_of
from tests.triggers import write_model


@pytest.fixture(scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The services, the embedder with a small model, MongoDB, and everybody's connections to them."""
    folder = tmp_path_factory.mktemp("rpc")
    model = {
        "DAOGOU_MODEL_FILE": str(write_model(folder / "model.onnx")),
        "DAOGOU_ALIGNER_ID": "none",
        "DAOGOU_ENGINE_THREADS": "1",
        "DAOGOU_EXECUTION": "onnxruntime",
    }
    async with Stack(folder, services=(*SERVICES, EMBEDDER), testing=True, env={"embedder": model}) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    """A brand that the tests of one module share: they add to it and change nothing that others rely on."""
    return await a_world(running, plan=plan_of())
