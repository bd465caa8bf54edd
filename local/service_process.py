"""One service as a process on this machine: started, waited for, watched, started again, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.children import PIPE, Child, start_child

SERVING_S_MAX: Final = 20.0
_RESTARTS_MAX: Final = 5
_RESTART_AFTER_S: Final = 0.5
_SETTLED_S: Final = 60.0
_CHANNEL: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)

OnLine = Callable[[str, str], None]
"""Is given a service's name and a line it wrote, without the newline."""
OnEvent = Callable[[str], None]
"""Is given what happened to a process, in words."""


class ServiceFailed(Exception):
    """A service ended while starting or was not serving in time; the message shows its last log lines."""


@dataclass(frozen=True)
class Launch:
    """How a service is started and seen to be serving."""

    name: str
    module: str
    env: Mapping[str, str]
    """Its whole environment."""
    health_target: str
    folder: Path
    """Its working directory."""
    log: Path
    """Takes what it writes; begun anew by the first start, the one before kept as .1."""
    stop_s_max: float
    """How long it may take to end after SIGTERM, in seconds."""


class ServiceProcess:
    """One service. Belongs to the event loop that started it."""

    def __init__(self, launch: Launch, on_line: OnLine, on_event: OnEvent) -> None:
        self._launch = launch
        self._on_line = on_line
        self._on_event = on_event
        self._env = dict(launch.env)
        self._child: Child | None = None
        self._pump: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._began_log = False
        self.last_lines: deque[str] = deque(maxlen=30)

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start, return once it is SERVING, and from then on start it again when it ends by itself.

        `env` is set on top of its environment, until the next `start`. Does nothing when it runs.
        Raises: ServiceFailed.
        """
        if self.pid is not None:
            return
        await self.stop_watching()
        self._env = {**self._launch.env, **(env or {})}
        await self._spawn()
        try:
            await self._until_serving()
        except BaseException:
            await self._end(signal.SIGKILL)
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def terminate(self) -> None:
        """SIGTERM, and SIGKILL when it takes too long. It is not started again."""
        await self.stop_watching()
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end. It is not started again."""
        await self.stop_watching()
        await self._end(signal.SIGKILL)

    def kill_now(self) -> None:
        """SIGKILL without waiting: for a person who is tired of waiting."""
        if self._child is not None:
            self._child.kill()

    async def _spawn(self) -> None:
        launch = self._launch
        self._child = start_child(
            [sys.executable, "-m", launch.module], output=PIPE, env=self._env, cwd=launch.folder
        )
        self._pump = asyncio.create_task(self._read(self._child))

    async def _read(self, child: Child) -> None:
        """Hand on what the process writes, until it closes its output, which it does by ending."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        assert child.stdout is not None
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), child.stdout
        )
        unfinished = b""
        with contextlib.closing(transport), self._open_log() as log:
            while chunk := await reader.read(1 << 16):
                log.write(chunk)
                *lines, unfinished = (unfinished + chunk).split(b"\n")
                for line in lines:
                    self._take(line)
            if unfinished:
                self._take(unfinished)

    def _open_log(self) -> FileIO:
        log = self._launch.log
        if not self._began_log:
            log.parent.mkdir(parents=True, exist_ok=True)
            if log.exists():
                log.replace(log.with_name(f"{log.name}.1"))
            self._began_log = True
        return log.open("ab", buffering=0)

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip("\r")
        self.last_lines.append(text)
        self._on_line(self._launch.name, text)

    async def _until_serving(self) -> None:
        deadline = time.monotonic() + SERVING_S_MAX
        async with grpc.aio.insecure_channel(self._launch.health_target, options=_CHANNEL) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not await _serves(stub):
                if self.pid is None:
                    await self._drained()
                    raise self._failed(f"{self._launch.name} {self._how_it_ended()} while starting")
                if time.monotonic() > deadline:
                    raise self._failed(f"{self._launch.name} is not serving after {SERVING_S_MAX:.0f} s")
                await asyncio.sleep(0.03)

    def _failed(self, what: str) -> ServiceFailed:
        lines = "\n".join(f"  {line:.500}" for line in self.last_lines) or "  (it wrote nothing)"
        return ServiceFailed(f"{what}. Its last lines (all in {self._launch.log}):\n{lines}")

    async def _watch(self) -> None:
        """Start it again when it ends by itself: later each time, and not for ever."""
        name, restarts = self._launch.name, 0
        while True:
            began = time.monotonic()
            await self._drained()
            if time.monotonic() - began > _SETTLED_S:
                restarts = 0
            if restarts == _RESTARTS_MAX:
                self._on_event(f"{name} {self._how_it_ended()}, {restarts + 1} times in a row: it stays down")
                return
            wait_s = _RESTART_AFTER_S * 2**restarts
            restarts += 1
            self._on_event(f"{name} {self._how_it_ended()}; starting it again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            await self._spawn()
            try:
                await self._until_serving()
                self._on_event(f"{name} serves again")
            except ServiceFailed:
                await self._end(signal.SIGKILL)

    async def stop_watching(self) -> None:
        """From now on it is not started again when it ends."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def _end(self, first: signal.Signals) -> None:
        if self._child is None:
            return
        self._child.send_signal(first)
        try:
            await asyncio.wait_for(self._drained(), self._launch.stop_s_max)
        except TimeoutError:
            self._on_event(
                f"{self._launch.name} did not end within {self._launch.stop_s_max:g} s; killing it"
            )
            self._child.kill()
            await self._drained()

    async def _drained(self) -> None:
        """Wait until the process has ended and all it wrote was handed on."""
        if self._pump is not None:
            await asyncio.shield(self._pump)
        while self.pid is not None:  # noqa: ASYNC110 -- the end of a process sets no event
            await asyncio.sleep(0.01)

    def _how_it_ended(self) -> str:
        status = self._child.poll() if self._child is not None else None
        if status is not None and status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"


async def _serves(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        # The stubs of types-grpcio-health-checking leave the methods out.
        answer = await stub.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(service=""), timeout=1.0
        )
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
