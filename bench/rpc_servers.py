"""The servers of `bench.rpc`, a process each: the same method, around it our chain, nothing, or the peer's.

`python -c 'from bench import rpc_servers; rpc_servers.main()' NAME PORT METER_PORT JWKS_FILE`; the access log
goes to standard output as in production. On METER_PORT, `METER` tells what the process has used and counted.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import orjson
import prometheus_client
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from bench import floors
from chassis import logs
from chassis.rpc.identity import KeySet, TokenVerifier
from chassis.rpc.life import Wrapping
from chassis.settings import ServiceSettings
from daogou.members import v1
from daogou.members.v1.directory_pb2 import (
    BindingPolicy,
    Brand,
    GetBrandRequest,
    GetBrandResponse,
    Snatch,
)

SERVICE: Final = "daogou.members.v1.DirectoryService"
METHOD: Final = "GetBrand"
HANGING_METHOD: Final = "GetStore"
METER: Final = "bench.Meter"
UNARY_TIMEOUT_S: Final = 2.0

_CREATED: Final = Timestamp(seconds=1_750_000_000, nanos=123_000_000)


@functools.cache
def brand_reply(brand_id: str) -> GetBrandResponse:
    """The reply to a request for this brand, of the size that a real one has."""
    return GetBrandResponse(
        brand=Brand(
            brand_id=brand_id,
            display_name="晨光女装",
            business_time_zone="Asia/Shanghai",
            currency_code="CNY",
            binding_policy=BindingPolicy(snatch=Snatch.SNATCH_AFTER_PROTECTION, protection_days=90),
            create_time=_CREATED,
            update_time=_CREATED,
        )
    )


async def _get_brand(request: GetBrandRequest, _context: Any) -> GetBrandResponse:
    return brand_reply(request.brand_id)


async def _hang(_request: Any, _context: Any) -> None:
    await asyncio.Event().wait()


class _Servicer:
    """Answers `GetBrand` from nowhere, and whatever else a contract has never."""

    def __getattr__(self, name: str) -> floors.Behaviour:
        return _get_brand if name == METHOD else _hang


def _contracts() -> Iterator[Callable[[object, Any], None]]:
    """All that the members service registers: gRPC pays for the methods that are not called, too."""
    for found in pkgutil.iter_modules(v1.__path__):
        if found.name.endswith("_pb2_grpc"):
            generated = vars(importlib.import_module(f"{v1.__name__}.{found.name}"))
            yield from (value for name, value in generated.items() if name.startswith("add_"))


def _ours(jwks_file: Path) -> grpc.aio.Server:
    """The service as `chassis.rpc.life` puts it together, with nothing behind it."""
    config = ServiceSettings(
        listen="127.0.0.1:0",
        health_listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        mongodb_uri="mongodb://127.0.0.1:0",
        jwks_file=jwks_file,
        service_key_file=jwks_file,
        unary_timeout_s=UNARY_TIMEOUT_S,
    )
    logs.configure("members", "json", "info")
    server = grpc.aio.server(options=floors.OPTIONS)
    verifier = TokenVerifier(KeySet(jwks_file), "daogou")
    Wrapping(config, verifier).add(server, [(add, _Servicer()) for add in _contracts()])
    return server


def _server(name: str, jwks_file: Path) -> tuple[grpc.aio.Server, prometheus_client.CollectorRegistry]:
    if name == "ours":
        return _ours(jwks_file), prometheus_client.REGISTRY
    handler: floors.RpcHandler = grpc.unary_unary_rpc_method_handler(
        _get_brand,
        request_deserializer=GetBrandRequest.FromString,
        response_serializer=GetBrandResponse.SerializeToString,
    )
    if name == "echo":
        return floors.bare_server(SERVICE, {METHOD: handler}), floors.REGISTRY
    peer = floors.intercepted_server(SERVICE, {METHOD: handler}, jwks_file=jwks_file, audience="daogou")
    return peer, floors.REGISTRY


def _handled(registry: prometheus_client.CollectorRegistry) -> dict[str, int]:
    """How often each method ended with each status code, as `METHOD CODE`."""
    return {
        f"{sample.labels['grpc_method']} {sample.labels['grpc_code']}": int(sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "grpc_server_handled_total" and sample.value
    }


def _meter(registry: prometheus_client.CollectorRegistry) -> grpc.aio.Server:
    """A server of its own, so that nothing surrounds it. Counting is dear, and so no part of `CpuNs`."""

    async def cpu_ns(_request: bytes, _context: Any) -> bytes:
        return orjson.dumps(time.process_time_ns())

    async def handled(_request: bytes, _context: Any) -> bytes:
        return orjson.dumps(_handled(registry))

    methods = {"CpuNs": cpu_ns, "Handled": handled}
    return floors.bare_server(
        METER, {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    )


async def _serve(name: str, port: str, meter_port: str, jwks_file: Path) -> None:
    server, registry = _server(name, jwks_file)
    meter = _meter(registry)
    server.add_insecure_port(f"127.0.0.1:{port}")
    meter.add_insecure_port(f"127.0.0.1:{meter_port}")
    await server.start()
    await meter.start()
    await server.wait_for_termination()


def main() -> None:
    """Serves until the process is ended."""
    name, port, meter_port, jwks_file = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(name, port, meter_port, Path(jwks_file)))
