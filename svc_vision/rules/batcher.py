"""Who is embedded when: what a free engine takes, how long it waits for more, whom the door is shut to.

Pure: the time and the lanes are given. `svc_vision.embedder.batching` owns the clock, the lanes and the
engine; `batch_costs` says which sizes are worth running.

Items stand in one lane for each priority, ordered by deadline. A free engine takes the earliest deadlines of
the first lane that has any, in the batch that is cheapest for that lane, and fills what would be padding from
the lanes behind it. So a backlog of re-embedding never makes a batch at a door larger, nor a door wait for
more than the one batch that runs already.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, TypeVar

from chassis.errors import Overloaded
from svc_vision.rules.batch_costs import Costs

LINGER_S_MAX: Final = 0.002
SURELY: Final = 1.15
"""Estimates are taken for this much too low at the door, so that who is let in is in time for certain."""
RETRY_S_MIN: Final = 0.01
RETRY_S_MAX: Final = 10.0
_PACE_MIN, _PACE_MAX, _PACE_WEIGHT = 0.25, 8.0, 0.1


class Priority(IntEnum):
    """What an item is for: the smaller, the sooner."""

    DOOR = 0
    ENROLMENT = 1
    REEMBEDDING = 2


SHARES: Final = {Priority.DOOR: 1.0, Priority.ENROLMENT: 0.75, Priority.REEMBEDDING: 0.5}
"""How full the queue may get by what arrives with each priority: there is always room left for doors."""


@dataclass(slots=True, eq=False)
class Item:
    """One crop that waits. Times are of one monotonic clock, in seconds."""

    priority: Priority
    deadline_s: float
    arrival_s: float
    size_bytes: int
    gone: bool = False
    """Nobody waits for it any more."""


I = TypeVar("I", bound=Item)  # noqa: E741 - an item
Lanes = tuple[list[I], ...]
"""What waits, a list for each priority, ordered by deadline and then by arrival."""


def empty_lanes() -> Lanes[I]:
    """Lanes in which nothing waits."""
    return tuple([] for _ in Priority)


def enqueue(lanes: Lanes[I], item: I) -> None:
    """Puts an item where it belongs."""
    bisect.insort_right(lanes[item.priority], item, key=lambda other: other.deadline_s)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait."""

    items_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Engine:
    """What is known of the engine: what its runs cost, how it keeps to that, and what it is doing."""

    costs: Costs
    pace: float = 1.0
    """How long runs take at present, as a multiple of what was measured at the start."""
    busy_until_s: float | None = None
    """When what it runs should be done. None: it is free."""

    def run_s(self, bucket: int) -> float:
        """How long a run of this bucket should take now."""
        return self.costs.seconds[bucket] * self.pace


@dataclass(frozen=True, slots=True)
class Arriving:
    """The items of one call, to be let in together or not at all."""

    priority: Priority
    deadline_s: float
    items: int
    size_bytes: int


# ---- at the door ------------------------------------------------------------------------------------


