"""Loads a business of real size into running services: `./daogou import-pilot`.

305 brands, 25,649 stores, 71,388 guides and, unless told otherwise, 1,000,000 members with their bindings.
All of it follows from its place in the list, so a run that was cut off is completed by the next and nothing
is doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from chassis.rpc import client
from chassis.times import to_timestamp
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import directory_pb2, member_import_pb2
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from daogou.members.v1.member_import_pb2 import ImportedMember, ImportOutcome
from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceStub
from local import token
from local.keys import LocalKeys
from local.services import SERVICES
from local.stack import ROOT

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub
    from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceAsyncStub

BRANDS: Final = 305
STORES: Final = 25_649
GUIDES: Final = 71_388
MEMBERS: Final = 1_000_000
BATCH: Final = 1000
IN_FLIGHT: Final = 4
CALL_TIMEOUT_S: Final = 60.0
SINCE: Final = datetime(2025, 1, 1, tzinfo=UTC)

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Size:
    """How much to load."""

    brands: int = BRANDS
    stores: int = STORES
    guides: int = GUIDES
    members: int = MEMBERS


@dataclass
class Loaded:
    """What was loaded, and in what time."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def share(whole: int, parts: int, place: int) -> int:
    """The size of one of `parts` even parts of `whole`; the first ones take the rest."""
    return whole // parts + (place < whole % parts)


