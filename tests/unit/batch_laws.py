"""Lives of a batcher under a clock of the test's own, and the laws that hold of all of them.

`lived` does with the rules what the embedder does with them: calls arrive, leave, are let in or not; a free
engine lingers, takes a batch, and takes longer or shorter for it than was measured; some crops make it fail.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache

from hypothesis import strategies as st

from chassis.errors import Overloaded
from svc_vision.rules import batch_costs, batcher
from svc_vision.rules.batch_costs import Costs
from svc_vision.rules.batcher import Arriving, Bounds, Engine, Formed, Item, Lanes, Priority

TINY = 1e-9


@dataclass(frozen=True)
class Call:
    """A call as the network brings it. Times in seconds; `leaves_s`: after which its caller is gone."""

    at_s: float
    priority: Priority
    allowed_s: float
    size_bytes: int
    poisoned: tuple[bool, ...]
    """For each of its items, whether the engine fails over it."""
    leaves_s: float | None


@dataclass(frozen=True)
class Scenario:
    """A world to live in."""

    seconds: Mapping[int, float]
    bounds: Bounds
    calls: tuple[Call, ...]
    hiccups: tuple[float, ...]
    """How long runs take as multiples of what was measured, over and over."""


@dataclass(slots=True, eq=False)
class Crop(Item):
    """An item with what the world knows of it."""

    poisoned: bool = False


@dataclass(frozen=True)
class Asked:
    """A question at the door."""

    lanes: Lanes[Crop]
    waiting_bytes: int
    call: Arriving
    engine: Engine
    now_s: float
    refused: Overloaded | None


@dataclass(frozen=True)
class Taken:
    """A batch that was formed."""

    before: Lanes[Crop]
    after: Lanes[Crop]
    engine: Engine
    now_s: float
    formed: Formed[Crop]
    runs: int
    """Runs that it came to, with those of its parts."""
    nobodys: frozenset[int]
    """Of what waited, by `id`, what nobody waited for any more."""


@dataclass(frozen=True)
class Lingered:
    """A wait of the free engine."""

    waiting: tuple[Crop, ...]
    engine: Engine
    last_items: int
    now_s: float
    for_s: float


@dataclass
class Life:
    """All that happened."""

    scenario: Scenario
    items: list[Crop] = field(default_factory=list)
    ended: Counter[tuple[int, str]] = field(default_factory=Counter)
    asked: list[Asked] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    lingered: list[Lingered] = field(default_factory=list)
    left: int = 0
    """Items that still wait when nothing more can happen."""

    def end(self, how: str, *items: Crop) -> None:
        for item in items:
            self.ended[id(item), how] += 1

    def endings(self, item: Crop) -> list[str]:
        return [how for (one, how), count in self.ended.items() for _ in range(count) if one == id(item)]


def snapshot(lanes: Lanes[Crop]) -> Lanes[Crop]:
    """The lanes with copies of their items: `gone` is set later."""
    return tuple([copy(item) for item in lane] for lane in lanes)


def lived(scenario: Scenario) -> Life:
    """The life in this world, from the first call until nothing waits."""
    return _World(scenario).lived()


class _World:
    """The clock, the queue and the engine, as the embedder has them."""

    def __init__(self, scenario: Scenario) -> None:
        self.life = Life(scenario)
        self.costs = Costs(scenario.seconds, scenario.bounds.items_max)
        self.lanes: Lanes[Crop] = batcher.empty_lanes()
        self.hiccups = itertools.cycle(scenario.hiccups)
        self.events: list[tuple[float, int, Call | Crop | None]] = []
        self.number = itertools.count()
        self.pace, self.last_items = 1.0, 0
        self.busy_until_s: float | None = None
        self.free_s = 0.0
        for call in scenario.calls:
            self.later(call.at_s, call)

    def later(self, at_s: float, what: Call | Crop | None) -> None:
        """A call that comes, an item whose caller leaves, or a time to look again."""
        heapq.heappush(self.events, (at_s, next(self.number), what))

    def engine(self) -> Engine:
        return Engine(self.costs, self.pace, self.busy_until_s)

    def lived(self) -> Life:
        while self.events:
            now_s, _, event = heapq.heappop(self.events)
            if now_s >= self.free_s:
                self.busy_until_s = None
            if isinstance(event, Call):
                self.arrive(event, now_s)
            elif isinstance(event, Crop):
                event.gone = True
            if now_s >= self.free_s and any(self.lanes):
                self.work(now_s)
        self.life.left = sum(map(len, self.lanes))
        return self.life

    def arrive(self, call: Call, now_s: float) -> None:
        life, deadline_s, count = self.life, now_s + call.allowed_s, len(call.poisoned)
        waiting_bytes = sum(item.size_bytes for lane in self.lanes for item in lane)
        arriving = Arriving(call.priority, deadline_s, count, call.size_bytes * count)
        made = [
            Crop(call.priority, deadline_s, now_s, call.size_bytes, poisoned=poisoned)
            for poisoned in call.poisoned
        ]
        life.items += made
        before, refused = snapshot(self.lanes), None
        try:
            batcher.check_admitted(
                self.lanes, waiting_bytes, arriving, self.engine(), life.scenario.bounds, now_s
            )
        except Overloaded as error:
            refused = error
            life.end("refused", *made)
        else:
            for item in made:
                batcher.enqueue(self.lanes, item)
                if call.leaves_s is not None:
                    self.later(now_s + call.leaves_s, item)
        life.asked.append(Asked(before, waiting_bytes, arriving, self.engine(), now_s, refused))

    def work(self, now_s: float) -> None:
        """Lingers, or takes a batch and runs it."""
        life, known = self.life, self.engine()
        for_s = batcher.linger_s(self.lanes, known, self.last_items, now_s)
        waiting = tuple(item for lane in self.lanes for item in lane)
        life.lingered.append(Lingered(waiting, known, self.last_items, now_s, for_s))
        if for_s > TINY:
            self.later(now_s + for_s, None)
            return
        before = snapshot(self.lanes)
        nobodys = frozenset(id(item) for item in waiting if item.gone)
        formed = batcher.form_batch(self.lanes, known, now_s)
        after = snapshot(self.lanes)
        life.end("expired", *formed.expired)
        life.end("gone", *formed.gone)
        took_s, runs = self.run(formed.batch)
        life.taken.append(Taken(before, after, known, now_s, formed, runs, nobodys))
        self.last_items = len(formed.batch)
        self.free_s = now_s + took_s
        self.busy_until_s = now_s + known.run_s(formed.bucket) if formed.batch else None
        self.later(self.free_s, None)

    def run(self, batch: list[Crop]) -> tuple[float, int]:
        """Runs a batch, and the parts of those that fail: how long it took, in how many runs."""
        took_s, runs = 0.0, 0
        parts: list[Sequence[Crop]] = [batch] if batch else []
        while parts:
            part = parts.pop()
            measured_s = self.costs.seconds[self.costs.bucket_for(len(part))]
            run_s = measured_s * next(self.hiccups)
            self.pace = batcher.paced(self.pace, run_s, measured_s)
            took_s, runs = took_s + run_s, runs + 1
            halves = batcher.instead_of(part)
            if not any(item.poisoned for item in part):
                self.life.end("done", *part)
            elif halves:
                parts += halves
            else:
                self.life.end("failed", *part)
        return took_s, runs


# ---- the laws ---------------------------------------------------------------------------------------


def every_item_ends_exactly_once(life: Life) -> None:
    """In a result, an error, a refusal, or because nobody waited for it."""
    counts = Counter(one for one, _ in life.ended.elements())
    assert counts == Counter(id(item) for item in life.items)
    assert life.left == 0


def a_bad_item_fails_alone(life: Life) -> None:
    """What was run and is good is done; finding k bad ones of n costs at most 2k log2 n + 1 runs."""
    for taken in life.taken:
        bad = 0
        for item in taken.formed.batch:
            assert life.endings(item) == (["failed"] if item.poisoned else ["done"])
            bad += item.poisoned
        depth = math.ceil(math.log2(max(1, len(taken.formed.batch))))
        assert taken.runs <= 1 + 2 * bad * depth


def the_dead_are_not_run(life: Life) -> None:
    """Neither those whose time has passed nor those that nobody waits for."""
    for taken in life.taken:
        for item in taken.formed.batch:
            assert item.deadline_s > taken.now_s
            assert id(item) not in taken.nobodys


def those_who_left_are_told_apart_from_those_who_were_late(life: Life) -> None:
    """Both are counted, and nobody is called either who is not."""
    for taken in life.taken:
        assert {id(item) for item in taken.formed.gone} <= taken.nobodys
        done_s = taken.now_s + max(map(taken.engine.run_s, taken.engine.costs.usable))
        assert all(item.deadline_s < done_s + TINY for item in taken.formed.expired)


def doors_go_before_enrolment_before_reembedding(life: Life) -> None:
    """Nothing alive of an earlier lane is left behind by a batch with items of a later one."""
    for taken in life.taken:
        for item in taken.formed.batch:
            for lane in taken.after[: item.priority]:
                assert not any(not other.gone and other.deadline_s > taken.now_s for other in lane)


def within_a_lane_the_earliest_deadline_goes_first(life: Life) -> None:
    for taken in life.taken:
        for item in taken.formed.batch:
            for other in taken.after[item.priority]:
                assert (item.deadline_s, item.arrival_s) <= (other.deadline_s, other.arrival_s)


def the_first_lane_decides_the_size_and_the_others_fill_it(life: Life) -> None:
    """No padding while there is something to fill it with, and no larger batch for what could wait."""
    for taken in life.taken:
        formed, costs = taken.formed, taken.engine.costs
        assert len(formed.batch) <= formed.bucket <= costs.largest
        alive = [[item for item in lane if item.deadline_s > taken.now_s] for lane in taken.before]
        first = next((len(lane) for lane in alive if lane), 0)
        size = costs.first_batch(first)
        assert len(formed.batch) <= size
        if len(formed.batch) < size:
            assert not any(taken.after)


def what_cannot_be_in_time_takes_no_place(life: Life) -> None:
    """Unless nothing can: then it is tried, for the estimate may be wrong."""
    for taken in life.taken:
        alive = [[item for item in lane if item.deadline_s > taken.now_s] for lane in taken.before]
        first = next((len(lane) for lane in alive if lane), 0)
        if not first:
            continue
        done_s = taken.now_s + taken.engine.run_s(taken.engine.costs.first_batch(first))
        late = [item.deadline_s < done_s for item in taken.formed.batch]
        assert all(late) or not any(late)
        if any(late):
            assert all(item.deadline_s <= taken.now_s for item in taken.formed.expired)


def a_free_engine_runs_what_waits(life: Life) -> None:
    """A batch is empty only where nothing alive waited."""
    for taken in life.taken:
        alive = [item for lane in taken.before for item in lane if not item.gone]
        if any(item.deadline_s > taken.now_s for item in alive):
            assert taken.formed.batch


def the_queue_is_bounded(life: Life) -> None:
    """In items and in bytes, with room left for doors."""
    shares = {Priority.DOOR: 1.0, Priority.ENROLMENT: 0.75, Priority.REEMBEDDING: 0.5}
    bounds = life.scenario.bounds
    for asked in life.asked:
        share = shares[asked.call.priority]
        items = sum(map(len, asked.lanes)) + asked.call.items
        size = asked.waiting_bytes + asked.call.size_bytes
        fits = items <= int(bounds.items_max * share) and size <= int(bounds.bytes_max * share)
        reason = asked.refused.reason if asked.refused else ""
        assert fits == (reason != "QUEUE_FULL")


def the_door_is_shut_to_those_alone_who_would_be_late(life: Life) -> None:
    """As the batches would really go if nothing else came; and never by an engine with nothing to do."""
    for asked in life.asked:
        reason = asked.refused.reason if asked.refused else ""
        if reason == "QUEUE_FULL":
            continue
        idle = not any(asked.lanes) and asked.engine.busy_until_s is None
        allowed_s = asked.call.deadline_s - asked.now_s
        late_s = 1.15 * really_done_after_s(asked) - allowed_s
        assert reason in ("", "WOULD_BE_LATE")
        if idle:
            assert not reason
        elif abs(late_s) > TINY:
            assert (late_s > 0) == (reason == "WOULD_BE_LATE")


def really_done_after_s(asked: Asked) -> float:
    """When the last item of the call is done: batch by batch, with nobody late, nobody gone, nothing new."""
    lanes: Lanes[Crop] = batcher.empty_lanes()
    far_s = 1e6
    for lane in asked.lanes:
        lanes[lane[0].priority if lane else 0].extend(
            Crop(item.priority, item.deadline_s + far_s, item.arrival_s, item.size_bytes) for item in lane
        )
    call = asked.call
    mine = [
        Crop(call.priority, call.deadline_s + far_s, asked.now_s, call.size_bytes) for _ in range(call.items)
    ]
    own = lanes[call.priority]
    own.extend(mine)
    own.sort(key=lambda item: item.deadline_s)
    now_s = max(asked.now_s, asked.engine.busy_until_s or 0.0)
    while any(item in own for item in mine):
        formed = batcher.form_batch(lanes, asked.engine, now_s)
        now_s += asked.engine.run_s(formed.bucket)
    return now_s - asked.now_s


def who_is_refused_is_told_when_to_come_again(life: Life) -> None:
    for asked in life.asked:
        if asked.refused:
            assert asked.refused.retry_after_s is not None
            assert 0.01 <= asked.refused.retry_after_s <= 10


def lingering_is_short_and_pays(life: Life) -> None:
    """At most 2 ms after the first came, after a small batch only, and nobody is late for it."""
    for one in life.lingered:
        if one.for_s <= TINY:
            continue
        largest = one.engine.costs.largest
        assert one.last_items * 2 < largest
        assert len(one.waiting) < largest
        assert one.now_s + one.for_s <= min(item.arrival_s for item in one.waiting) + 0.002 + TINY
        run_s = one.engine.run_s(one.engine.costs.bucket_for(len(one.waiting) + 1))
        assert one.now_s + one.for_s + run_s <= min(item.deadline_s for item in one.waiting) + TINY
        apart = brute_force_s(one.engine.costs, len(one.waiting)) + brute_force_s(one.engine.costs, 1)
        together = brute_force_s(one.engine.costs, len(one.waiting) + 1)
        assert one.for_s <= (apart - together) * one.engine.pace + TINY


def brute_force_s(costs: Costs, items: int) -> float:
    """The least time for so many items: every multiset of buckets that holds them is tried."""
    return _cheapest_s(tuple((size, costs.seconds[size]) for size in costs.usable), items)


@cache
def _cheapest_s(table: tuple[tuple[int, float], ...], items: int) -> float:
    plans = (
        plan
        for count in range(1, items + 1)
        for plan in itertools.combinations_with_replacement(table, count)
        if sum(size for size, _ in plan) >= items
    )
    return min(sum(cost_s for _, cost_s in plan) for plan in plans)


LAWS = (
    every_item_ends_exactly_once,
    a_bad_item_fails_alone,
    the_dead_are_not_run,
    those_who_left_are_told_apart_from_those_who_were_late,
    doors_go_before_enrolment_before_reembedding,
    within_a_lane_the_earliest_deadline_goes_first,
    the_first_lane_decides_the_size_and_the_others_fill_it,
    what_cannot_be_in_time_takes_no_place,
    a_free_engine_runs_what_waits,
    the_queue_is_bounded,
    the_door_is_shut_to_those_alone_who_would_be_late,
    who_is_refused_is_told_when_to_come_again,
    lingering_is_short_and_pays,
)


# ---- worlds -----------------------------------------------------------------------------------------

cost_tables = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(
    lambda ms: {size: one / 1000 for size, one in zip(batch_costs.BUCKETS, ms, strict=False)}
)
steady_tables = st.builds(
    lambda fixed, each, count: {size: (fixed + each * size) / 1000 for size in batch_costs.BUCKETS[:count]},
    st.integers(0, 20),
    st.integers(1, 10),
    st.integers(1, 4),
)
calls = st.builds(
    Call,
    at_s=st.integers(0, 100).map(lambda ms: ms / 1000),
    priority=st.sampled_from(Priority),
    allowed_s=st.sampled_from([0.004, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0]),
    size_bytes=st.sampled_from([10, 100]),
    poisoned=st.lists(st.booleans(), min_size=1, max_size=5).map(tuple)
    | st.integers(0, 8).map(lambda good: (False,) * good + (True,))
    | st.integers(1, 8).map(lambda count: (False,) * count),
    leaves_s=st.none() | st.integers(0, 60).map(lambda ms: ms / 1000),
)
scenarios = st.builds(
    Scenario,
    seconds=cost_tables | steady_tables,
    bounds=st.builds(Bounds, st.integers(10, 24), st.integers(500, 2400)),
    calls=st.lists(calls, min_size=1, max_size=16).map(
        lambda some: tuple(sorted(some, key=lambda one: one.at_s))
    ),
    hiccups=st.lists(st.sampled_from([1.0, 1.0, 0.7, 1.3, 4.0]), min_size=1, max_size=4).map(tuple),
)
