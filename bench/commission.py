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
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import uvloop
from rich.console import Console
from rich.progress import Progress

from bench import commission_books, commission_close, commission_orders
from bench.commission_claims import CLAIMS, FULL, QUICK, SOAK_LARGE, Round, Size, show
from bench.commission_data import EVENTS_OF_CALL, Reported, Sales
from bench.commission_stack import (
    CLOSE,
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
from bench.measure import GateFailed, gate
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
        self.closes_s = (0.0, 0.0)
        """The close of a month, and its floor."""

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
        await self._close()

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

    # ---- the close of a month --------------------------------------------------------------------------

    async def _close(self) -> None:
        """Closes a month of many entries, once."""
        closed = await commission_close.opened_month(self._around, self._size.payees, self._size.entries)
        loading = self._bar.add_task("entries", total=closed.entries)
        uri, name = self._around.stack.mongo.uri, self._around.database_name(CLOSE)
        written = commission_close.load(closed, uri, name)
        while piece := await asyncio.to_thread(next, written, 0):
            self._bar.advance(loading, piece)
        self.closes_s = await commission_close.measured(self._around, closed)


# ---- the claims ------------------------------------------------------------------------------------


async def measure(size: Size) -> Bench:
    """Everything, measured. Raises: GateFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="daogou-bench-commission-") as folder,
        Progress(console=Console(stderr=True)) as bar,
    ):
        async with running(Path(folder), size.lease_s) as around:
            try:
                bench = Bench(around, await sales_of_a_brand(around, size.members), size, bar)
                await bench.all_rounds()
            except grpc.aio.AioRpcError as error:
                raise GateFailed(f"{error.code().name}: {error.details()}") from error
            return bench


def main() -> int:
    """0 when the gates passed, and then the figures stand on the last line; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="./daogou bench commission", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in under 45 s")
    parser.add_argument("--soak", action="store_true", help=f"flatness up to {SOAK_LARGE:,} orders")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else replace(FULL, large=SOAK_LARGE) if arguments.soak else FULL
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bench = runner.run(measure(size))
    except GateFailed as failed:
        print(f"bench commission: {failed}", file=sys.stderr)
        return 1
    show(bench.rounds, bench.closes_s, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
