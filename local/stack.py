"""All services and their MongoDB on this machine, as processes, under one supervisor.

`./daogou up` runs it on the documented ports; the demo and the tests run it on free ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Self

from local.embedded_mongo import EmbeddedMongo, GivenMongo, MongoFailed, mongo_for
from local.keys import LocalKeys
from local.ports import HOST, Ports
from local.service_process import Launch, OnEvent, OnLine, ServiceProcess
from local.services import SERVICES, ServiceSpec

ROOT: Final = Path(__file__).resolve().parent.parent
DRAIN_S: Final = 0.2
GRACE_S: Final = 5.0
_MONGO_RESTARTS_MAX: Final = 5
# What a caller's environment must not decide for the services started here.
_FOR_TESTS_ONLY: Final = ("DAOGOU_TESTING", "DAOGOU_CLOCK_SHIFT_FILE", "DAOGOU_CRASH_AT")


class StackRunning(Exception):
    """Another process runs a stack on the same state folder."""


def _ignore_line(_name: str, _line: str) -> None:
    pass


def _ignore_event(_what: str) -> None:
    pass


class Stack:
    """MongoDB and every service, started by `async with` and stopped at its end, in reverse order.

    `state` is its folder: keys, data, logs. One stack at a time may use it.
    `testing` lets the clock be shifted and failpoints be set; with a MONGODB_URI it also gives every stack
    databases of its own, which it drops at the end.
    A service, or mongod, that ends by itself is started again; one ended through this class is not.
    """

    def __init__(
        self,
        state: Path,
        *,
        ports: Ports | None = None,
        services: Sequence[ServiceSpec] = SERVICES,
        testing: bool = False,
        log_format: Literal["json", "console"] = "json",
        on_line: OnLine = _ignore_line,
        on_event: OnEvent = _ignore_event,
        env: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """`env`: by service name, what to set in its environment on top. `ports`: free ones unless given."""
        self._state = state
        self._specs = {spec.name: spec for spec in services}
        self._ports = (ports or Ports.free(self._specs)).services
        self._testing = testing
        self._log_format = log_format
        self._on_line = on_line
        self._on_event = on_event
        self._extra_env = env or {}
        self._own_databases = secrets.token_hex(4) if testing else ""
        self._processes: dict[str, ServiceProcess] = {}
        self._lock: IO[bytes] | None = None
        self._mongo_watcher: asyncio.Task[None] | None = None
        self.keys = LocalKeys(state / "keys")
        """Made by the first start."""
        self.mongo: EmbeddedMongo | GivenMongo = mongo_for(
            state / "mongo", log=self.log_file("mongod"), testing=testing
        )

    @property
    def targets(self) -> Mapping[str, str]:
        """Where each service answers gRPC, by its name."""
        return {name: f"{HOST}:{ports.grpc}" for name, ports in self._ports.items()}

    @property
    def health_targets(self) -> Mapping[str, str]:
        """Where each service answers grpc.health.v1, by its name."""
        return {name: f"{HOST}:{ports.health}" for name, ports in self._ports.items()}

    @property
    def metrics_urls(self) -> Mapping[str, str]:
        """Where Prometheus scrapes each service, by its name."""
        return {name: f"http://{HOST}:{ports.metrics}/metrics" for name, ports in self._ports.items()}

    @property
    def clock_shift_file(self) -> Path:
        """Holds the seconds that the services' clocks are ahead, when testing."""
        return self._state / "clock_shift_s"

    def log_file(self, name: str) -> Path:
        """What this service, or mongod, wrote since the stack was started."""
        return self._state / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Of this service's process; None while there is none."""
        return self._processes[name].pid

    def shift_clock(self, seconds: float) -> None:
        """Let all services take it to be so many seconds later than it is. Only when testing."""
        assert self._testing, "only a stack for testing may shift its clock"
        new = self.clock_shift_file.with_suffix(".new")
        new.write_text(repr(seconds), encoding="ascii")
        new.replace(self.clock_shift_file)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all; return once every service is SERVING. When one fails, nothing is left running.

        Raises: StackRunning; MongoFailed; ServiceFailed with the last lines of the service's log.
        """
        self._take_lock()
        try:
            LocalKeys.made(self.keys.folder)
            if self._testing:
                self.shift_clock(0)
            await asyncio.to_thread(self.mongo.start)
            self._mongo_watcher = asyncio.create_task(self._watch_mongo())
            self._processes = {name: self._process(spec) for name, spec in self._specs.items()}
            # At once: each waits by itself for what it needs, as in production.
            async with asyncio.TaskGroup() as starting:
                for process in self._processes.values():
                    starting.create_task(process.start())
        except BaseException as error:
            await self.stop()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def stop(self) -> None:
        """Stop the services in reverse order, then MongoDB. Idempotent."""
        await self._stop_watching_mongo()
        for process in self._processes.values():
            await process.stop_watching()
        for process in reversed(self._processes.values()):
            await process.terminate()
        if isinstance(self.mongo, GivenMongo) and self._own_databases and self._processes:
            await asyncio.to_thread(self.mongo.drop, [self._database(name) for name in self._specs])
        await asyncio.to_thread(self.mongo.stop)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill_all(self) -> None:
        """SIGKILL to everything, for a person who is tired of waiting. `stop` then ends at once."""
        for process in self._processes.values():
            process.kill_now()
        if isinstance(self.mongo, EmbeddedMongo):
            self.mongo.kill()

    async def kill(self, name: str) -> None:
        """SIGKILL a service and wait for its end. It stays down until `start_service`."""
        await self._processes[name].kill()

    async def terminate(self, name: str) -> None:
        """SIGTERM a service and wait for its end. It stays down until `start_service`."""
        await self._processes[name].terminate()

    async def start_service(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Start a service that is down, with `env` set on top until the next time. Raises: ServiceFailed."""
        await self._processes[name].start(env)

    async def kill_mongo(self) -> None:
        """SIGKILL mongod and wait for its end. It stays down until `start_mongo`."""
        await self._stop_watching_mongo()
        await asyncio.to_thread(self._embedded().kill)

    async def start_mongo(self) -> None:
        """Start mongod, which is down, on the same port and data. Raises: MongoFailed."""
        await asyncio.to_thread(self.mongo.start)
        if self._mongo_watcher is None:
            self._mongo_watcher = asyncio.create_task(self._watch_mongo())

    def _embedded(self) -> EmbeddedMongo:
        if not isinstance(self.mongo, EmbeddedMongo):
            raise MongoFailed("the MongoDB in MONGODB_URI is not this program's to end")
        return self.mongo

    def _take_lock(self) -> None:
        self._state.mkdir(parents=True, exist_ok=True)
        self._lock = (self._state / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise StackRunning(f"another process uses {self._state}") from None

    async def _watch_mongo(self) -> None:
        """Start mongod again when it ends by itself."""
        if not isinstance(self.mongo, EmbeddedMongo):
            return
        for _ in range(_MONGO_RESTARTS_MAX):
            while self.mongo.pid is not None:  # noqa: ASYNC110 -- the end of a process sets no event
                await asyncio.sleep(0.2)
            self._on_event("mongod ended by itself; starting it again")
            await asyncio.sleep(0.5)
            with contextlib.suppress(MongoFailed):
                await asyncio.to_thread(self.mongo.start)
        self._on_event(f"mongod ended {_MONGO_RESTARTS_MAX} times; it is not watched any more")

    async def _stop_watching_mongo(self) -> None:
        if self._mongo_watcher is not None:
            self._mongo_watcher.cancel()
            await asyncio.gather(self._mongo_watcher, return_exceptions=True)
            self._mongo_watcher = None

    def _database(self, name: str) -> str:
        """The service's database where MongoDB is shared with others; empty: the service's own default."""
        shared = isinstance(self.mongo, GivenMongo) and self._own_databases
        return f"daogou_{name}_{self._own_databases}" if shared else ""

    def _process(self, spec: ServiceSpec) -> ServiceProcess:
        launch = Launch(
            name=spec.name,
            module=spec.module,
            env=self._environment(spec),
            health_target=self.health_targets[spec.name],
            folder=ROOT,
            log=self.log_file(spec.name),
            stop_s_max=DRAIN_S + GRACE_S + 5,
        )
        return ServiceProcess(launch, self._on_line, self._on_event)

    def _environment(self, spec: ServiceSpec) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in _FOR_TESTS_ONLY}
        ports = self._ports[spec.name]
        env |= {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]),
            "PYTHONUNBUFFERED": "1",
            # gRPC would go to the loopback through a proxy if one is set.
            "no_proxy": ",".join(filter(None, [env.get("no_proxy"), HOST, "localhost"])),
            "MONGODB_URI": self.mongo.uri,
            "DAOGOU_LISTEN": f"{HOST}:{ports.grpc}",
            "DAOGOU_HEALTH_LISTEN": f"{HOST}:{ports.health}",
            "DAOGOU_METRICS_LISTEN": f"{HOST}:{ports.metrics}",
            "DAOGOU_JWKS_FILE": str(self.keys.jwks_file),
            "DAOGOU_SERVICE_KEY_FILE": str(self.keys.service_file),
            "DAOGOU_MIGRATE_ON_START": "1",
            "DAOGOU_DRAIN_S": str(DRAIN_S),
            "DAOGOU_GRACE_S": str(GRACE_S),
            "DAOGOU_LOG_FORMAT": self._log_format,
            **{f"DAOGOU_{peer.upper()}_TARGET": self.targets[peer] for peer in spec.peers},
            **spec.key_files(self.keys),
        }
        if self._testing:
            env |= {"DAOGOU_TESTING": "1", "DAOGOU_CLOCK_SHIFT_FILE": str(self.clock_shift_file)}
            # A month's close waits for it, and tests close many.
            env["DAOGOU_POSTING_LEASE_S"] = "1.5"
        if database := self._database(spec.name):
            env["DAOGOU_MONGO_DATABASE"] = database
        return {**env, **self._extra_env.get(spec.name, {})}