def check_admitted(
    lanes: Lanes[I], waiting_bytes: int, call: Arriving, engine: Engine, bounds: Bounds, now_s: float
) -> None:
    """Shuts the door at once to what has no room, or would not be done by its deadline.

    An engine that has nothing to do refuses nobody for its deadline: that it takes too long for anybody
    would otherwise be believed for ever.

    Raises: Overloaded QUEUE_FULL, WOULD_BE_LATE, with the time after which it may be tried again.
    """
    share = SHARES[call.priority]
    waiting = sum(map(len, lanes))
    over_items = waiting + call.items - int(bounds.items_max * share)
    over_bytes = waiting_bytes + call.size_bytes - int(bounds.bytes_max * share)
    if over_items > 0 or over_bytes > 0:
        leave = min(waiting, max(over_items, -(-over_bytes * waiting // max(1, waiting_bytes)), 1))
        wait_s = _busy_s(engine, now_s) + engine.costs.least_s(leave) * engine.pace
        raise Overloaded(
            "QUEUE_FULL", "as much waits as may wait of this priority", retry_after_s=_retry_s(wait_s)
        )
    if waiting == 0 and engine.busy_until_s is None:
        return
    late_s = now_s + SURELY * done_after_s(lanes, call, engine, now_s) - call.deadline_s
    if late_s > 0:
        raise Overloaded(
            "WOULD_BE_LATE",
            "the queue is too long for the call's deadline",
            retry_after_s=_retry_s(late_s),
        )


def done_after_s(lanes: Lanes[I], call: Arriving, engine: Engine, now_s: float) -> float:
    """How long it would take until the last item of the call is done, if nothing else came.

    Example: the engine is busy for 5 ms more, runs of 1 and 2 take 10 and 12 ms, two items of earlier
    deadline wait: 5 + 12 + 10 = 27 ms.
    """
    own = lanes[call.priority]
    ahead = bisect.bisect_right(own, call.deadline_s, key=lambda other: other.deadline_s)
    left = [len(lane) for lane in lanes]
    left[call.priority] += call.items
    place, total_s = ahead + call.items, 0.0
    for first in range(len(lanes)):
        while left[first]:
            bucket = engine.costs.first_batch(left[first])
            total_s += engine.costs.seconds[bucket]
            for lane in range(first, len(lanes)):
                taken = min(bucket, left[lane])
                bucket -= taken
                left[lane] -= taken
                place -= taken if lane == call.priority else 0
            if place <= 0:
                return _busy_s(engine, now_s) + total_s * engine.pace
    raise AssertionError("the last item of the call is in one of the batches")


def _busy_s(engine: Engine, now_s: float) -> float:
    return max(0.0, (engine.busy_until_s or now_s) - now_s)


def _retry_s(wait_s: float) -> float:
    return min(max(wait_s, RETRY_S_MIN), RETRY_S_MAX)


# ---- a free engine ----------------------------------------------------------------------------------


def linger_s(lanes: Lanes[I], engine: Engine, last_items: int, now_s: float) -> float:
    """How long a free engine waits for more before it takes what there is. 0: not at all.

    At most 2 ms after the first of them came, no longer than company would save, never past what a deadline
    allows; and only where the last batch, of `last_items`, was less than half of what one can hold: under
    load the next batch fills while the last one runs.
    """
    costs, waiting = engine.costs, [item for lane in lanes for item in lane[: engine.costs.largest]]
    if not waiting or len(waiting) >= costs.largest or last_items * 2 >= costs.largest:
        return 0.0
    saved_s = costs.saved_by_company_s(len(waiting)) * engine.pace
    until_s = min(item.arrival_s for item in waiting) + min(LINGER_S_MAX, saved_s)
    run_s = engine.run_s(costs.bucket_for(len(waiting) + 1))
    return max(0.0, min(until_s, min(item.deadline_s for item in waiting) - SURELY * run_s) - now_s)


@dataclass(frozen=True, slots=True)
class Formed(Generic[I]):
    """A batch, and what was found dead on the way to it. All of it is out of the lanes."""

    bucket: int
    """The size to run it at. 0: there is nothing to run."""
    batch: list[I] = field(default_factory=list)
    expired: list[I] = field(default_factory=list)
    """Their deadline has passed, or will have by the end of the batch, and others will be in time."""
    gone: list[I] = field(default_factory=list)


def form_batch(lanes: Lanes[I], engine: Engine, now_s: float) -> Formed[I]:
    """Takes the next batch out of the lanes, and with it those on the way that nobody waits for.

    What would be done too late gives its place to what would not. Where nothing would be in time it is run
    all the same: the estimate may be wrong, and is put right by trying.
    """
    expired: list[I] = []
    for lane in lanes:
        passed = bisect.bisect_right(lane, now_s, key=lambda item: item.deadline_s)
        expired += lane[:passed]
        del lane[:passed]
    size = next((engine.costs.first_batch(len(lane)) for lane in lanes if lane), 0)
    done_s = now_s + (engine.run_s(size) if size else 0.0)
    batch: list[I] = []
    late: list[I] = []
    gone: list[I] = []
    for lane in lanes:
        looked_at = 0
        for item in lane:
            if len(batch) == size:
                break
            looked_at += 1
            (gone if item.gone else late if item.deadline_s < done_s else batch).append(item)
        del lane[:looked_at]
    if batch:
        expired += late
    else:
        batch = late[:size]
        for item in late[size:]:
            enqueue(lanes, item)
    return Formed(engine.costs.bucket_for(len(batch)) if batch else 0, batch, expired, gone)


# ---- after a run ------------------------------------------------------------------------------------


def instead_of(failed: Sequence[I]) -> tuple[Sequence[I], ...]:
    """What to run instead of a batch that failed: its halves. Nothing: it was one item, which is to blame."""
    half = len(failed) // 2
    return (failed[:half], failed[half:]) if half else ()


def paced(pace: float, took_s: float, measured_s: float) -> float:
    """The pace after a run: it follows slowly, so that one hiccup shuts no doors."""
    latest = min(max(took_s / measured_s, _PACE_MIN), _PACE_MAX)
    return pace + _PACE_WEIGHT * (latest - pace)
