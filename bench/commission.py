"""What it costs to know what is owed: `./daogou bench commission [--quick] [--soak]`.

Events are taken in by the service as it runs anywhere, its whole chain included, in a process of its own,
asking a members service over gRPC whose each buyer was. What it is held against, round by round on the same
events: the very commands that the service sent to MongoDB, recorded a moment before, sent again through the
same driver by a process that does nothing else; the documents that come of them, only inserted; and the peer,
a transaction of the database for every event. All have databases of their own on one MongoDB.

Flatness: the same events on top of two numbers of orders. Before any speed is told, every event must have
been applied, the journal must sum to zero and to what all orders come to when they are made anew, and to send
everything again must change nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import commission_books, commission_orders
from bench.commission_data import EVENTS_OF_CALL, EVENTS_OF_ORDER, Reported, Sales
from bench.commission_stack import (
    INSERTED,
    LARGE,
    NAIVE,
    OURS,
    RECORDER,
    REPLAYED,
    SMALL,
    Running,
    running,
    sales_of_a_brand,
)
from bench.measure import GateFailed, Spread, gate, machine, print_result
from chassis.clock import Clock
from daogou.commission.v1.order_event_pb2 import EventOutcome

APPLIED: Final = EventOutcome.EVENT_OUTCOME_APPLIED
DUPLICATE: Final = EventOutcome.EVENT_OUTCOME_DUPLICATE
_INGEST: Final = "/daogou.commission.v1.OrderEventService/IngestOrderEvents"
_ELSEWHERE: Final = 100_000_000
"""Numbers from here on are of orders that come on top of few or of many."""
_AGAIN: Final = 20
_SETTLED_S_MAX: Final = 120.0
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass(frozen=True)
class Size:
    """How much is taken in, in calls of `EVENTS_OF_CALL`, and in how many rounds."""

    members: int
    rounds: int
    calls: int
    """Of a round."""
    trial_calls: int
    """With each number of calls at once."""
    at_once: tuple[int, ...]
    """Calls at a time; the best of these is measured."""
    naive_events: int
    """Of a round."""
    naive_at_once: tuple[int, ...]
    small: int
    large: int
    """Orders that are there already, to compare the cost of one more."""
    flat_rounds: int
    flat_calls: int
    """Of a round."""


FULL: Final = Size(
    members=20_000,
    rounds=10,
    calls=20,
    trial_calls=8,
    at_once=(1, 2, 4, 8),
    naive_events=500,
    naive_at_once=(1, 4, 8, 16),
    small=10_000,
    large=100_000,
    flat_rounds=9,
    flat_calls=4,
)
QUICK: Final = Size(
    members=4000,
    rounds=3,
    calls=4,
    trial_calls=3,
    at_once=(2, 4),
    naive_events=100,
    naive_at_once=(4, 8),
    small=1000,
    large=10_000,
    flat_rounds=3,
    flat_calls=2,
)
SOAK_LARGE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """What was done, in what time, and what it took of the process that did it and of MongoDB."""

    count: int
    seconds: float
    process_s: float
    mongo_s: float

    @property
    def each_s(self) -> float:
        """Time for one."""
        return self.seconds / self.count


@dataclass(frozen=True)
class Claim:
    """A line of the table, and which other line it is divided by. `key`: of its figure on the last line."""

    says: str
    of: str
    than: str = ""
    key: str = ""
    by_time: bool = False
    """The ratio is of times, so that less is better; else of rates."""


INGEST: Final = Claim("ingest", OURS, REPLAYED, "commission.ingest.vs_floor")
CLAIMS: Final = (
    INGEST,
    Claim("floor: the same commands", REPLAYED),
    Claim("raw: insert_many of the documents", INSERTED),
    Claim("peer: a transaction an event", NAIVE),
    Claim("ingest, ÷ peer", OURS, NAIVE, "commission.ingest.vs_naive"),
    Claim("ingest, few orders there", SMALL),
    Claim("ingest, many orders there", LARGE, SMALL, "commission.flatness", by_time=True),
)


class Bench:
    """Measures rounds of everything, and keeps them by who did it."""

    def __init__(self, around: Running, sales: Sales, size: Size, bar: Progress) -> None:
        self._around = around
        self._sales = sales
        self._size = size
        self._bar = bar
        self._sold = sales.calls(0)
        self._sold_elsewhere = sales.calls(_ELSEWHERE)
        self._sent: list[Reported] = []
        self._documents = around.folder / "documents.bson"
        self._since = sales.since
        self._at_once = size.at_once[-1]
        self._naive_at_once = size.naive_at_once[-1]
        self._headers = (("authorization", f"Bearer {around.token('CONNECTOR', sales.brand.brand_id)}"),)
        self._calls: dict[str, Call] = {
            service: around.channel(service).unary_unary(_INGEST)
            for service in (OURS, RECORDER, SMALL, LARGE)
        }
        self.rounds: dict[str, list[Round]] = {claim.of: [] for claim in CLAIMS}

    @property
    def brand_id(self) -> str:
        """The brand that sells."""
        return self._sales.brand.brand_id

    async def all_rounds(self) -> None:
        """Everything. Raises: GateFailed."""
        await self._trials()
        for number in self._bar.track(range(self._size.rounds), description="ingest"):
            await self._round(number)
        orders = len({key for call in self._sent for key in call.keys})
        database = self._around.database(OURS)
        before = await commission_books.check_books(database, self.brand_id, orders)
        await self._nothing_doubles()
        after = await commission_books.check_books(database, self.brand_id, orders)
        gate(before == after, "to send everything again must change no balance")
        await self._flatness()

    # ---- taking in -------------------------------------------------------------------------------------

    async def _ingested(
        self,
        service: str,
        calls: Sequence[Reported],
        *,
        at_once: int = 0,
        wanted: EventOutcome.ValueType = APPLIED,
    ) -> float:
        """Has a service take these calls in; the seconds that took."""
        waiting = iter(calls)
        replies: list[bytes] = []

        async def caller() -> None:
            for call in waiting:
                replies.append(await self._calls[service](call.request, metadata=self._headers))  # noqa: PERF401

        began_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(at_once or self._at_once)))
        seconds = time.perf_counter() - began_s
        if service == OURS and wanted == APPLIED:
            self._sent += calls
        commission_books.check_outcomes(replies, len(calls) * EVENTS_OF_CALL, wanted)
        return seconds

    async def _settled(self, service: str) -> None:
        """Waits until a service has tried to tell of all purchases: it would slow the next one down."""
        orders = self._around.database(service)["orders"]
        untold = {"outbox.due_time": {"$exists": True}, "outbox.attempts": 0}
        deadline_s = time.monotonic() + _SETTLED_S_MAX
        while await orders.find_one(untold, {"_id": 1}):
            gate(time.monotonic() < deadline_s, f"{service} must tell members of all purchases")
            await asyncio.sleep(0.1)

    async def _timed(self, of: str, count: int, work: Awaitable[float]) -> None:
        """Keeps a round. `work` returns the seconds that it took."""
        before = self._around.cpu_s(of)
        seconds = await work
        spent = [now - was for now, was in zip(self._around.cpu_s(of), before, strict=True)]
        self.rounds[of].append(Round(count, seconds, *spent))

    async def _trials(self) -> None:
        """Finds how many calls at a time are best, and how many transactions for the peer."""
        seconds = {}
        for at_once in self._size.at_once:
            calls = list(itertools.islice(self._sold, self._size.trial_calls))
            seconds[at_once] = await self._ingested(OURS, calls, at_once=at_once)
            await self._settled(OURS)
        self._at_once = min(seconds, key=lambda at_once: seconds[at_once])
        await self._replayed(await self._recorded(self._sent))
        naive = {}
        for number, at_once in enumerate(self._size.naive_at_once):
            events = self._size.naive_events
            naive[at_once] = await self._naive(number * events, events, at_once)
        self._naive_at_once = min(naive, key=lambda at_once: naive[at_once])

    # ---- one round of everything -----------------------------------------------------------------------

    async def _round(self, number: int) -> None:
        """Recorded first; then everybody in turn, and who begins changes."""
        calls = list(itertools.islice(self._sold, self._size.calls))
        recorded = await self._recorded(calls)
        count, naive_count = len(calls) * EVENTS_OF_CALL, self._size.naive_events
        turns: dict[str, tuple[int, Callable[[], Awaitable[float]]]] = {
            OURS: (count, lambda: self._ingested(OURS, calls)),
            REPLAYED: (count, lambda: self._replayed(recorded)),
            NAIVE: (naive_count, lambda: self._naive(0, naive_count, self._naive_at_once)),
            INSERTED: (count, self._inserted),
        }
        names = list(turns)
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            how_many, work = turns[name]
            await self._timed(name, how_many, work())
            if name == OURS:
                await self._settled(OURS)
        await self._same_documents()

    async def _recorded(self, calls: Sequence[Reported]) -> range:
        """Has these calls recorded, and what came of them written down; where the commands stand."""
        begin = self._around.commands_file.stat().st_size
        self._since = Clock().now()
        await self._ingested(RECORDER, calls)
        end = self._around.commands_file.stat().st_size
        await self._settled(RECORDER)
        keys = {key for call in calls for key in call.keys}
        database = self._around.database(RECORDER)
        await commission_orders.write_down(database, self.brand_id, keys, self._since, self._documents)
        return range(begin, end)

    async def _replayed(self, recorded: range) -> float:
        return float(
            await self._around.ask_floor(
                "Replay",
                database=self._around.database_name(REPLAYED),
                file=str(self._around.commands_file),
                begin=recorded.start,
                end=recorded.stop,
                at_once=self._at_once,
            )
        )

    async def _inserted(self) -> float:
        return float(
            await self._around.ask_floor(
                "Insert",
                database=self._around.database_name(INSERTED),
                file=str(self._documents),
                at_once=self._at_once,
            )
        )

    async def _naive(self, first: int, count: int, at_once: int) -> float:
        """Some of the events that are in the file of documents, in the order in which they happened."""
        return float(
            await self._around.ask_floor(
                "TakeIn",
                database=self._around.database_name(NAIVE),
                file=str(self._documents),
                since=self._since.timestamp(),
                first=first,
                count=count,
                at_once=at_once,
            )
        )

    async def _same_documents(self) -> None:
        """The floor must have written what was recorded. Raises: GateFailed."""
        for collection in ("orders", "journal"):
            counts = [
                await self._around.database(of)[collection].estimated_document_count()
                for of in (RECORDER, REPLAYED)
            ]
            gate(
                counts[0] == counts[1],
                f"there must be {counts[0]} documents in {collection}, not {counts[1]}",
            )

    async def _nothing_doubles(self) -> None:
        """Sends all that was sent to the service that was timed once more. Raises: GateFailed."""
        for start in self._bar.track(range(0, len(self._sent), _AGAIN), description="all again"):
            await self._ingested(OURS, self._sent[start : start + _AGAIN], wanted=DUPLICATE)

    # ---- on top of others ------------------------------------------------------------------------------

    async def _flatness(self) -> None:
        """The same events on top of few orders and of many, in turn."""
        uri = self._around.stack.mongo.uri
        sizes = {SMALL: self._size.small, LARGE: self._size.large}
        copying = self._bar.add_task("copying", total=sum(sizes.values()))
        for service, there in sizes.items():
            name = self._around.database_name(service)
            written = commission_orders.copy(self._documents, uri, name, there)
            while piece := await asyncio.to_thread(next, written, 0):
                self._bar.advance(copying, piece)
        for number in self._bar.track(range(self._size.flat_rounds + 1), description="flatness"):
            calls = list(itertools.islice(self._sold_elsewhere, self._size.flat_calls))
            for service in (SMALL, LARGE) if number % 2 else (LARGE, SMALL):
                await self._timed(service, len(calls) * EVENTS_OF_CALL, self._ingested(service, calls))
                await self._settled(service)
            if number == 0:
                # The first round warmed up.
                self.rounds[SMALL].clear()
                self.rounds[LARGE].clear()


# ---- the claims ------------------------------------------------------------------------------------


async def measure(size: Size) -> dict[str, list[Round]]:
    """The rounds of everything. Raises: GateFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="daogou-bench-commission-") as folder,
        Progress(console=Console(stderr=True)) as bar,
    ):
        async with running(Path(folder)) as around:
            try:
                bench = Bench(around, await sales_of_a_brand(around, size.members), size, bar)
                await bench.all_rounds()
            except grpc.aio.AioRpcError as error:
                raise GateFailed(f"{error.code().name}: {error.details()}") from error
            return bench.rounds


