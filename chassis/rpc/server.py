"""The life of a service, the same for all: start, serve, drain, stop. `main` is all that a `__main__` calls.

Start: settings, logs, MongoDB and its schema, health NOT_SERVING, servicers, SERVING. SIGTERM: NOT_SERVING,
a wait in which callers turn away, then no new calls, the end of all streams, a grace for the calls in
progress, and last the dependencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import grpc
import prometheus_client
import uvloop
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis import crash, logs, settings
from chassis.clock import Clock
from chassis.mongo import connection, failures, schema
from chassis.mongo.connection import Database
from chassis.rpc import access, interceptors, streams
from chassis.rpc.identity import KeySet, TokenVerifier
from chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Registration = tuple[Callable[[Any, Any], None], object]
"""A generated `add_…Servicer_to_server` and the servicer to add."""


@dataclass(frozen=True)
class Surroundings(Generic[S]):
    """What a composition root builds a service's parts from."""

    settings: S
    database: Database
    clock: Clock


@dataclass(frozen=True)
class Service(Generic[S]):
    """One service: its name, settings and schema, and how its parts are put together."""

    name: str
    settings: type[S]
    schema: schema.Schema
    compose: Callable[[Surroundings[S]], AbstractAsyncContextManager[Sequence[Registration]]]


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

    def __init__(self, config: ServiceSettings, verifier: TokenVerifier) -> None:
        self._verifier = verifier
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
        chain = interceptors.answered(chain, failures.as_error, self._log)
        chain = interceptors.observed(method, chain)
        return made(chain, response_serializer=handler.response_serializer)

    def _known(
        self,
        chain: interceptors.Handler,
        rule: access.AccessRule | None,
        parse: Callable[[bytes], Message],
    ) -> interceptors.Handler:
        return interceptors.decoded(interceptors.admitted(chain, rule, self._verifier), parse)


def _grpc_server(config: ServiceSettings) -> grpc.aio.Server:
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


@contextlib.asynccontextmanager
async def _health(config: ServiceSettings) -> AsyncIterator[health.aio.HealthServicer]:
    """Serves health on a plaintext port of its own, NOT_SERVING to begin with."""
    servicer = health.aio.HealthServicer()
    await servicer.set("", _NOT_SERVING)
    await servicer.set("live", _SERVING)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(config.health_listen)
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(0)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _serve(service: Service[S], config: S) -> None:
    log = logs.logger("life")
    stop = _stop_signal()
    if config.crash_at:
        crash.arm(config.crash_at)
        log.error("armed to kill itself: this is for tests alone", crash_at=config.crash_at)
    prometheus_client.start_http_server(
        int(config.metrics_listen.rpartition(":")[2]), addr=config.metrics_listen.rpartition(":")[0]
    )
    name = config.mongo_database or f"daogou_{service.name}"
    async with _health(config) as ready, connection.connected(config, name) as database:
        if not await _schema_ready(service, config, database, stop):
            return
        surroundings = Surroundings(config, database, Clock(config.clock_shift_file))
        async with service.compose(surroundings) as registrations:
            server = _grpc_server(config)
            verifier = TokenVerifier(KeySet(config.jwks_file), config.token_audience)
            wrapping = Wrapping(config, verifier)
            names = wrapping.add(server, registrations)
            health_pb2_grpc.add_HealthServicer_to_server(ready, server)
            if config.reflection:
                reflection.enable_server_reflection(
                    [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
                )
            server.add_insecure_port(config.listen)
            await server.start()
            _collect_seldom()
            await ready.set("", _SERVING)
            log.info("serving", listen=config.listen, metrics=config.metrics_listen)
            await stop.wait()
            log.info("draining", drain_s=config.drain_s, grace_s=config.grace_s)
            await ready.set("", _NOT_SERVING)
            await asyncio.sleep(config.drain_s)
            wrapping.end_streams()
            await server.stop(config.grace_s)
    log.info("stopped")


def _collect_seldom() -> None:
    """Looks for garbage in cycles less often, and never among what the service was made of.

    A request makes thousands of objects and hardly a cycle: to look through all that lives every 700 of them
    costs a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _schema_ready(service: Service[S], config: S, database: Database, stop: asyncio.Event) -> bool:
    """Waits, NOT_SERVING, until the database has what the service needs. False: told to stop meanwhile."""
    log = logs.logger("life")
    said = ""
    while not stop.is_set():
        try:
            if config.migrate_on_start:
                await schema.migrate(database, service.schema)
            missing = await schema.missing(database, service.schema)
        except Exception as error:
            if failures.as_error(error) is None:
                raise
            missing = [f"MongoDB does not answer: {type(error).__name__}"]
        if not missing:
            return True
        if said != (said := "; ".join(missing)):
            log.warning("waiting", missing=missing)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
    return False


async def _migrate(service: Service[S], config: S) -> None:
    name = config.mongo_database or f"daogou_{service.name}"
    async with connection.connected(config, name) as database:
        await schema.migrate(database, service.schema)
    logs.logger("life").info("migrated", schema_version=service.schema.version)


def main(service: Service[S]) -> None:
    """Runs the service; with the argument `migrate`, builds its indexes and ends."""
    if sys.argv[1:] not in ([], ["migrate"]):
        sys.exit(f"usage: python -m svc_{service.name} [migrate]")
    config = settings.load(service.settings)
    logs.configure(service.name, config.log_format, config.log_level)
    run = _migrate if sys.argv[1:] == ["migrate"] else _serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(service, config))
