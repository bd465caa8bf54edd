"""A service with a database: `main` is all that its `__main__` calls. `life` is what comes without MongoDB.

Start: settings, logs, health NOT_SERVING, MongoDB and its schema, servicers, SERVING. At the end the
dependencies are closed last.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from chassis import logs, settings
from chassis.clock import Clock
from chassis.mongo import connection, failures, schema
from chassis.mongo.connection import Database
from chassis.rpc import life
from chassis.rpc.life import Registration
from chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


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


async def _serve(service: Service[S], config: S) -> None:
    name = config.mongo_database or f"daogou_{service.name}"
    async with life.begun(config) as begun, connection.connected(config, name) as database:
        if not await _schema_ready(service, config, database, begun.stop):
            return
        surroundings = Surroundings(config, database, Clock(config.clock_shift_file))
        async with service.compose(surroundings) as registrations:
            await begun.serve(registrations, failures.as_error)
    logs.logger("life").info("stopped")


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
    life.run(run(service, config))
