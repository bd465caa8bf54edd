"""What happens around a stream of replies beside what happens around every call (`chassis.rpc.interceptors`).

A servicer's async generator becomes a coroutine that writes what it yields. So the same chain goes around a
stream as around a unary call, and the generator is closed, its `finally` run, before the call ends, however
it ends. In place of a unary call's deadline a stream has two ends of its own: its caller's token expires, or
the service is shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from prometheus_client import Counter

from chassis.errors import DaogouError, Unauthenticated, Unavailable
from chassis.rpc.call import caller, current
from chassis.rpc.interceptors import Context, Handler, Method

Stream = Callable[[Any, Context], AsyncGenerator[Message, None]]
"""A servicer's method: yields replies."""

SENT = Counter(
    "grpc_server_msg_sent_total",
    "Messages sent in streams.",
    ["grpc_type", "grpc_service", "grpc_method"],
)


def written(method: Method, stream: Stream) -> Handler:
    """Sends what the servicer yields, each message as fast as the caller reads."""
    sent = SENT.labels(method.grpc_type, method.service, method.name)

    async def call(request: Any, context: Context) -> None:
        made = current.get()
        async with contextlib.aclosing(stream(request, context)) as replies:
            async for reply in replies:
                try:
                    await context.write(reply)
                except grpc.aio.InternalError:
                    # The caller is gone. gRPC says so itself by a cancellation in a moment, which is not
                    # to hit the servicer while it closes what it opened.
                    await asyncio.sleep(1.0)
                    raise asyncio.CancelledError from None
                made.messages_sent += 1
                sent.inc()

    return call


class _End:
    """The end that a block may be brought to from outside, by an error of ours."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.error: DaogouError | None = None

    def bring(self, error: DaogouError) -> None:
        """Ends the block, once; it raises the error."""
        if self.error is None and self.task.cancel():
            self.error = error


@contextlib.contextmanager
def _endable() -> Iterator[_End]:
    end = _End()
    try:
        yield end
    except asyncio.CancelledError:
        # Unless the caller gave up at the same time.
        if end.error is not None and end.task.uncancel() == 0:
            raise end.error from None
        raise


def expiring(handler: Handler) -> Handler:
    """Ends the stream with the token that it was admitted by: a unary call's is looked at with every call."""

    async def call(request: Any, context: Context) -> None:
        left_s = caller().expire_time_s - time.time()
        with _endable() as end:
            error = Unauthenticated("TOKEN_EXPIRED", "the token has expired")
            timer = asyncio.get_running_loop().call_later(left_s, end.bring, error)
            try:
                await handler(request, context)
            finally:
                timer.cancel()

    return call


def _shutting_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "this replica is shutting down: go on at another", retry_after_s=0)


class Shutdown:
    """Ends the streams in progress when the service ends, which else would wait for them."""

    def __init__(self) -> None:
        self._begun = False
        self._ends: set[_End] = set()

    def begin(self) -> None:
        """Ends them all, and each that comes from now on."""
        self._begun = True
        for end in self._ends:
            end.bring(_shutting_down())

    def ending(self, handler: Handler) -> Handler:
        """Makes the handler's streams end with the service."""

        async def call(request: Any, context: Context) -> None:
            if self._begun:
                raise _shutting_down()
            with _endable() as end:
                self._ends.add(end)
                try:
                    await handler(request, context)
                finally:
                    self._ends.discard(end)

        return call
