"""The close of a month in `bench.commission`: statements for many payees from a month's entries.

The entries are written past the service, in the form of those that follow from orders, for a brand of its own
that has nothing else. The floor groups the same entries in the same way and inserts the same statements. What
a close waits for the leases of the month, a time that is set and not work, is in neither.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import grpc
from pymongo import MongoClient, WriteConcern

from bench.commission_stack import CLOSE, Running
from bench.measure import gate
from chassis.clock import Clock
from chassis.ids import derived_id
from chassis.mongo import schema
from chassis.mongo.connection import Document
from chassis.rpc import client
from daogou.commission.v1 import month_pb2
from daogou.commission.v1.month_pb2_grpc import MonthServiceStub
from daogou.common.v1.date_pb2 import Date
from daogou.members.v1 import directory_pb2
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from svc_commission.__main__ import SCHEMA
from svc_commission.order.documents import entry_documents, month_text
from svc_commission.order.store_order import order_key
from svc_commission.rules.attribution import Attribution, OwnerBasis, guide_payee
from svc_commission.rules.order import Account, Target
from svc_commission.rules.posting import PostingKind

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.month_pb2_grpc import MonthServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

_WRITERS: Final = 2
_PIECE: Final = 1000
_CHANNEL: Final = "TMALL"
_CLOSE_S_MAX: Final = 600.0


@dataclass(frozen=True)
class BenchMonth:
    """A month of a brand that is over and not closed."""

    brand_id: str
    month: date
    payees: int
    entries: int
    now: datetime

    def payee(self, number: int) -> str:
        """A guide."""
        return guide_payee(derived_id("guide", self.brand_id, str(number % self.payees)))

    def entry(self, number: int) -> Document:
        """What follows from an order of one line: commission for two guides, borne by the brand."""
        draw = random.Random(number)  # noqa: S311 -- the same entries in every run
        owner, serving = self.payee(number), self.payee(draw.randrange(self.payees))
        earned = {owner: draw.randrange(100, 5000), serving: draw.randrange(100, 2000)}
        amounts: dict[Target, int] = {}
        for payee, amount in earned.items():
            amounts[Target("1", Account.HELD, payee, self.month, PostingKind.EARNED)] = -amount
        amounts[Target("1", Account.EXPENSE, "", self.month, PostingKind.EARNED)] = sum(earned.values())
        key = order_key(self.brand_id, _CHANNEL, f"bench-{number:010d}")
        order = {"_id": key, "rev": 1, "brand_id": self.brand_id, "currency_code": "CNY"}
        sold = Attribution(
            member_id="",
            binding_id=f"{derived_id('member', self.brand_id, str(number))}.1",
            owner=owner,
            owner_basis=OwnerBasis.BINDING,
            selling_store_id="",
            owner_store_id="",
            flagship_store_id="",
            as_of_time=self.now,
            known_at_time=self.now,
            plan_id=derived_id("plan", self.brand_id, ""),
            time_zone="Asia/Shanghai",
        )
        (entry,) = entry_documents(order, sold, amounts, ["PAID:1"], self.now, None)
        return entry


async def opened_month(around: Running, payees: int, entries: int) -> BenchMonth:
    """A brand of its own, and the month that ended last. Its journal has no indexes yet."""
    channel = client.connect(around.stack.targets["members"], lambda: around.token("PLATFORM"))
    directory: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
    made = await directory.CreateBrand(
        directory_pb2.CreateBrandRequest(
            request_id="bench-close", brand=directory_pb2.Brand(display_name="Bench close")
        )
    )
    await channel.close()
    now = Clock().now()
    this_month = now.astimezone(ZoneInfo(made.brand.business_time_zone)).date().replace(day=1)
    month = (this_month - timedelta(days=1)).replace(day=1)
    await around.database(CLOSE)["journal"].drop_indexes()
    return BenchMonth(made.brand.brand_id, month, payees, entries, now)


def load(closed: BenchMonth, uri: str, database: str) -> Iterator[int]:
    """Writes the month's entries; yields how many with every piece that is written."""
    # Not forked: gRPC's threads would not be there.
    spawning = multiprocessing.get_context("spawn")
    pieces = [
        range(start, min(start + 10 * _PIECE, closed.entries))
        for start in range(0, closed.entries, 10 * _PIECE)
    ]
    with ProcessPoolExecutor(_WRITERS, mp_context=spawning) as writers:
        for written in as_completed(writers.submit(_load, closed, uri, database, piece) for piece in pieces):
            yield written.result()


def _load(closed: BenchMonth, uri: str, database: str, numbers: range) -> int:
    with MongoClient[dict[str, Any]](uri) as opened:
        journal = opened.get_database(database, write_concern=WriteConcern(w=1))["journal"]
        for start in range(0, len(numbers), _PIECE):
            journal.insert_many(
                [closed.entry(number) for number in numbers[start : start + _PIECE]], ordered=False
            )
    return len(numbers)


async def measured(around: Running, closed: BenchMonth) -> tuple[float, float]:
    """Seconds of the close, which goes first, and of its floor. Each once, as a month is closed once.

    Raises: GateFailed.
    """
    database = around.database(CLOSE)
    await schema.migrate(database, SCHEMA)
    loaded = await database["journal"].count_documents({"brand_id": closed.brand_id})
    gate(loaded == closed.entries, f"{closed.entries} entries must be there, not {loaded}")
    about = {
        "database": around.database_name(CLOSE),
        "brand_id": closed.brand_id,
        "month": month_text(closed.month),
    }
    ours_s, report = await _closed(around, closed)
    floor_s = float(await around.ask_floor("State", **about))
    gate(report.entry_count == closed.entries, f"the close must count all entries, not {report.entry_count}")
    gate(report.statement_count == closed.payees, f"everybody must have a statement: {report}")
    gate(report.closing_minor == report.earned_minor > 0, f"what was earned must be owed: {report}")
    return ours_s, floor_s


async def _closed(around: Running, closed: BenchMonth) -> tuple[float, month_pb2.MonthReport]:
    """Closes the month; the seconds that took once the leases had run out, and the report."""
    channel = client.connect(
        around.stack.targets[CLOSE], lambda: around.token("BRAND_ADMIN", closed.brand_id)
    )
    months: MonthServiceAsyncStub = MonthServiceStub(channel)
    request = month_pb2.CloseMonthRequest(
        brand_id=closed.brand_id, month=Date(year=closed.month.year, month=closed.month.month)
    )
    call: grpc.aio.UnaryStreamCall[month_pb2.CloseMonthRequest, month_pb2.CloseMonthResponse]
    call = months.CloseMonth(request, timeout=_CLOSE_S_MAX)
    began_s, report = time.perf_counter(), month_pb2.MonthReport()
    async for told in call:
        if told.progress.step == month_pb2.CLOSE_STEP_WAIT:
            began_s = time.perf_counter() + (told.progress.total - told.progress.done) / 1000
        report.CopyFrom(told.report)
    seconds = time.perf_counter() - began_s
    await channel.close()
    return seconds, report
