"""What `bench.commission` runs against: members, several commission services, and their floors.

Each commission service has a database of its own and asks the same members service. `commission` is what is
timed; `recorder` takes in the same events first and writes down its commands; `small` and `large` hold
different numbers of orders from the beginning.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import orjson
from google.protobuf.field_mask_pb2 import FieldMask

from bench import members_data
from bench.commission_data import SHOP_ID, Sales, plan
from bench.commission_floor import SERVICE as FLOOR
from bench.measure import GateFailed, cpu_s, gate
from bench.members_data import BenchBrand
from bench.recorder import FILE_VARIABLE
from chassis.clock import Clock
from chassis.mongo import connection, schema
from chassis.mongo.connection import Database
from chassis.rpc import client
from chassis.settings import ServiceSettings
from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.plan_pb2_grpc import PlanServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.members.v1 import directory_pb2
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from local.children import start_child
from local.embedded_mongo import EmbeddedMongo, GivenMongo
from local.ports import HOST, free_ports
from local.services import SERVICES, ServiceSpec
from local.stack import Stack
from local.token import mint
from svc_commission.__main__ import SCHEMA

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.plan_pb2_grpc import PlanServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

OURS: Final = "commission"
RECORDER: Final = "recorder"
SMALL: Final = "small"
LARGE: Final = "large"
CLOSE: Final = SMALL
"""Closes a month when all else is done."""
COMMISSIONS: Final = (OURS, RECORDER, SMALL, LARGE)
REPLAYED: Final = "floor"
INSERTED: Final = "inserted"
NAIVE: Final = "naive"
STORES: Final = 200
GUIDES: Final = 2000
_SHANGHAI: Final = GeoPoint(latitude=31.2, longitude=121.5, datum=Datum.DATUM_GCJ02)
_MESSAGE_BYTES: Final = 64 << 20
CHANNEL_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
)
_SELLS_SINCE: Final = timedelta(days=25)
_IN_FORCE_BEFORE: Final = timedelta(days=60)
"""A plan is published for the future; the orders are of the last days."""


@dataclass(frozen=True)
class Running:
    """All that runs, and how to reach it."""

    stack: Stack
    run_id: str
    folder: Path
    floor_pid: int
    floor: grpc.aio.Channel
    mongo: Database
    """Any database of the server: the others are reached through its client."""

    @property
    def commands_file(self) -> Path:
        """What the recorder writes down."""
        return _commands_file(self.folder)

    def token(self, role: str, brand_id: str = "") -> str:
        """A caller's."""
        return mint(self.stack.keys, role, brand=brand_id)

    def channel(self, service: str) -> grpc.aio.Channel:
        """A new connection that adds nothing to the calls."""
        return grpc.aio.insecure_channel(self.stack.targets[service], options=CHANNEL_OPTIONS)

    def database_name(self, of: str) -> str:
        """Of a service or of a floor."""
        return _database_name(self.run_id, of)

    def database(self, of: str) -> Database:
        """As a service opens it."""
        return self.mongo.client.get_database(
            self.database_name(of),
            write_concern=self.mongo.write_concern,
            read_concern=self.mongo.read_concern,
        )

    async def ask_floor(self, job: str, **more: Any) -> Any:
        """Has the floor's process do something on one of its databases, and returns its answer."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.floor.unary_unary(f"/{FLOOR}/{job}")
        return orjson.loads(await call(orjson.dumps(more)))

    def cpu_s(self, service: str) -> tuple[float, float]:
        """What a service, or the floor's process, and MongoDB have used so far."""
        mongo = self.stack.mongo
        pid = self.stack.pid(service) if service in COMMISSIONS else self.floor_pid
        mongo_pid = mongo.pid if isinstance(mongo, EmbeddedMongo) else None
        return cpu_s(pid or 0), cpu_s(mongo_pid or 0)


def _commands_file(folder: Path) -> Path:
    return folder / "commands.bson"


def _database_name(run_id: str, of: str) -> str:
    return f"daogou_bench_{run_id}_{of}"


def _specs() -> list[ServiceSpec]:
    by_name = {spec.name: spec for spec in SERVICES}
    members, ours = by_name["members"], by_name[OURS]
    more = [replace(ours, name=name) for name in (SMALL, LARGE)]
    return [members, ours, replace(ours, name=RECORDER, module="bench.recorder"), *more]


@asynccontextmanager
async def running(folder: Path, lease_s: float) -> AsyncIterator[Running]:
    """Starts everything, and stops it. `lease_s`: the posting leases' of the service that closes a month.

    Raises: GateFailed when the floor does not serve.
    """
    run_id = secrets.token_hex(3)
    services = (*COMMISSIONS, "members")
    env = {name: {"DAOGOU_MONGO_DATABASE": _database_name(run_id, name)} for name in services}
    env[CLOSE]["DAOGOU_POSTING_LEASE_S"] = str(lease_s)
    env[RECORDER][FILE_VARIABLE] = str(_commands_file(folder))
    (floor_port,) = free_ports(1)
    async with Stack(folder, services=_specs(), env=env) as stack:
        log = folder / "floor.log"
        program = "from bench import commission_floor; commission_floor.main()"
        with log.open("wb") as output:
            command = [sys.executable, "-c", program, str(floor_port), stack.mongo.uri]
            child = start_child(command, output=output)
        config = ServiceSettings.model_construct(mongodb_uri=stack.mongo.uri, mongo_driver="motor")
        try:
            async with (
                connection.connected(config, _database_name(run_id, OURS)) as database,
                grpc.aio.insecure_channel(f"{HOST}:{floor_port}", options=CHANNEL_OPTIONS) as floor,
            ):
                around = Running(stack, run_id, folder, child.pid, floor, database)
                await _answers(floor, log)
                for name in (REPLAYED, INSERTED):
                    await schema.migrate(around.database(name), SCHEMA)
                yield around
        finally:
            child.kill()
            child.wait()
            if isinstance(stack.mongo, GivenMongo):
                names = [*env, REPLAYED, INSERTED, NAIVE]
                await asyncio.to_thread(stack.mongo.drop, [_database_name(run_id, name) for name in names])


