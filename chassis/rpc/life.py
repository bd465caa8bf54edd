"""The life of a process that serves gRPC: start, serve, drain, stop. `server` adds MongoDB to it.

Start: logs, metrics, health NOT_SERVING, whatever the service is made of, SERVING. SIGTERM: NOT_SERVING, a
wait in which callers turn away, then no new calls, the end of all streams, a grace for the calls in progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

import grpc
import prometheus_client
import uvloop
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis import crash, logs
from chassis.errors import DaogouError
from chassis.rpc import access, interceptors, streams
from chassis.rpc.identity import KeySet, TokenVerifier
from chassis.settings import ServerSettings

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Registration = tuple[Callable[[Any, Any], None], object]
"""A generated `add_…Servicer_to_server` and the servicer to add."""


def _nothing(_raised: BaseException) -> DaogouError | None:
    return None


class _Handlers:
    """Stands in for a server while generated code adds its handlers, to get at them."""

    def __init__(self) -> None:
        self.by_service: dict[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers in another form; not needed."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.by_service[service] = handlers


class _Methods(grpc.GenericRpcHandler):
    """Finds a call's handler by its path.

    With `add_registered_method_handlers` grpc.aio waits anew for every one of them whenever a call arrives,
    which cost 8 % of a call's CPU time with the 40 methods of one service.
    """

    def __init__(self, by_path: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self._by_path = by_path

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._by_path.get(handler_call_details.method)


class Wrapping:
    """The chain of interceptors, put around the methods of servicers as they are added to a server."""

    def __init__(
        self, config: ServerSettings, verifier: TokenVerifier, translate: interceptors.Translate = _nothing
    ) -> None:
        """`translate`: what failures of what the service depends on mean to callers."""
        self._verifier = verifier
        self._translate = translate
        self._timeout_s = config.unary_timeout_s
        self._calls = interceptors.Gate(
            config.unary_calls_max, "TOO_MANY_CALLS", "the service is at its limit of calls"
        )
        self._streams = interceptors.Gate(
            config.streams_max, "TOO_MANY_STREAMS", "the service is at its limit of streams"
        )
        self._shutdown = streams.Shutdown()
        self._log = logs.logger("rpc")

    def add(self, server: grpc.aio.Server, registrations: Sequence[Registration]) -> list[str]:
        """Adds the servicers and returns the full names of their gRPC services."""
        found = _Handlers()
        for add, servicer in registrations:
            add(servicer, found)
        methods = {
            f"/{service}/{name}": self._wrapped(service, name, handler)
            for service, handlers in found.by_service.items()
            for name, handler in handlers.items()
        }
        server.add_generic_rpc_handlers((_Methods(methods),))
        return list(found.by_service)

    def end_streams(self) -> None:
        """Ends the streams in progress, and those that still come: their callers go on elsewhere."""
        self._shutdown.begin()

    def _wrapped(
        self, service: str, name: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        parse = handler.request_deserializer
        if handler.request_streaming or parse is None:
            raise ValueError(f"{service}/{name}: methods that take a stream cannot be wrapped")
        rule = access.rule_of(descriptor_pool.Default().FindServiceByName(service).methods_by_name[name])
        # The stubs know synchronous handlers alone.
        if handler.response_streaming:
            method = interceptors.Method(service, name, "server_stream")
            chain = streams.written(method, cast("streams.Stream", handler.unary_stream))
            chain = streams.expiring(interceptors.checked(chain))
            chain = self._streams.limited(self._known(chain, rule, parse))
            chain = self._shutdown.ending(chain)
            made = grpc.unary_stream_rpc_method_handler
        else:
            method = interceptors.Method(service, name)
            chain = interceptors.checked(cast("interceptors.Handler", handler.unary_unary))
            chain = interceptors.timed(self._known(chain, rule, parse), self._timeout_s)
            chain = self._calls.limited(chain)
            made = grpc.unary_unary_rpc_method_handler
        chain = interceptors.answered(chain, self._translate, self._log)
        chain = interceptors.observed(method, chain)
        return made(chain, response_serializer=handler.response_serializer)

    def _known(
        self,
        chain: interceptors.Handler,
        rule: access.AccessRule | None,
        parse: Callable[[bytes], Message],
    ) -> interceptors.Handler:
        return interceptors.decoded(interceptors.admitted(chain, rule, self._verifier), parse)


def _grpc_server(config: ServerSettings) -> grpc.aio.Server:
    age_ms = round(config.connection_age_s * 1000)
    return grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", config.message_bytes_max),
            ("grpc.max_send_message_length", 2 * config.message_bytes_max),
            ("grpc.max_connection_age_ms", age_ms),
            ("grpc.max_connection_age_grace_ms", round(config.grace_s * 1000)),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.max_metadata_size", 16 << 10),
        ]
    )


class Readiness:
    """What health says of the process: SERVING unless somebody has a reason why not."""

    def __init__(self, servicer: health.aio.HealthServicer) -> None:
        self.servicer = servicer
        self._reasons: set[str] = set()

    async def withhold(self, reason: str) -> None:
        """NOT_SERVING, until this reason and all others are gone."""
        self._reasons.add(reason)
        await self.servicer.set("", _NOT_SERVING)

    async def restore(self, reason: str) -> None:
        """The reason is gone: SERVING, if it was the last."""
        self._reasons.discard(reason)
        if not self._reasons:
            await self.servicer.set("", _SERVING)


@contextlib.asynccontextmanager
async def _health(config: ServerSettings) -> AsyncIterator[Readiness]:
    """Serves health on a plaintext port of its own, NOT_SERVING to begin with."""
    ready = Readiness(health.aio.HealthServicer())
    await ready.withhold("starting")
    await ready.servicer.set("live", _SERVING)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(ready.servicer, server)
    server.add_insecure_port(config.health_listen)
    await server.start()
    try:
        yield ready
    finally:
        await server.stop(0)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


class Life:
    """A process that has begun: its metrics are scraped, its health is asked, it can be told to stop."""

    def __init__(self, config: ServerSettings, stop: asyncio.Event, ready: Readiness) -> None:
        self._config = config
        self.stop = stop
        self.ready = ready

    async def serve(
        self, registrations: Sequence[Registration], translate: interceptors.Translate = _nothing
    ) -> None:
        """Serves until the process is told to stop, and drains."""
        config, log = self._config, logs.logger("life")
        server = _grpc_server(config)
        verifier = TokenVerifier(KeySet(config.jwks_file), config.token_audience)
        wrapping = Wrapping(config, verifier, translate)
        names = wrapping.add(server, registrations)
        health_pb2_grpc.add_HealthServicer_to_server(self.ready.servicer, server)
        if config.reflection:
            reflection.enable_server_reflection(
                [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
            )
        server.add_insecure_port(config.listen)
        await server.start()
        await self.ready.restore("starting")
        log.info("serving", listen=config.listen, metrics=config.metrics_listen)
        await self.stop.wait()
        log.info("draining", drain_s=config.drain_s, grace_s=config.grace_s)
        await self.ready.withhold("stopping")
        await asyncio.sleep(config.drain_s)
        wrapping.end_streams()
        await server.stop(config.grace_s)


@contextlib.asynccontextmanager
async def begun(config: ServerSettings) -> AsyncIterator[Life]:
    """The process's life, from here on."""
    stop = _stop_signal()
    if config.crash_at:
        crash.arm(config.crash_at)
        logs.logger("life").error("armed to kill itself: this is for tests alone", crash_at=config.crash_at)
    host, _, port = config.metrics_listen.rpartition(":")
    prometheus_client.start_http_server(int(port), addr=host)
    async with _health(config) as ready:
        yield Life(config, stop, ready)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
