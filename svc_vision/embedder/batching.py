"""Crops of all callers, run together: the clock, the lanes and the engine around rules/batcher.py.

Callers wait on the event loop; one thread owns the engine and takes from the lanes whenever it is free.
Every crop taken ends in exactly one outcome, an embedding or an error, whatever happens to the engine:
whoever takes a crop out of the lanes holds it in hand until it is answered, and when a thread is given up,
what it had in hand is answered for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from chassis import logs
from chassis.errors import DaogouError, DeadlineExceeded, Invalid, Overloaded, Unavailable
from svc_vision.embedder import metrics
from svc_vision.embedder.engine import Chips, Embeddings, Engine, EngineLost
from svc_vision.rules import batcher
from svc_vision.rules.batch_costs import Costs
from svc_vision.rules.batcher import Arriving, Bounds, Item, Lanes, Priority

Outcome = bytes | DaogouError
_AGAIN_S: Final = 1.0


def engine_down() -> Unavailable:
    """The error of whoever comes, or waits, while there is no engine."""
    return Unavailable("ENGINE_DOWN", "the engine is being started again", retry_after_s=_AGAIN_S)


class _Call:
    """The outcomes of one call's crops, as they come in."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self.all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def settle(self, place: int, outcome: Outcome) -> None:
        assert self.outcomes[place] is None, "a crop has one outcome"
        self.outcomes[place] = outcome
        self._left -= 1
        if not self._left and not self.all_done.done():
            self.all_done.set_result(None)


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiting(Item):
    crop: bytes
    call: _Call
    place: int


class _GivenUp(Exception):
    """The thread was given up: what it had in hand has been answered, and another may run."""


@dataclass
class _Worker:
    """A thread with its engine. Guarded by the lock of the Batching that made it."""

    engine: Engine
    costs: Costs
    chips: Chips
    """Where batches are put together: new memory for each would cost as much as the copying."""
    thread: threading.Thread | None = None
    in_hand: set[_Waiting] | None = None
    pace: float = 1.0
    busy_until_s: float | None = None
    run_since_s: float | None = None
    last_items: int = 0

    def known(self) -> batcher.Engine:
        return batcher.Engine(self.costs, self.pace, self.busy_until_s)


