"""Rounds of work that nobody asked for: they go on, whatever one of them meets, until the service ends."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY

from chassis import background


def failures(work: str) -> float:
    """How many rounds have failed."""
    return REGISTRY.get_sample_value("daogou_background_failures_total", {"work": work}) or 0.0


async def test_a_round_that_fails_is_counted_and_followed_by_the_next() -> None:
    """An hour without MongoDB costs an hour of rounds, and not the work."""
    rounds = 0
    done = asyncio.Event()

    async def work() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            done.set()
        if rounds % 2:
            raise ConnectionError("away")
        return False

    before = failures("unit-failing")
    async with background.running({"unit-failing": work}, every_s=0.001):
        await asyncio.wait_for(done.wait(), 5)
    assert failures("unit-failing") - before >= 3


async def test_a_round_that_left_work_is_followed_at_once() -> None:
    """A backlog is worked off without pauses."""
    rounds = 0
    done = asyncio.Event()

    async def work() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 100:
            done.set()
        return rounds < 100

    async with background.running({"unit-busy": work}, every_s=60):
        await asyncio.wait_for(done.wait(), 5)
        await asyncio.sleep(0.01)
        assert rounds == 100, "and then it rests"


async def test_one_kind_of_work_does_not_wait_for_another() -> None:
    """Though that one hangs; when the service ends, both end."""
    hanging, ended = asyncio.Event(), asyncio.Event()
    done = asyncio.Event()

    async def hang() -> bool:
        hanging.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return False

    async def work() -> bool:
        await hanging.wait()
        done.set()
        return False

    async with background.running({"unit-hanging": hang, "unit-working": work}, every_s=0.001):
        await asyncio.wait_for(done.wait(), 5)
        assert not ended.is_set()
    assert ended.is_set()
