"""Keeps an engine running: loads and warms it up, notices when it falls or hangs, and starts another.

While there is none, health says NOT_SERVING and whoever waits is told ENGINE_DOWN.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final

from chassis import logs
from chassis.rpc.life import Readiness
from svc_vision.embedder import engine as engines
from svc_vision.embedder import metrics
from svc_vision.embedder.batching import Batching
from svc_vision.embedder.engine import Engine, Model
from svc_vision.rules.batch_costs import BUCKETS
from svc_vision.rules.batcher import Bounds

EXIT_HUNG: Final = 70
_REASON: Final = "engine"
_LOOKED_AT_EVERY_S: Final = 0.1
_ENDS_WITHIN_S: Final = 3.0
_TOLD_WITHIN_S: Final = 0.2
_TRIED_AGAIN_AFTER_S: Final = 1.0

Load = Callable[[], Engine]


class Supervised:
    """An engine that is there again after it was lost, and the queue in front of it."""

    def __init__(
        self, load: Load, ready: Readiness, bounds: Bounds, *, batch_max: int, stall_s: float
    ) -> None:
        """`load` is called on a thread. A run that takes longer than `stall_s` is taken to hang."""
        self._load = load
        self._ready = ready
        self._stall_s = stall_s
        self._batch_max = batch_max
        self._fallen = asyncio.Event()
        self._engine: Engine | None = None
        self._log = logs.logger("engine")
        self.batching = Batching(bounds, self._fallen.set)

    @property
    def model(self) -> Model:
        """What is served. It stays the same when the engine is started again."""
        assert self._engine is not None, "nobody asks before the first start"
        return self._engine.model

    async def start(self) -> None:
        """Loads an engine, warms up its batch sizes and puts it to work. Raises: whatever loading does."""
        engine, seconds = await asyncio.to_thread(self._warmed)
        self._engine = engine
        self._fallen.clear()
        self.batching.start(engine, seconds)
        self._log.info(
            "engine_started",
            model=engine.model.model_id,
            execution=engine.model.execution,
            run_ms={str(size): round(took_s * 1000, 2) for size, took_s in seconds.items()},
            in_use=self.batching.costs.usable,
        )

    def _warmed(self) -> tuple[Engine, dict[int, float]]:
        engine = self._load()
        most = min(self._batch_max, engine.model.batch_max or self._batch_max)
        return engine, engines.measured(engine, [size for size in BUCKETS if size <= most])

    async def watch(self) -> None:
        """Starts the engine again whenever it falls or hangs, for as long as it takes."""
        while True:
            hangs = await self._lost()
            metrics.RESTARTS.inc()
            await self._ready.withhold(_REASON)
            thread = self.batching.give_up()
            self._log.error("engine_lost", hangs=hangs)
            if hangs and self._engine is not None:
                self._engine.interrupt()
            await self._ended(thread)
            await self._start_again()
            await self._ready.restore(_REASON)

    async def _lost(self) -> bool:
        """Returns when the engine is lost: whether because it hangs."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._fallen.wait(), _LOOKED_AT_EVERY_S)
            if self._fallen.is_set():
                return False
            if self.batching.runs_for_s() > self._stall_s:
                return True

    async def _ended(self, thread: threading.Thread | None) -> None:
        """Waits for the end of a thread that was given up, and ends the process if it does not come.

        Nothing less ends a thread that is stuck in the code of a driver; and a second engine beside one that
        still holds the device would hang as well.
        """
        if thread is None:
            return
        await asyncio.to_thread(thread.join, _ENDS_WITHIN_S)
        if thread.is_alive():
            self._log.error("engine_hangs_for_good", exit_status=EXIT_HUNG)
            # So that those who wait are told before their connection ends.
            await asyncio.sleep(_TOLD_WITHIN_S)
            os._exit(EXIT_HUNG)

    async def _start_again(self) -> None:
        while True:
            try:
                await self.start()
            except Exception as error:  # noqa: BLE001 - it is tried again until it succeeds
                self._log.error("engine_not_started", error=type(error).__name__, exc_info=error)
                await asyncio.sleep(_TRIED_AGAIN_AFTER_S)
            else:
                return


@contextlib.asynccontextmanager
async def supervised(
    load: Load, ready: Readiness, bounds: Bounds, *, batch_max: int, stall_s: float
) -> AsyncIterator[Supervised]:
    """An engine that runs, warmed up, until the block ends. Raises: whatever its first loading does."""
    made = Supervised(load, ready, bounds, batch_max=batch_max, stall_s=stall_s)
    await made.start()
    watching = asyncio.create_task(made.watch())
    try:
        yield made
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        thread = made.batching.give_up()
        if thread is not None:
            await asyncio.to_thread(thread.join, _ENDS_WITHIN_S)