def chunks(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """The items by batches, numbered."""
    for number, start in enumerate(range(0, len(items), BATCH)):
        yield number, items[start : start + BATCH]


async def at_once(work: Iterator[Coroutine[None, None, None]]) -> None:
    """Does all of the work, a few pieces at a time."""

    async def one_after_the_other() -> None:
        for piece in work:
            await piece

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(one_after_the_other())


class Pilot:
    """Loads one business through the public API."""

    def __init__(self, channel: grpc.aio.Channel, size: Size, progress: Progress) -> None:
        self._directory: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
        self._imports: MemberImportServiceAsyncStub = MemberImportServiceStub(channel)
        self._size = size
        self._progress = progress
        self._brands: dict[int, str] = {}
        self._stores: dict[int, list[str]] = {}
        self._guides: dict[int, list[str]] = {}
        self.loaded = Loaded()

    async def load(self) -> Loaded:
        """Loads all of it, in the order in which one needs the other."""
        places = range(self._size.brands)
        await self._stage("brands", self._size.brands, (self._brand(place) for place in places))
        await self._stage("stores", self._size.stores, (self._stores_of(place) for place in places))
        await self._stage("guides", self._size.guides, (self._guides_of(place) for place in places))
        await self._stage("members", self._size.members, self._member_batches())
        return self.loaded

    async def _stage(self, name: str, total: int, work: Iterator[Coroutine[None, None, None]]) -> None:
        self._task: TaskID = self._progress.add_task(name, total=total)
        begun_s = time.monotonic()
        await at_once(work)
        self.loaded.seconds[name] = time.monotonic() - begun_s

    async def _brand(self, place: int) -> None:
        brand = directory_pb2.Brand(display_name=f"Pilot brand {place:03d}")
        request = directory_pb2.CreateBrandRequest(request_id=f"pilot-brand-{place:03d}", brand=brand)
        reply = await again(self._directory.CreateBrand, request)
        self._brands[place] = reply.brand.brand_id
        self._progress.advance(self._task)

    async def _stores_of(self, place: int) -> None:
        stores = [
            _store(place, number) for number in range(share(self._size.stores, self._size.brands, place))
        ]
        self._stores[place] = []
        for number, chunk in chunks(stores):
            request = directory_pb2.BatchCreateStoresRequest(
                brand_id=self._brands[place], request_id=f"pilot-stores-{number:03d}", stores=chunk
            )
            reply = await again(self._directory.BatchCreateStores, request)
            self._refused(result.error.message for result in reply.results if result.HasField("error"))
            self._stores[place] += [result.store.store_id for result in reply.results]
            self._progress.advance(self._task, len(chunk))

    async def _guides_of(self, place: int) -> None:
        stores = self._stores[place]
        guides = [
            directory_pb2.Guide(
                store_id=stores[number % len(stores)], display_name=f"Guide {place:03d}-{number:05d}"
            )
            for number in range(share(self._size.guides, self._size.brands, place))
        ]
        self._guides[place] = []
        for number, chunk in chunks(guides):
            request = directory_pb2.BatchCreateGuidesRequest(
                brand_id=self._brands[place], request_id=f"pilot-guides-{number:03d}", guides=chunk
            )
            reply = await again(self._directory.BatchCreateGuides, request)
            self._refused(result.error.message for result in reply.results if result.HasField("error"))
            self._guides[place] += [result.guide.guide_id for result in reply.results]
            self._progress.advance(self._task, len(chunk))

    def _member_batches(self) -> Iterator[Coroutine[None, None, None]]:
        first = 0
        for place in range(self._size.brands):
            last = first + share(self._size.members, self._size.brands, place)
            for start in range(first, last, BATCH):
                yield self._members(place, range(start, min(start + BATCH, last)))
            first = last

    async def _members(self, place: int, numbers: range) -> None:
        guides = self._guides[place]
        members = [_member(number, guides[number % len(guides)]) for number in numbers]
        request = member_import_pb2.ImportMembersRequest(brand_id=self._brands[place], members=members)
        reply = await again(self._imports.ImportMembers, request)
        for result in reply.results:
            self.loaded.outcomes[ImportOutcome.Name(result.outcome).removeprefix("IMPORT_OUTCOME_")] += 1
        self._refused(result.error.message for result in reply.results if result.HasField("error"))
        self._progress.advance(self._task, len(numbers))

    def _refused(self, messages: Iterator[str]) -> None:
        self.loaded.refused += messages


async def again(method: Callable[..., Awaitable[R]], request: Message) -> R:
    """The reply; asks again for a minute while the service is away. Everything here may be sent twice."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return await method(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.5)


def _store(place: int, number: int) -> directory_pb2.Store:
    point = GeoPoint(latitude=22.5 + (place % 17), longitude=103.5 + (number % 17), datum=Datum.DATUM_GCJ02)
    return directory_pb2.Store(
        display_name=f"Store {place:03d}-{number:04d}",
        kind=directory_pb2.STORE_KIND_PHYSICAL,
        location=point,
    )


def _member(number: int, guide_id: str) -> ImportedMember:
    phone = Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value=f"+8615{number:09d}")
    since = SINCE + timedelta(minutes=number % 400_000)
    return ImportedMember(identities=[phone], guide_id=guide_id, bound_time=to_timestamp(since))


async def run(target: str, keys: LocalKeys, size: Size, console: Console) -> int:
    """Loads and tells. Returns the exit status: 0 when nothing was refused."""
    operator = token.mint(keys, "PLATFORM")
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        channel = client.connect(target, lambda: operator)
        try:
            loaded = await Pilot(channel, size, progress).load()
        finally:
            await channel.close()
    for name, seconds in loaded.seconds.items():
        rate = getattr(size, name) / max(seconds, 1e-3)
        console.print(f"{name:<8} {getattr(size, name):>9,}  {seconds:7.1f} s  {rate:9,.0f} a second")
    console.print(f"new {loaded.outcomes['IMPORTED']:,}, there already {loaded.outcomes['KNOWN']:,}")
    for message in sorted(set(loaded.refused))[:20]:
        console.print(f"refused: {message}", style="red")
    return 1 if loaded.refused else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    documented = next(spec.ports.grpc for spec in SERVICES if spec.name == "members")
    parser = argparse.ArgumentParser(
        prog="./daogou import-pilot", description="Load a business of real size into what ./daogou up runs."
    )
    parser.add_argument("--target", default=f"127.0.0.1:{documented}", help="the members service")
    parser.add_argument("--members", type=int, default=MEMBERS, help=f"how many (default {MEMBERS:,})")
    given = parser.parse_args(arguments)
    keys = LocalKeys.made(Path(ROOT / ".daogou" / "up" / "keys"))
    try:
        return asyncio.run(run(given.target, keys, Size(members=given.members), Console(highlight=False)))
    except* grpc.aio.AioRpcError as group:
        for error in group.exceptions:
            print(f"import-pilot: {given.target}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
