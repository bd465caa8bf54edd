"""kill -9 in the middle of the retail day: it ends as told all the same, nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from local.demo import chapters
from local.demo.stage import Stage
from local.embedded_mongo import EmbeddedMongo
from local.stack import Stack

KILLS = 3
"""How often one day is interrupted; the supervisor starts a process again that often and more."""


class Killer:
    """Kills one process at some steps of the story, a few milliseconds later: in the middle of a call."""

    def __init__(self, stack: Stack, victim: str, seed: int) -> None:
        self._stack = stack
        self._victim = victim
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._steps = 0
        self._at = set(self._random.sample(range(1, 32), KILLS))
        self.kills = 0

    async def between(self, _step: str) -> None:
        """Called after every step of the story."""
        self._steps += 1
        if self._steps in self._at:
            self._tasks.append(asyncio.create_task(self._kill(self._random.uniform(0, 0.02))))

    async def _kill(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def _pid(self) -> int | None:
        if self._victim != "mongod":
            return self._stack.pid(self._victim)
        assert isinstance(self._stack.mongo, EmbeddedMongo)
        return self._stack.mongo.pid


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path, testing=True) as started:
        yield started


@pytest.mark.parametrize("victim", ["members", "commission", "mongod"])
async def test_a_day_interrupted_by_kill_9_ends_as_told(stack: Stack, victim: str, tmp_path: Path) -> None:
    """Callers that send again after UNAVAILABLE need nothing else to come out even, to the fen."""
    if victim == "mongod" and not isinstance(stack.mongo, EmbeddedMongo):
        pytest.skip("MONGODB_URI is set, and that server is not ours to kill")
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    said = io.StringIO()
    killer = Killer(stack, victim, seed)
    async with Stage(stack, Console(file=said, width=100), killer.between).open() as stage:
        await chapters.play(stage, tmp_path)
    assert killer.kills >= 1, "nothing was killed: the test has shown nothing"
    assert stage.checks == 24
