"""Services beside those that all tests share: replicas with other settings, to be stopped and killed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from local.children import Child, start_child
from local.ports import HOST, Ports, ServicePorts
from local.services import EMBEDDER, SERVICES
from local.stack import ROOT
from tests.rpc.running import CHANNEL_OPTIONS, Running, eventually

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(target: str, service: str = "") -> int | None:
    """What a service says of itself; None while it does not answer."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = await check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        except grpc.aio.AioRpcError as error:
            return None if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().value[0]
        return int(reply.status)


@dataclass
class Replica:
    """Another process of a service, on the same database unless told otherwise."""

    name: str
    ports: ServicePorts
    env: dict[str, str]
    log: Path
    process: Child

    @property
    def target(self) -> str:
        return f"{HOST}:{self.ports.grpc}"

    @property
    def health_target(self) -> str:
        return f"{HOST}:{self.ports.health}"

    def lines(self) -> list[dict[str, Any]]:
        """Its log so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    async def serving(self) -> None:
        """Returns once it is ready."""

        async def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            return await health(self.health_target) == SERVING

        await eventually(ready, f"{self.name} serves")

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)

    async def ended(self) -> int:
        """Its exit status, once it has ended."""

        async def over() -> bool:
            return self.process.poll() is not None

        await eventually(over, f"{self.name} ends")
        return int(self.process.returncode)


@contextlib.contextmanager
def replica(running: Running, folder: Path, name: str, **env: str) -> Iterator[Replica]:
    """A replica with these settings on top, killed at the end if it still runs."""
    spec = next(spec for spec in (*SERVICES, EMBEDDER) if spec.name == name)
    ports = Ports.free([name]).services[name]
    environment = {
        **running.stack._environment(spec),
        "DAOGOU_LISTEN": f"{HOST}:{ports.grpc}",
        "DAOGOU_HEALTH_LISTEN": f"{HOST}:{ports.health}",
        "DAOGOU_METRICS_LISTEN": f"{HOST}:{ports.metrics}",
        **{f"DAOGOU_{key.upper()}": value for key, value in env.items()},
    }
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = start_child([sys.executable, "-m", spec.module], output=output, env=environment, cwd=ROOT)
    try:
        yield Replica(name, ports, environment, log, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
