"""What the chapters act through: the services' stubs, tokens by role, a clock to set ahead, a voice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import grpc
from babel.numbers import format_currency
from google.protobuf.message import Message
from rich.console import Console
from rich.panel import Panel

from chassis.rpc import client
from local import token
from local.stack import Stack

R = TypeVar("R", bound=Message)

CALL_TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 30.0
"""How long one step may be tried again while a service or its database comes back."""
_AGAIN: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)


class NotAsTold(Exception):
    """Something came out otherwise than the story says."""


async def _nothing(_step: str) -> None:
    pass


class Stage:
    """One performance. `between` is awaited after every step, with its name: tests kill things there."""

    def __init__(
        self,
        stack: Stack,
        console: Console,
        between: Callable[[str], Awaitable[None]] = _nothing,
    ) -> None:
        self.console = console
        self.checks = 0
        self._stack = stack
        self._between = between
        self._shift = timedelta(0)
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        """Closes the connections at the end."""
        try:
            yield self
        finally:
            for channel in self._channels.values():
                await channel.close()

    def channel(
        self, service: str, role: str, *, brand: str = "", store: str = "", guide: str = ""
    ) -> grpc.aio.Channel:
        """A connection to a service as somebody of that role."""
        minted = token.mint(self._stack.keys, role, brand=brand, store=store, guide=guide)
        key = (service, minted)
        if key not in self._channels:
            self._channels[key] = client.connect(self._stack.targets[service], lambda: minted)
        return self._channels[key]

    async def call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        """The reply. What may be sent again is sent again until the service answers.

        Every change in the story names itself, so that sending it twice has one effect.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                reply = await method(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(0.2)
            else:
                await self._between(type(request).__name__)
                return reply

    async def stream(
        self, method: Callable[..., AsyncIterable[R]], request: Message, told: Callable[[R], None]
    ) -> R:
        """The last message of a stream, the others told as they come; asked for again as a call is."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                replies = [reply async for reply in _each(method(request, timeout=PATIENCE_S), told)]
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(0.2)
            else:
                await self._between(type(request).__name__)
                return replies[-1]

    def now(self) -> datetime:
        """The time in the story."""
        return datetime.now(UTC) + self._shift

    def later(self, **by: float) -> None:
        """Sets all clocks ahead: later(days=7)."""
        self._shift += timedelta(**by)
        self._stack.shift_clock(self._shift.total_seconds())

    def chapter(self, number: int, title: str) -> None:
        """Announces a chapter."""
        self.console.print()
        self.console.print(Panel(f"[bold]{number}. {title}[/bold]", expand=False, border_style="cyan"))

    def say(self, text: str) -> None:
        """Tells what happens."""
        self.console.print(f"  {text}")

    def holds(self, what: str, found: Any, told: Any) -> None:
        """Shows that something is as told. Raises: NotAsTold."""
        if found != told:
            raise NotAsTold(f"{what}: told {told!r}, found {found!r}")
        self.checks += 1
        self.console.print(f"  [green]✓[/green] {what}")


async def _each(replies: AsyncIterable[R], told: Callable[[R], None]) -> AsyncIterator[R]:
    async for reply in replies:
        told(reply)
        yield reply


def money(minor: int, currency_code: str = "CNY") -> str:
    """An amount for people."""
    return format_currency(Decimal(minor).scaleb(-2), currency_code, locale="zh_CN")