class Batching:
    """The queue in front of the engine. Belongs to the event loop that it is made on."""

    def __init__(self, bounds: Bounds, on_fallen: Callable[[], None]) -> None:
        """`on_fallen` is called on the event loop when the engine's thread has ended by itself."""
        self._bounds = bounds
        self._on_fallen = on_fallen
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._lanes: Lanes[_Waiting] = batcher.empty_lanes()
        self._waiting_bytes = 0
        self._worker: _Worker | None = None
        self._log = logs.logger("batching")
        metrics.AGE.set_function(self._age_s)
        for priority in Priority:
            metrics.WAITING.labels(priority.name).set_function(self._lanes[priority].__len__)

    # ---- on the event loop --------------------------------------------------------------------------

    async def embed(self, crops: Sequence[bytes], priority: Priority, deadline_s: float) -> list[Outcome]:
        """The outcome of each crop. `deadline_s`: by the monotonic clock.

        Raises: Overloaded QUEUE_FULL, WOULD_BE_LATE; Unavailable ENGINE_DOWN.
        """
        call, now_s = _Call(len(crops)), time.monotonic()
        items = [
            _Waiting(priority, deadline_s, now_s, len(crop), crop=crop, call=call, place=place)
            for place, crop in enumerate(crops)
        ]
        self._let_in(items, Arriving(priority, deadline_s, len(items), sum(map(len, crops))), now_s)
        try:
            await call.all_done
        except asyncio.CancelledError:
            for item in items:
                item.gone = True
            raise
        return [outcome for outcome in call.outcomes if outcome is not None]

    def _let_in(self, items: Sequence[_Waiting], arriving: Arriving, now_s: float) -> None:
        with self._changed:
            if self._worker is None:
                raise engine_down()
            try:
                batcher.check_admitted(
                    self._lanes, self._waiting_bytes, arriving, self._worker.known(), self._bounds, now_s
                )
            except Overloaded as error:
                metrics.REFUSED.labels(error.reason).inc(len(items))
                raise
            for item in items:
                batcher.enqueue(self._lanes, item)
            self._waiting_bytes += arriving.size_bytes
            self._changed.notify()

    def start(self, engine: Engine, seconds: Mapping[int, float]) -> None:
        """Has a new thread run this engine, whose runs take so long."""
        costs, side_px = Costs(seconds, self._bounds.items_max), engine.model.side_px
        worker = _Worker(engine, costs, np.zeros((costs.largest, side_px, side_px, 3), np.uint8))
        worker.thread = threading.Thread(target=self._work, args=(worker,), name="engine", daemon=True)
        with self._changed:
            assert self._worker is None
            self._worker = worker
        worker.thread.start()

    def give_up(self) -> threading.Thread | None:
        """Has all that waits, or is in hand, end in ENGINE_DOWN. The thread, which ends when it can."""
        with self._changed:
            worker, self._worker = self._worker, None
            left = [item for lane in self._lanes for item in lane]
            for lane in self._lanes:
                lane.clear()
            self._waiting_bytes = 0
            left += (worker.in_hand or ()) if worker else ()
            self._changed.notify()
        for item in left:
            item.call.settle(item.place, engine_down())
        return worker.thread if worker else None

    @property
    def costs(self) -> Costs:
        """What the engine's runs cost. Raises: Unavailable ENGINE_DOWN."""
        worker = self._worker
        if worker is None:
            raise engine_down()
        return worker.costs

    def runs_for_s(self) -> float:
        """How long the run in progress has taken so far. 0 when there is none."""
        worker = self._worker
        since_s = worker.run_since_s if worker else None
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _age_s(self) -> float:
        with self._changed:
            arrived = [item.arrival_s for lane in self._lanes for item in lane]
        return time.monotonic() - min(arrived) if arrived else 0.0

    # ---- on the engine's thread ---------------------------------------------------------------------

    def _work(self, worker: _Worker) -> None:
        """The life of the thread. Whatever ends it is told to the supervisor."""
        try:
            while True:
                begun_s, batch = self._next_batch(worker)
                if batch:
                    self._run(worker, batch, begun_s)
        except _GivenUp:
            return
        except BaseException as error:  # noqa: BLE001 - the thread ends, and somebody must know why
            self._log.error("engine_fell", error=type(error).__name__, exc_info=error)
            self._tell(self._on_fallen)

    def _next_batch(self, worker: _Worker) -> tuple[float, list[_Waiting]]:
        """Waits for the next batch, and says since when there was one. Raises: _GivenUp."""
        with self._changed:
            while True:
                self._check_owner(worker)
                now_s = time.monotonic()
                linger_s = batcher.linger_s(self._lanes, worker.known(), worker.last_items, now_s)
                if linger_s > 0:
                    self._changed.wait(linger_s)
                elif any(self._lanes):
                    break
                else:
                    self._changed.wait()
            formed = batcher.form_batch(self._lanes, worker.known(), now_s)
            worker.in_hand = {*formed.batch, *formed.expired, *formed.gone}
            self._waiting_bytes -= sum(item.size_bytes for item in worker.in_hand)
            worker.last_items = len(formed.batch)
            if formed.batch:
                worker.busy_until_s = now_s + worker.known().run_s(formed.bucket)
        metrics.EXPIRED.inc(len(formed.expired))
        metrics.CANCELLED.inc(len(formed.gone))
        late = DeadlineExceeded("DEADLINE_PASSED", "the deadline has passed, or would, before it is done")
        self._settle(worker, [(item, late) for item in (*formed.expired, *formed.gone)])
        for item in formed.batch:
            metrics.STAGE.labels("queue").observe(now_s - item.arrival_s)
        return now_s, formed.batch

    def _run(self, worker: _Worker, batch: Sequence[_Waiting], begun_s: float) -> None:
        """Runs a batch, and where that fails its halves, down to the crops that are to blame."""
        parts: list[Sequence[_Waiting]] = [batch]
        failed = False
        while parts:
            part = parts.pop()
            embeddings = self._attempt(worker, [item.crop for item in part])
            if embeddings is not None:
                self._settle(worker, _outcomes(part, embeddings))
                continue
            failed = True
            if halves := batcher.instead_of(part):
                metrics.BISECTED.inc()
                parts += reversed(halves)
            else:
                self._blame(worker, part[0])
        with self._changed:
            worker.busy_until_s = None
            if not failed:
                # All of it: what is not computing keeps the engine from the next batch as well.
                measured_s = worker.costs.seconds[worker.costs.bucket_for(len(batch))]
                worker.pace = batcher.paced(worker.pace, time.monotonic() - begun_s, measured_s)

    def _blame(self, worker: _Worker, item: _Waiting) -> None:
        """A crop over which the engine has failed, alone: if the engine still runs anything else."""
        if self._attempt(worker, [bytes(worker.engine.model.crop_bytes)]) is None:
            raise EngineLost("it fails over a blank crop too")
        metrics.FAILED.labels("CROP_NOT_EMBEDDABLE").inc()
        self._settle(worker, [(item, Invalid("CROP_NOT_EMBEDDABLE", "the engine fails over this crop"))])

    def _attempt(self, worker: _Worker, crops: Sequence[bytes]) -> Embeddings | None:
        """One run. None: it failed, over these crops. Raises: EngineLost, _GivenUp."""
        bucket, begun = worker.costs.bucket_for(len(crops)), time.perf_counter()
        chips = _filled(worker.chips[:bucket], crops)
        copied = time.perf_counter()
        metrics.STAGE.labels("copy").observe(copied - begun)
        with self._changed:
            self._check_owner(worker)
            worker.run_since_s = time.monotonic()
        try:
            embeddings = worker.engine.run(chips)
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the crops or the engine are to blame
            self._log.warning("run_failed", items=len(crops), error=type(error).__name__)
            return None
        finally:
            worker.run_since_s = None
        metrics.STAGE.labels("compute").observe(time.perf_counter() - copied)
        metrics.BATCH.observe(len(crops))
        metrics.PADDING.inc(bucket - len(crops))
        if embeddings.shape != (bucket, worker.engine.model.dimension):
            raise EngineLost(f"it gave {embeddings.shape} for {bucket} crops")
        return embeddings[: len(crops)]

    def _check_owner(self, worker: _Worker) -> None:
        if self._worker is not worker:
            raise _GivenUp

    def _settle(self, worker: _Worker, outcomes: Sequence[tuple[_Waiting, Outcome]]) -> None:
        """Hands outcomes to their callers, unless that was done when the thread was given up."""
        if not outcomes:
            return
        with self._changed:
            self._check_owner(worker)
            assert worker.in_hand is not None
            worker.in_hand.difference_update(item for item, _ in outcomes)
            # Within the lock: what `give_up` settles is never on its way already.
            self._tell(_settle_all, outcomes)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)


def _settle_all(outcomes: Iterable[tuple[_Waiting, Outcome]]) -> None:
    for item, outcome in outcomes:
        item.call.settle(item.place, outcome)


def _filled(chips: Chips, crops: Sequence[bytes]) -> Chips:
    """The crops in one batch, blank where there are none."""
    for row, crop in zip(chips, crops, strict=False):
        row[:] = np.frombuffer(crop, np.uint8).reshape(row.shape)
    chips[len(crops) :] = 0
    return chips


def _outcomes(items: Sequence[_Waiting], embeddings: Embeddings) -> list[tuple[_Waiting, Outcome]]:
    packed = np.ascontiguousarray(embeddings, "<f4")
    finite = np.isfinite(packed).all(axis=1)
    outcomes: list[tuple[_Waiting, Outcome]] = []
    for item, row, good in zip(items, packed, finite, strict=True):
        if good:
            metrics.EMBEDDED.labels(item.priority.name).inc()
            outcomes.append((item, row.tobytes()))
        else:
            metrics.FAILED.labels("EMBEDDING_NOT_FINITE").inc()
            outcomes.append((item, Invalid("EMBEDDING_NOT_FINITE", "the model makes no numbers of it")))
    return outcomes
