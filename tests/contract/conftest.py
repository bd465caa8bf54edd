"""A real MongoDB for all tests of this folder, and a database of its own for each of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest
from pymongo.errors import OperationFailure

from chassis.ids import new_id
from chassis.mongo import connection
from chassis.mongo.connection import Database
from chassis.settings import ServiceSettings
from local.embedded_mongo import EmbeddedMongo, GivenMongo, mongo_for

Failing = Callable[..., AbstractAsyncContextManager[None]]
"""Makes the server fail some commands while a block runs: `failing("insert", times=1, errorCode=91)`."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_drivers: run on Motor and on PyMongo Async, also without --soak")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Motor runs all tests; PyMongo Async those that are marked, and all under --soak."""
    if "driver" in metafunc.fixturenames:
        both = metafunc.config.getoption("--soak") or metafunc.definition.get_closest_marker("both_drivers")
        metafunc.parametrize("driver", ["motor", "pymongo"] if both else ["motor"])


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongo | GivenMongo]:
    """The server that MONGODB_URI names, else one of our own."""
    server = mongo_for(tmp_path_factory.mktemp("contract") / "mongo", testing=True)
    server.start()
    yield server
    server.stop()


def settings_for(mongo: EmbeddedMongo | GivenMongo, driver: str) -> ServiceSettings:
    """All that a connection reads of a service's settings."""
    return ServiceSettings.model_construct(mongodb_uri=mongo.uri, mongo_driver=cast("Any", driver))


@pytest.fixture
async def database(mongo: EmbeddedMongo | GivenMongo, driver: str) -> AsyncIterator[Database]:
    """An empty database, as a service has it."""
    name = f"contract_{new_id()}"
    async with connection.connected(settings_for(mongo, driver), name) as opened:
        yield opened
        await opened.client.drop_database(name)


@pytest.fixture
def failing(database: Database) -> Failing:
    """Failures that the server itself makes up, for commands of ours alone."""

    @contextlib.asynccontextmanager
    async def failing(*commands: str, times: int, **data: Any) -> AsyncIterator[None]:
        wanted = {"failCommands": list(commands), "appName": "daogou", **data}
        admin = database.client["admin"]
        try:
            await admin.command(
                {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": wanted}
            )
        except OperationFailure as error:
            pytest.skip(f"this MongoDB has no failpoints: {error.code}")
        try:
            yield
        finally:
            await admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    return failing
