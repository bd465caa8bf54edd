"""What it costs to ask whose member somebody is, and to become one: `./daogou bench members [--quick]`.

Asking is `BatchResolveBindings` of 1,000 over gRPC, as commission calls it: the service as it runs anywhere,
its whole chain included, in a process of its own. Its floor is one `find` of the same 1,000 members' whole
documents by id, through the same driver with the same options, in a process that does nothing else. Both are
taken by the clock, one batch after the other: ours with all that a call takes, the floor with no call at all.
Scanning is `ScanGuideCode`, `CONCURRENCY` at a time. Its floor is a bare gRPC call that finds one document by
its id and updates it, at the same concurrency and write concern. Requests are made before the clock runs, and
replies read after it.

`known at`: with an explicit known_at_time, as commission asks. `before`: as of a moment before the binding,
so that what stands is no answer and the member's rows are read.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import grpc
import orjson
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.measure import GateFailed, Spread, cpu_s, gate, machine, print_result
from bench.members_data import NEW_FROM, BenchBrand, bound_time, moment, phone
from bench.members_floor import SERVICE as FLOOR
from bench.members_stack import Code, Running, brand_with_codes, load_members, running
from chassis.clock import Clock
from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1 import binding_pb2, guide_code_pb2

BATCH: Final = 1000
CONCURRENCY: Final = 32
_ASK: Final = "/daogou.members.v1.BindingService/BatchResolveBindings"
_SCAN: Final = "/daogou.members.v1.GuideCodeService/ScanGuideCode"
_KNOWN_AT_AGE: Final = timedelta(seconds=6)

T = TypeVar("T")
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass(frozen=True)
class Size:
    """How much is loaded, and measured in a round: batches of `BATCH` questions, and scans."""

    members: int
    rounds: int
    batches: int
    scans: int


FULL: Final = Size(members=1_000_000, rounds=15, batches=20, scans=1000)
QUICK: Final = Size(members=100_000, rounds=5, batches=5, scans=250)


@dataclass(frozen=True, slots=True)
class Round:
    """What was done, in what time, and what it took of the process that answered and of MongoDB."""

    count: int
    seconds: float
    server_s: float
    mongo_s: float


@dataclass(frozen=True)
class Claim:
    """A line of the table. `key`: of its figure on the last line; empty: the table alone shows it."""

    says: str
    floor: str = ""
    key: str = ""
    items: int = 1
    """Of a call."""


@dataclass(frozen=True)
class Asking(Claim):
    """Questions of one kind. `known`: with an explicit known_at_time, as commission asks.

    `before`: as of a moment before the binding, so that what stands now is no answer.
    """

    items: int = BATCH
    by_identity: bool = False
    known: bool = False
    before: bool = False

    def query(self, member_id: str, number: int, as_of: datetime, now: datetime) -> binding_pb2.BindingQuery:
        """A question about a member."""
        if self.before:
            as_of = bound_time(number) - timedelta(days=1)
        query = binding_pb2.BindingQuery(as_of_time=to_timestamp(as_of))
        if self.by_identity:
            query.identity.CopyFrom(phone(number))
        else:
            query.member_id = member_id
        if self.known:
            query.known_at_time.CopyFrom(to_timestamp(now - _KNOWN_AT_AGE))
        return query


FIND: Final = Claim("floor: find by id", items=BATCH)
BARE: Final = Claim("floor: find, update")
ASKINGS: Final = (
    Asking("by member id", FIND.says, "members.resolve_by_id.vs_floor"),
    Asking("by identity", FIND.says, "members.resolve_by_identity.vs_floor", by_identity=True),
    Asking("by member id, known at", FIND.says, known=True),
    Asking("by identity, known at", FIND.says, by_identity=True, known=True),
    Asking("by member id, before", FIND.says, before=True),
)
FIRST: Final = Claim("first scan", BARE.says, "members.scan.vs_floor")
AGAIN: Final = Claim("repeated scan", BARE.says, "members.rescan.vs_floor")
CLAIMS: Final = (FIND, *ASKINGS, BARE, FIRST, AGAIN)


class Bench:
    """Measures rounds of everything, and keeps them by what they say."""

    def __init__(self, around: Running, brand: BenchBrand, codes: Sequence[Code], size: Size) -> None:
        self._around = around
        self._brand = brand
        self._codes = codes
        self._size = size
        self._draw = random.Random(1)  # noqa: S311 -- the same members in every run
        self._new = itertools.count(NEW_FROM)
        self._scanned = range(NEW_FROM, NEW_FROM)
        trace = ("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")
        self._headers = {
            role: (("authorization", f"Bearer {around.token(role, brand_id)}"), trace)
            for role, brand_id in (("SERVICE", ""), ("CONNECTOR", brand.brand_id))
        }
        # Bytes as they are: the client is to be light.
        self._ask: Call = around.service.unary_unary(_ASK)
        self._scan: Call = around.service.unary_unary(_SCAN)
        self._floor_ask: Call = around.floor.unary_unary(f"/{FLOOR}/Ask")
        self._floor_scan: Call = around.floor.unary_unary(f"/{FLOOR}/Scan")
        self.rounds: dict[str, list[Round]] = {claim.says: [] for claim in CLAIMS}

    async def round(self, number: int) -> None:
        """One round of each. Raises: GateFailed."""
        await self._asked(number)
        await self._scans(number)

    async def _timed(self, claim: Claim, count: int, work: Awaitable[float]) -> None:
        """Keeps a round. `work` returns the seconds that it took."""
        pids = self._around.pids(of_floor=not claim.floor)
        before_s = [cpu_s(pid) for pid in pids]
        seconds = await work
        spent_s = [cpu_s(pid) - before for pid, before in zip(pids, before_s, strict=True)]
        self.rounds[claim.says].append(Round(count, seconds, *spent_s))

    # ---- asking ----------------------------------------------------------------------------------------

    async def _asked(self, round_number: int) -> None:
        """The same members in every kind of question, and in the floor; which goes first changes."""
        count = self._size.batches * BATCH
        numbers = self._draw.sample(range(self._size.members), count)
        members = [(self._brand.member_id(number), number) for number in numbers]
        claims: tuple[Claim, ...] = (FIND, *ASKINGS)
        for place in range(len(claims)):
            claim = claims[(round_number + place) % len(claims)]
            if isinstance(claim, Asking):
                await self._ask_service(claim, members)
            else:
                await self._ask_floor(members)

    async def _ask_floor(self, members: Sequence[tuple[str, int]]) -> None:
        ids = [f"{self._brand.brand_id}|{member_id}" for member_id, _ in members]
        request = orjson.dumps(list(_batches(ids)))

        async def work() -> float:
            seconds, found = orjson.loads(await self._floor_ask(request))
            gate(set(found) == {BATCH}, f"the floor must find {BATCH} documents at a time, not {found}")
            return float(seconds)

        await self._timed(FIND, len(members), work())

    async def _ask_service(self, claim: Asking, members: Sequence[tuple[str, int]]) -> None:
        now, brand_id = Clock().now(), self._brand.brand_id
        queries = [
            claim.query(member_id, number, moment(number, now, self._draw), now)
            for member_id, number in members
        ]
        requests = [
            binding_pb2.BatchResolveBindingsRequest(brand_id=brand_id, queries=batch).SerializeToString()
            for batch in _batches(queries)
        ]
        replies = await self._called(claim, self._ask, requests, "SERVICE", 1)
        answers = [
            (one.member_id, one.binding_id, one.guide_id, one.store_id)
            for reply in replies
            for one in binding_pb2.BatchResolveBindingsResponse.FromString(reply).resolved
        ]
        wanted = [
            (member_id, "", "", "")
            if claim.before
            else (member_id, f"{member_id}.1", *self._brand.guide_of(number))
            for member_id, number in members
        ]
        gate(answers == wanted, f"{claim.says}: every answer must be the guide who had the member")

    # ---- scanning --------------------------------------------------------------------------------------

    async def _scans(self, round_number: int) -> None:
        """New customers scan, and scan again; before, between or after it the floor."""
        numbers = list(itertools.islice(self._new, self._size.scans))
        self._scanned = range(NEW_FROM, numbers[-1] + 1)
        requests = [
            guide_code_pb2.ScanGuideCodeRequest(
                brand_id=self._brand.brand_id, code=self._code(number).text, identity=phone(number)
            ).SerializeToString()
            for number in numbers
        ]
        first: list[bytes] = []
        again: list[bytes] = []
        claims = [FIRST, AGAIN]
        claims.insert(round_number % 3, BARE)
        for claim in claims:
            if claim is BARE:
                await self._scan_floor()
            else:
                replies = first if claim is FIRST else again
                replies += await self._called(claim, self._scan, requests, "CONNECTOR", CONCURRENCY)
        self._check_replies(numbers, first, again)

    async def _scan_floor(self) -> None:
        numbers = self._draw.sample(range(self._size.members), self._size.scans)
        requests = [
            guide_code_pb2.ScanGuideCodeRequest(
                brand_id=self._brand.brand_id,
                code=self._codes[0].text,
                identity=Identity(value=self._brand.member_id(number)),
            ).SerializeToString()
            for number in numbers
        ]
        replies = await self._called(BARE, self._floor_scan, requests, "CONNECTOR", CONCURRENCY)
        for number, reply in zip(numbers, replies, strict=True):
            read = guide_code_pb2.ScanGuideCodeResponse.FromString(reply)
            gate(read.binding.guide_id == self._brand.guide_of(number)[0], "the floor must find the member")

    async def _called(
        self, claim: Claim, call: Call, requests: Sequence[bytes], role: str, at_once: int
    ) -> list[bytes]:
        """Keeps a round of these calls, some `at_once`, and returns their replies."""
        metadata = self._headers[role]
        replies = [b""] * len(requests)
        places = iter(range(len(requests)))

        async def caller() -> None:
            for place in places:
                replies[place] = await call(requests[place], metadata=metadata)

        async def work() -> float:
            began_s = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(at_once)))
            return time.perf_counter() - began_s

        await self._timed(claim, len(requests) * claim.items, work())
        return replies

    def _code(self, number: int) -> Code:
        """The code that a customer scans."""
        return self._codes[number % len(self._codes)]

    def _check_replies(self, numbers: Sequence[int], first: Sequence[bytes], again: Sequence[bytes]) -> None:
        for number, *replies in zip(numbers, first, again, strict=True):
            bound, repeated = map(guide_code_pb2.ScanGuideCodeResponse.FromString, replies)
            guide_id = self._code(number).guide_id
            gate(
                bound.outcome == guide_code_pb2.SCAN_OUTCOME_BOUND and bound.binding.guide_id == guide_id,
                f"whoever scans first must be bound to the code's guide, not {bound}",
            )
            gate(
                repeated.outcome == guide_code_pb2.SCAN_OUTCOME_ALREADY_BOUND
                and repeated.binding == bound.binding,
                f"whoever scans again must get his binding back, not {repeated}",
            )

    async def check_database(self) -> None:
        """Every customer who scanned is one member with one standing binding. Raises: GateFailed."""
        database, scanned = self._around.database, self._scanned
        wanted = self._size.members + len(scanned)
        for collection in ("members", "identities"):
            count = await database[collection].estimated_document_count()
            gate(count == wanted, f"there must be {wanted} {collection}, not {count}")
        numbers = {}
        for number in scanned:
            index = self._brand.sealer.index(self._brand.brand_id, phone(number))
            numbers[f"{self._brand.brand_id}|{index}"] = number
        async for link in database["identities"].find({"_id": {"$in": list(numbers)}}):
            number = numbers.pop(link["_id"])
            member = await database["members"].find_one({"_id": f"{link['brand_id']}|{link['member_id']}"})
            rows = member["rows"] if member else []
            gate(
                [row["guide_id"] for row in rows] == [self._code(number).guide_id]
                and rows[0]["superseded_time"] is None
                and rows[0]["valid_to_time"] is None,
                f"customer {number} must have one binding, which stands, not {rows}",
            )
        gate(not numbers, f"{len(numbers)} customers must be linked")


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


# ---- the claims ------------------------------------------------------------------------------------


async def measure(size: Size) -> dict[str, list[Round]]:
    """The rounds of everything. Raises: GateFailed."""
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="daogou-bench-members-") as folder,
        Progress(console=console) as bar,
    ):
        async with running(Path(folder)) as around:
            try:
                brand, codes = await brand_with_codes(around)
                loading = bar.add_task("loading", total=size.members)
                await load_members(around, brand, size.members, lambda count: bar.advance(loading, count))
                bench = Bench(around, brand, codes, size)
                for number in bar.track(range(size.rounds + 1), description="measuring"):
                    await bench.round(number)
                await bench.check_database()
            except grpc.aio.AioRpcError as error:
                raise GateFailed(f"{error.code().name}: {error.details()}") from error
    # The first round warmed up.
    return {says: rounds[1:] for says, rounds in bench.rounds.items()}


def show(rounds: dict[str, list[Round]], size: Size) -> None:
    """The table, the machine, and the last line."""
    table = Table(
        title=f"{size.members:,} members; questions {BATCH:,} a call, scans {CONCURRENCY} at a time: "
        f"medians of {size.rounds} rounds (least–greatest)"
    )
    table.add_column("")
    for heading in ("a second", "CPU µs each", "of MongoDB", "ours ÷ it"):
        table.add_column(heading, justify="right")
    figures = {}
    for claim in CLAIMS:
        mine = rounds[claim.says]
        row = [
            f"{Spread.of(each.count / each.seconds for each in mine).median:,.0f}",
            f"{Spread.of(each.server_s / each.count * 1e6 for each in mine).median:.1f}",
            f"{Spread.of(each.mongo_s / each.count * 1e6 for each in mine).median:.1f}",
        ]
        if claim.floor:
            pairs = zip(rounds[claim.floor], mine, strict=True)
            ratio = Spread.of(
                floor.seconds / floor.count / (each.seconds / each.count) for floor, each in pairs
            )
            row.append(f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.greatest:.2f})")
            if claim.key:
                figures[claim.key] = ratio.median
        table.add_row(claim.says, *row)
    Console().print(table)
    print(machine("grpcio", "motor", "pymongo", "uvloop"))
    print_result(figures)


def main() -> int:
    """0 when the gates passed, and then the figures stand on the last line; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="./daogou bench members", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in under 45 s")
    size = QUICK if parser.parse_args().quick else FULL
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rounds = runner.run(measure(size))
    except GateFailed as failed:
        print(f"bench members: {failed}", file=sys.stderr)
        return 1
    show(rounds, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
