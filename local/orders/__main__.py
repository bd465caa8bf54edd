"""Imports the order exports of Taobao and Tmall shops: `./daogou import-orders`.

A run that was cut off is completed by the next: the events are the same, and known ones change nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from chassis.rpc import client
from daogou.commission.v1.order_event_pb2 import OrderEventKind
from daogou.common.v1.channel_pb2 import Channel
from daogou.members.v1.directory_pb2 import GetBrandRequest
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from local import token
from local.keys import LocalKeys
from local.orders import events, forms, reading, sending, showing
from local.orders.events import Order
from local.orders.rows import NoExport, Refusal, Sheets
from local.pilot import again
from local.services import SERVICES
from local.stack import ROOT

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

CHANNELS: Final = ("TMALL", "TAOBAO")
TOKEN: Final = "DAOGOU_TOKEN"
_HELP_WIDTH: Final = 110


class Stop(Exception):
    """Nothing was imported; what it says tells why."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the command line asks for."""

    files: tuple[Path, ...]
    brand_id: str
    shop_id: str
    channel: Channel.ValueType
    dry_run: bool
    refused: Path | None
    target: str
    members_target: str
    bearer: str


class Run:
    """One import."""

    def __init__(self, task: Task, console: Console) -> None:
        self._task = task
        self._console = console
        bar = (TextColumn("{task.description:<7}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*bar, console=console)

    async def run(self) -> int:
        """Reads, sends and tells. Returns the exit status: 0 when nothing was refused.

        Raises: Stop; OSError; grpc.aio.AioRpcError, alone or in a group.
        """
        exports, problems = reading.opened(self._task.files)
        if problems:
            raise Stop("\n".join(problems))
        sheets = Sheets(self._task.shop_id, await self._zone())
        came, would = sending.Outcomes(), Counter[OrderEventKind.ValueType]()
        with self._progress:
            try:
                self._read(exports, sheets)
            except NoExport as error:
                self._tell_refused(sheets.refusals)
                raise Stop(str(error)) from None
            total = sheets.order_count
            orders = self._orders(sheets)
            if self._task.dry_run:
                would.update(event.kind for order in orders for event in order.events)
            else:
                came = await self._send(orders)
        refused = sheets.refusals + came.bad
        self._tell_refused(refused)
        self._console.print(f"{total:,} orders read; {len(sheets.refusals):,} times something was refused")
        if sheets.repeated:
            self._console.print(f"{sheets.repeated:,} rows repeat another and were left out")
        showing.would_send(self._console, would)
        showing.outcomes(self._console, came)
        return 1 if refused else 0

    def _tell_refused(self, refused: Sequence[Refusal]) -> None:
        showing.refusals(self._console, refused, everything=self._task.dry_run)
        if self._task.refused:
            showing.save(self._task.refused, refused)

    async def _zone(self) -> ZoneInfo:
        """The brand's time zone. Raises: Stop; grpc.aio.AioRpcError."""
        channel = client.connect(self._task.members_target, lambda: self._task.bearer)
        try:
            stub: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
            brand = (await again(stub.GetBrand, GetBrandRequest(brand_id=self._task.brand_id))).brand
        finally:
            await channel.close()
        if brand.currency_code != events.CURRENCY_CODE:
            raise Stop(f"exports are in yuan, and the brand's amounts are in {brand.currency_code}")
        return ZoneInfo(brand.business_time_zone)

    def _read(self, exports: Sequence[reading.Export], sheets: Sheets) -> None:
        reads = self._progress.add_task("reading", total=sum(export.size_bytes for export in exports))
        before = 0
        for export in exports:
            for at_byte in reading.read(export, sheets):
                self._progress.update(reads, completed=before + at_byte)
            before += export.size_bytes

    def _orders(self, sheets: Sheets) -> Iterator[Order]:
        """The orders that can be sent, one by one; the others' rows are refused."""
        sends = self._progress.add_task("orders", total=sheets.order_count)
        for group in sheets.orders():
            order = events.order_of(group, self._task.channel, self._task.shop_id)
            if isinstance(order, Order):
                yield order
            else:
                sheets.refusals += order
            self._progress.advance(sends)

    async def _send(self, orders: Iterator[Order]) -> sending.Outcomes:
        channel = client.connect(self._task.target, lambda: self._task.bearer)
        try:
            return await sending.send(channel, self._task.brand_id, orders)
        finally:
            await channel.close()


def _parser() -> argparse.ArgumentParser:
    ports = {spec.name: spec.ports.grpc for spec in SERVICES}
    told = io.StringIO()
    showing.mapping(Console(file=told, width=_HELP_WIDTH))
    parser = argparse.ArgumentParser(
        prog="./daogou import-orders",
        description="Import order exports (宝贝报表, one row a sub-order) of a Taobao or Tmall shop.",
        epilog=f"In the environment:\n  {TOKEN}: a CONNECTOR's token\n\n{told.getvalue()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="CSV in UTF-8 or GB18030")
    parser.add_argument("--brand", default="", help="brand id; required")
    parser.add_argument("--shop", default="", help="the channel's id of the shop; required")
    parser.add_argument("--channel", default="TMALL", choices=CHANNELS, help="where it sells (default TMALL)")
    parser.add_argument("--dry-run", action="store_true", help="send nothing; list every refused row and why")
    parser.add_argument("--refused", type=Path, metavar="FILE.csv", help="write what was refused there")
    parser.add_argument("--mapping", action="store_true", help="show which column becomes what, and end")
    for option, service in (("--target", "commission"), ("--members-target", "members")):
        parser.add_argument(option, default=f"127.0.0.1:{ports[service]}", help=f"the {service} service")
    return parser


def _task(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Task:
    """What is asked for; ends the program where something is missing."""
    needed = {"FILE": given.files, "--brand": given.brand, "--shop": given.shop}
    if missing := [name for name, value in needed.items() if not value]:
        parser.exit(2, f"import-orders: required: {', '.join(missing)}; --help tells more\n")
    try:
        forms.identifier(given.shop)
    except ValueError as error:
        parser.exit(2, f"import-orders: --shop {error}\n")
    # For an installation elsewhere the caller brings a token; what ./daogou up runs trusts its own keys.
    bearer = os.environ.get(TOKEN) or token.mint(
        LocalKeys.made(ROOT / ".daogou" / "up" / "keys"), "CONNECTOR", brand=given.brand
    )
    return Task(
        files=tuple(given.files),
        brand_id=given.brand,
        shop_id=given.shop,
        channel=Channel.Value(f"CHANNEL_{given.channel}"),
        dry_run=given.dry_run,
        refused=given.refused,
        target=given.target,
        members_target=given.members_target,
        bearer=bearer,
    )


def _complain(*lines: str) -> None:
    for line in dict.fromkeys(lines):
        print(f"import-orders: {line}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: all is in; 1: something was refused or failed; 2: nothing was imported."""
    parser = _parser()
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if given.mapping:
        showing.mapping(Console(highlight=False))
        return 0
    status = 1
    try:
        status = asyncio.run(Run(_task(parser, given), console).run())
    except* Stop as stopped:
        status = 2
        _complain(*(line for error in stopped.exceptions for line in str(error).splitlines()))
    except* OSError as failed:
        _complain(*map(str, failed.exceptions))
    except* grpc.aio.AioRpcError as refused:
        calls = [error for error in refused.exceptions if isinstance(error, grpc.aio.AioRpcError)]
        _complain(
            *(f"{call.code().name}: {call.details()}; run it again, nothing is doubled" for call in calls)
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
