"""What happens around every call, one idea each. Handlers are wrapped once, when a servicer is added.

grpc.aio asks its own interceptors again on every call; wrapping the handler instead leaves nothing to look
up while a call runs. `chassis.rpc.life` composes them: outermost first, `observed`, `answered`,
`limited`, `timed`, `decoded`, `admitted`, `checked`. Those of streams alone stand in `chassis.rpc.streams`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from prometheus_client import Counter, Histogram

from chassis import logs
from chassis.errors import (
    DaogouError,
    DeadlineExceeded,
    Denied,
    Invalid,
    Overloaded,
    Unauthenticated,
    invalid_fields,
)
from chassis.rpc import access, limits
from chassis.rpc.access import AccessRule
from chassis.rpc.call import Call, current, trace_id_of
from chassis.rpc.identity import TokenVerifier
from chassis.rpc.status import code_of, to_status

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Message | None]]
"""Answers a call: with its reply, or with None once all of a stream is written."""
Translate = Callable[[BaseException], DaogouError | None]

STARTED = Counter("grpc_server_started_total", "Calls begun.", ["grpc_type", "grpc_service", "grpc_method"])
HANDLED = Counter(
    "grpc_server_handled_total",
    "Calls ended, by status code.",
    ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
)
HANDLING = Histogram(
    "grpc_server_handling_seconds",
    "Time from the call's start to its end.",
    ["grpc_type", "grpc_service", "grpc_method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

_CODES_BY_NUMBER = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Method:
    """The names of one method. `grpc_type`: unary or server_stream, as dashboards know them."""

    service: str
    name: str
    grpc_type: str = "unary"


def _opened(context: Context) -> Call:
    """The call with what its headers say, read once: gRPC decodes all of them anew whenever it is asked."""
    traceparent = authorization = None
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and authorization is None:
            authorization = str(value)
        elif key == "traceparent" and traceparent is None:
            traceparent = str(value)
    return Call(trace_id_of(traceparent), authorization=authorization)


def observed(method: Method, handler: Handler) -> Handler:
    """Counts and times the call, opens its trace, and writes its one log line."""
    labels = (method.grpc_type, method.service, method.name)
    started, seconds = STARTED.labels(*labels), HANDLING.labels(*labels)
    handled = {name: HANDLED.labels(*labels, name) for name in _CODES_BY_NUMBER.values()}
    full_name = f"{method.service}/{method.name}"
    log = logs.logger("rpc").bind(method=full_name)
    is_stream = method.grpc_type != "unary"

    def ended(call: Call, code: str, begun: float) -> None:
        took = time.perf_counter() - begun
        handled[code].inc()
        seconds.observe(took)
        claims = call.claims
        more = {"messages": call.messages_sent} if is_stream else {}
        log.info(
            "call",
            code=code,
            ms=round(took * 1000, 2),
            trace_id=call.trace_id,
            caller=claims.subject if claims else None,
            brand_id=claims.brand_id if claims else None,
            **more,
        )

    async def call(request: Any, context: Context) -> Message | None:
        begun = time.perf_counter()
        started.inc()
        made = _opened(context)
        current.set(made)
        code = "CANCELLED"
        try:
            reply = await handler(request, context)
            code = "OK"
            return reply
        except grpc.aio.AbortError:
            code = _code_name(context.code())
            raise
        finally:
            ended(made, code, begun)

    return call


def _code_name(code: object) -> str:
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES_BY_NUMBER.get(code, "UNKNOWN") if isinstance(code, int) else "UNKNOWN"


def answered(handler: Handler, translate: Translate, log: structlog.typing.FilteringBoundLogger) -> Handler:
    """Turns errors into statuses. What nobody foresaw is logged and told to the caller as INTERNAL."""

    async def call(request: Any, context: Context) -> Message | None:
        try:
            return await handler(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as raised:
            error = raised if isinstance(raised, DaogouError) else translate(raised)
            trace_id = current.get().trace_id
            if error is None:
                log.error("unforeseen", trace_id=trace_id, exc_info=raised)
                await context.abort(
                    grpc.StatusCode.INTERNAL, "internal error", (("daogou-trace-id", trace_id),)
                )
            if not isinstance(raised, DaogouError):
                log.warning("dependency", trace_id=trace_id, error=type(raised).__name__, reason=error.reason)
            status = to_status(error).SerializeToString()
            await context.abort(
                code_of(error),
                error.message,
                (("grpc-status-details-bin", status), ("daogou-trace-id", trace_id)),
            )

    return call


class Gate:
    """Counts the calls in progress and refuses those beyond `calls_max` at once, with `reason`."""

    def __init__(self, calls_max: int, reason: str, message: str) -> None:
        self._calls_max = calls_max
        self._reason = reason
        self._message = message
        self._calls = 0

    def limited(self, handler: Handler) -> Handler:
        """Refuses at the door: a queue in front of a full service helps nobody."""

        async def call(request: Any, context: Context) -> Message | None:
            if self._calls >= self._calls_max:
                raise Overloaded(self._reason, self._message, retry_after_s=0.2)
            self._calls += 1
            try:
                return await handler(request, context)
            finally:
                self._calls -= 1

        return call


def timed(handler: Handler, timeout_s: float) -> Handler:
    """Gives calls without a deadline one. gRPC itself cancels those that brought theirs."""

    async def call(request: Any, context: Context) -> Message | None:
        # The stubs know no call without a deadline; there it is None.
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None and remaining_s <= timeout_s:
            return await handler(request, context)
        # As asyncio.timeout does it, at a quarter of its cost.
        task = asyncio.current_task()
        assert task is not None
        late = False

        def end() -> None:
            nonlocal late
            late = task.cancel()

        timer = task.get_loop().call_later(timeout_s, end)
        try:
            return await handler(request, context)
        except asyncio.CancelledError:
            # Unless the caller gave up at the same time.
            if late and task.uncancel() == 0:
                raise DeadlineExceeded("CALL_TOO_LONG", f"the call took over {timeout_s:g} s") from None
            raise
        finally:
            timer.cancel()

    return call


def decoded(handler: Handler, parse: Callable[[bytes], Message]) -> Handler:
    """Makes the request of the call's bytes. gRPC itself would answer UNKNOWN, and tell of our insides."""

    async def call(raw: bytes, context: Context) -> Message | None:
        try:
            request = parse(raw)
        except DecodeError:
            raise Invalid("MESSAGE_MALFORMED", "the bytes are no request of this method") from None
        return await handler(request, context)

    return call


def admitted(handler: Handler, rule: AccessRule | None, verifier: TokenVerifier) -> Handler:
    """Finds out who calls and whether the contract admits him. No option: nobody."""

    async def call(request: Any, context: Context) -> Message | None:
        made = current.get()
        bearer = made.authorization
        if bearer is None or bearer[:7].lower() != "bearer ":
            raise Unauthenticated("TOKEN_MISSING", "the call carries no bearer token")
        claims = verifier.claims_of(bearer[7:])
        made.claims = claims
        if rule is None:
            raise Denied("METHOD_CLOSED", "the method's contract admits nobody")
        access.check(rule, claims, request)
        return await handler(request, context)

    return call


def checked(handler: Handler) -> Handler:
    """Refuses requests that their contract does not accept, with every offending field."""

    async def call(request: Any, context: Context) -> Message | None:
        if found := limits.violations(request):
            raise invalid_fields(found)
        return await handler(request, context)

    return call
