"""Which TCP ports the local services listen on: the documented ones, or free ones."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"
# Below the range from which the kernel gives ports to outgoing connections, so that none of those takes one
# between our choosing it and the server's listening on it.
_FREE_FROM = 20_000
_FREE_TO = 32_000


@dataclass(frozen=True)
class ServicePorts:
    """Where one service listens, on 127.0.0.1."""

    grpc: int
    health: int
    metrics: int


@dataclass(frozen=True)
class Ports:
    """Where every service listens, by the service's name."""

    services: Mapping[str, ServicePorts]
    notes: tuple[str, ...] = ()
    """In words: the documented ports that were busy, and what is used instead."""

    @classmethod
    def free(cls, names: Iterable[str]) -> Self:
        """Free ports for the services of these names."""
        return cls({name: ServicePorts(*free_ports(3)) for name in names})

    @classmethod
    def documented(cls, wanted: Mapping[str, ServicePorts]) -> Self:
        """The ports wanted; a free one in place of each that is busy."""
        notes: list[str] = []

        def taken(name: str, kind: str, port: int) -> int:
            if is_free(port):
                return port
            (instead,) = free_ports(1)
            notes.append(f"{name}: port {port} ({kind}) is busy, using {instead}")
            return instead

        services = {
            name: ServicePorts(
                grpc=taken(name, "gRPC", ports.grpc),
                health=taken(name, "health", ports.health),
                metrics=taken(name, "metrics", ports.metrics),
            )
            for name, ports in wanted.items()
        }
        return cls(services, tuple(notes))


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # As servers do: connections of a former server that are still closing are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free now. Raises: RuntimeError when a thousand tries find too few."""
    found: list[int] = []
    draw = random.SystemRandom()
    for _ in range(1000):
        port = draw.randrange(_FREE_FROM, _FREE_TO)
        if port not in found and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports between {_FREE_FROM} and {_FREE_TO}")