def show(rounds: dict[str, list[Round]], size: Size) -> None:
    """The table, the machine, and the last line."""
    events = size.rounds * size.calls * EVENTS_OF_CALL
    table = Table(
        title=f"{events:,} events of some {events // EVENTS_OF_ORDER:,} orders, {EVENTS_OF_CALL:,} a call: "
        f"medians of {size.rounds} rounds (least–greatest)"
    )
    table.add_column("")
    for heading in ("events a second", "CPU µs each", "of MongoDB", "ratio"):
        table.add_column(heading, justify="right")
    figures = {}
    for claim in CLAIMS:
        mine = rounds[claim.of]
        row = [
            f"{Spread.of(1 / each.each_s for each in mine).median:,.0f}",
            f"{Spread.of(each.process_s / each.count * 1e6 for each in mine).median:.0f}",
            f"{Spread.of(each.mongo_s / each.count * 1e6 for each in mine).median:.0f}",
        ]
        if claim.than:
            pairs = zip(mine, rounds[claim.than], strict=True)
            ratio = Spread.of(
                each.each_s / other.each_s if claim.by_time else other.each_s / each.each_s
                for each, other in pairs
            )
            row.append(f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.greatest:.2f})")
            figures[claim.key] = ratio.median
        table.add_row(claim.says, *row)
    Console().print(table)
    print(machine("grpcio", "motor", "pymongo", "uvloop"))
    print_result(figures)


def main() -> int:
    """0 when the gates passed, and then the figures stand on the last line; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="./daogou bench commission", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in under 45 s")
    parser.add_argument("--soak", action="store_true", help=f"flatness up to {SOAK_LARGE:,} orders")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else replace(FULL, large=SOAK_LARGE) if arguments.soak else FULL
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rounds = runner.run(measure(size))
    except GateFailed as failed:
        print(f"bench commission: {failed}", file=sys.stderr)
        return 1
    show(rounds, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
