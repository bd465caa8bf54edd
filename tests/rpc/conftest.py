"""The real services as processes over loopback, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from local.stack import Stack
from tests.rpc.running import Running
from tests.rpc.world import World, a_world, plan_of


@pytest.fixture(scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The services, MongoDB and everybody's connections to them."""
    async with Stack(tmp_path_factory.mktemp("rpc"), testing=True) as stack:
        opened = Running(stack)
        try:
            yield opened
        finally:
            await opened.close()


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    """A brand that the tests of one module share: they add to it and change nothing that others rely on."""
    return await a_world(running, plan=plan_of())