async def _answers(floor: grpc.aio.Channel, log: Path) -> None:
    ping: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = floor.unary_unary(f"/{FLOOR}/Ping")
    try:
        await ping(b"{}", wait_for_ready=True, timeout=15)
    except grpc.aio.AioRpcError:
        wrote = await asyncio.to_thread(log.read_text)
        raise GateFailed(f"the floor does not serve; it wrote\n{wrote}") from None


# ---- the brand -------------------------------------------------------------------------------------


async def sales_of_a_brand(around: Running, members: int) -> Sales:
    """A brand with stores, managers, guides, members and, in every commission service, the same plan."""
    channel = client.connect(around.stack.targets["members"], lambda: around.token("PLATFORM"))
    directory: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
    made = await directory.CreateBrand(
        directory_pb2.CreateBrandRequest(
            request_id="bench-brand", brand=directory_pb2.Brand(display_name="Bench")
        )
    )
    brand_id = made.brand.brand_id
    store_ids = await _stores(directory, brand_id)
    places = await _guides(directory, brand_id, store_ids)
    await _managers(directory, brand_id, places)
    await channel.close()
    brand = BenchBrand(brand_id, places, around.stack.keys.pii_file)
    uri, name = around.stack.mongo.uri, around.database_name("members")
    pieces = members_data.load(brand, uri, name, range(members), Clock().now())
    while await asyncio.to_thread(next, pieces, 0):
        pass
    for service in COMMISSIONS:
        await _plan(around, service, brand_id)
    return Sales(brand, members, Clock().now() - _SELLS_SINCE)


async def _stores(directory: DirectoryServiceAsyncStub, brand_id: str) -> list[str]:
    """The brand's flagship, and ids of the stores where guides stand."""
    flagship = directory_pb2.Store(
        display_name="Flagship",
        kind=directory_pb2.STORE_KIND_FLAGSHIP,
        shops=[directory_pb2.ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=SHOP_ID)],
    )
    stores = [
        directory_pb2.Store(
            display_name=f"Store {n}", kind=directory_pb2.STORE_KIND_PHYSICAL, location=_SHANGHAI
        )
        for n in range(STORES)
    ]
    made = await directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(
            brand_id=brand_id, request_id="bench-stores", stores=[*stores, flagship]
        )
    )
    return [result.store.store_id for result in made.results[:STORES]]


async def _guides(
    directory: DirectoryServiceAsyncStub, brand_id: str, store_ids: Sequence[str]
) -> list[tuple[str, str]]:
    """The guides, each with the store where she stands."""
    places = []
    for start in range(0, GUIDES, 1000):
        guides = [
            directory_pb2.Guide(store_id=store_ids[n % STORES], display_name=f"Guide {n}")
            for n in range(start, min(start + 1000, GUIDES))
        ]
        made = await directory.BatchCreateGuides(
            directory_pb2.BatchCreateGuidesRequest(
                brand_id=brand_id, request_id=f"bench-guides-{start}", guides=guides
            )
        )
        places += [(result.guide.guide_id, result.guide.store_id) for result in made.results]
    return places


async def _managers(
    directory: DirectoryServiceAsyncStub, brand_id: str, places: Sequence[tuple[str, str]]
) -> None:
    """Makes the first guide of each store its manager."""
    for guide_id, store_id in places[:STORES]:
        await directory.UpdateStore(
            directory_pb2.UpdateStoreRequest(
                brand_id=brand_id,
                store_id=store_id,
                request_id=f"bench-manager-{store_id}",
                store=directory_pb2.Store(manager_guide_id=guide_id),
                update_mask=FieldMask(paths=["manager_guide_id"]),
            )
        )


async def _plan(around: Running, service: str, brand_id: str) -> None:
    """Publishes the plan, and has it in force before the first of the orders."""
    channel = client.connect(around.stack.targets[service], lambda: around.token("BRAND_ADMIN", brand_id))
    plans: PlanServiceAsyncStub = PlanServiceStub(channel)
    await plans.PublishPlan(
        plan_pb2.PublishPlanRequest(brand_id=brand_id, request_id="bench-plan", plan=plan())
    )
    await channel.close()
    begun_time = Clock().now() - _IN_FORCE_BEFORE
    moved = await around.database(service)["plans"].update_one(
        {"_id": brand_id}, {"$set": {"plans.0.effective_from_time": begun_time}}
    )
    gate(moved.modified_count == 1, "the plan must be in force when the orders were placed")
