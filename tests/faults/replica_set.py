"""A replica set of three on this machine, whose primary can be killed: what production has, in small."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from local.children import Child, start_child
from local.embedded_mongo import find_mongod
from local.ports import HOST, free_ports

NAME: Final = "three"
MEMBERS: Final = 3
_READY_S_MAX: Final = 30.0
# Elections in a fraction of a second: what is tried is what they do to writes, not how long they take.
_SETTINGS: Final = {"electionTimeoutMillis": 500, "heartbeatIntervalMillis": 100}

Client = MongoClient[dict[str, Any]]


class ReplicaSet:
    """Three mongods. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = free_ports(MEMBERS)
        self._children: dict[int, Child] = {}

    @property
    def uri(self) -> str:
        """For the services."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._ports)
        return f"mongodb://{hosts}/?replicaSet={NAME}"

    def start(self) -> None:
        """Starts all; returns once one of them takes writes."""
        for port in self._ports:
            self._start(port)
        members = [{"_id": number, "host": f"{HOST}:{port}"} for number, port in enumerate(self._ports)]
        config = {"_id": NAME, "members": members, "settings": _SETTINGS}
        deadline_s = time.monotonic() + _READY_S_MAX
        while True:
            with contextlib.suppress(PyMongoError), _direct(self._ports[0]) as client:
                client.admin.command("replSetInitiate", config)
                break
            assert time.monotonic() < deadline_s, "the replica set cannot be initiated"
            time.sleep(0.05)
        self.primary()

    def stop(self) -> None:
        """Kills all."""
        for child in self._children.values():
            child.kill()
            child.wait()

    def primary(self) -> int:
        """The port of the one that takes writes; waits for it to be elected."""
        deadline_s = time.monotonic() + _READY_S_MAX
        while time.monotonic() < deadline_s:
            for port in self._ports:
                with contextlib.suppress(PyMongoError), _direct(port) as client:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return port
            time.sleep(0.02)
        raise AssertionError("no primary was elected")

    def kill_primary(self) -> None:
        """SIGKILL to the primary; returns once another was elected and this one follows it, started again."""
        killed = self.primary()
        self._children[killed].kill()
        self._children[killed].wait()
        self.primary()
        self._start(killed)
        deadline_s = time.monotonic() + _READY_S_MAX
        while not self._serves(killed):
            assert time.monotonic() < deadline_s, "the one that was killed does not come back"
            time.sleep(0.02)

    def _start(self, port: int) -> None:
        data = self._folder / str(port)
        data.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(find_mongod()), "--replSet", NAME, "--dbpath", str(data)),
            *("--bind_ip", HOST, "--port", str(port), "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "128"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        with (self._folder / f"{port}.log").open("ab") as log:
            self._children[port] = start_child(command, output=log)

    def _serves(self, port: int) -> bool:
        with contextlib.suppress(PyMongoError), _direct(port) as client:
            hello = client.admin.command("hello")
            return bool(hello.get("secondary") or hello.get("isWritablePrimary"))
        return False


@contextlib.contextmanager
def _direct(port: int) -> Iterator[Client]:
    client: Client = MongoClient(
        HOST, port, directConnection=True, connectTimeoutMS=1000, serverSelectionTimeoutMS=500
    )
    with client:
        yield client
