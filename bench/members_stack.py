"""What `bench.members` runs against: the members service, its floor, and a MongoDB with a brand in it."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from bench import members_data
from bench.measure import GateFailed, gate
from bench.members_data import BenchBrand
from bench.members_floor import SERVICE as FLOOR
from chassis.clock import Clock
from chassis.mongo import connection
from chassis.mongo.connection import Database
from chassis.rpc import client
from chassis.settings import ServiceSettings
from chassis.times import to_timestamp
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.members.v1 import directory_pb2, guide_code_pb2, member_import_pb2
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceStub
from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceStub
from local.children import start_child
from local.embedded_mongo import EmbeddedMongo, GivenMongo
from local.ports import HOST, free_ports
from local.services import SERVICES
from local.stack import Stack
from local.token import mint
from svc_members.member.identities import StoredIdentity

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub
    from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceAsyncStub
    from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceAsyncStub

STORES: Final = 84
GUIDES: Final = 234
"""As many of either as a brand of the pilot has on average."""
CODES: Final = 40
"""Guides whose codes are scanned."""
SAMPLE: Final = 1000
"""Members who come through the service, to see that those loaded past it are of the same form."""
_SHANGHAI: Final = GeoPoint(latitude=31.2, longitude=121.5, datum=Datum.DATUM_GCJ02)
_CHANNEL: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


@dataclass(frozen=True)
class Code:
    """A guide's code."""

    text: str
    guide_id: str


@dataclass(frozen=True)
class Running:
    """All that runs, and how to reach it."""

    stack: Stack
    floor_pid: int
    database_name: str
    database: Database
    service: grpc.aio.Channel
    floor: grpc.aio.Channel

    def token(self, role: str, brand_id: str = "") -> str:
        """A caller's."""
        return mint(self.stack.keys, role, brand=brand_id)

    def pids(self, *, of_floor: bool) -> tuple[int, int]:
        """Of the floor or of the service, and of MongoDB; 0: no process of ours."""
        mongo = self.stack.mongo
        return (
            (self.floor_pid if of_floor else self.stack.pid("members")) or 0,
            (mongo.pid if isinstance(mongo, EmbeddedMongo) else None) or 0,
        )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    """Starts everything, and stops it. Raises: GateFailed when the floor does not serve."""
    name = f"daogou_bench_{secrets.token_hex(4)}"
    members = [spec for spec in SERVICES if spec.name == "members"]
    (floor_port,) = free_ports(1)
    async with Stack(folder, services=members, env={"members": {"DAOGOU_MONGO_DATABASE": name}}) as stack:
        log = folder / "floor.log"
        program = "from bench import members_floor; members_floor.main()"
        with log.open("wb") as output:
            command = [sys.executable, "-c", program, str(floor_port), stack.mongo.uri, name]
            child = start_child(command, output=output)
        config = ServiceSettings.model_construct(mongodb_uri=stack.mongo.uri, mongo_driver="motor")
        try:
            async with (
                connection.connected(config, name) as database,
                grpc.aio.insecure_channel(stack.targets["members"], options=_CHANNEL) as service,
                grpc.aio.insecure_channel(f"{HOST}:{floor_port}", options=_CHANNEL) as floor,
            ):
                await _answers(floor, log)
                yield Running(stack, child.pid, name, database, service, floor)
        finally:
            child.kill()
            child.wait()
            if isinstance(stack.mongo, GivenMongo):
                await asyncio.to_thread(stack.mongo.drop, [name])


async def _answers(floor: grpc.aio.Channel, log: Path) -> None:
    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = floor.unary_unary(f"/{FLOOR}/Ask")
    try:
        await ask(b"[]", wait_for_ready=True, timeout=15)
    except grpc.aio.AioRpcError:
        wrote = await asyncio.to_thread(log.read_text)
        raise GateFailed(f"the floor does not serve; it wrote\n{wrote}") from None


# ---- the brand -------------------------------------------------------------------------------------


async def brand_with_codes(around: Running) -> tuple[BenchBrand, list[Code]]:
    """A brand, made through the service, with stores, guides and codes of some of them."""
    channel = client.connect(around.stack.targets["members"], lambda: around.token("PLATFORM"))
    directory: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
    made = await directory.CreateBrand(
        directory_pb2.CreateBrandRequest(
            request_id="bench-brand", brand=directory_pb2.Brand(display_name="Bench")
        )
    )
    brand_id = made.brand.brand_id
    stores = await directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(
            brand_id=brand_id,
            request_id="bench-stores",
            stores=[
                directory_pb2.Store(
                    display_name=f"Store {n}", kind=directory_pb2.STORE_KIND_PHYSICAL, location=_SHANGHAI
                )
                for n in range(STORES)
            ],
        )
    )
    store_ids = [result.store.store_id for result in stores.results]
    guides = await directory.BatchCreateGuides(
        directory_pb2.BatchCreateGuidesRequest(
            brand_id=brand_id,
            request_id="bench-guides",
            guides=[
                directory_pb2.Guide(store_id=store_ids[n % STORES], display_name=f"Guide {n}")
                for n in range(GUIDES)
            ],
        )
    )
    places = [(result.guide.guide_id, result.guide.store_id) for result in guides.results]
    await channel.close()
    brand = BenchBrand(brand_id, places, around.stack.keys.pii_file)
    return brand, await _codes(around, brand)


async def _codes(around: Running, brand: BenchBrand) -> list[Code]:
    channel = client.connect(
        around.stack.targets["members"], lambda: around.token("CONNECTOR", brand.brand_id)
    )
    codes: GuideCodeServiceAsyncStub = GuideCodeServiceStub(channel)
    made = []
    for guide_id, store_id in brand.guides[:CODES]:
        reply = await codes.CreateGuideCode(
            guide_code_pb2.CreateGuideCodeRequest(
                brand_id=brand.brand_id, store_id=store_id, guide_id=guide_id
            )
        )
        made.append(Code(reply.code, guide_id))
    await channel.close()
    return made


# ---- its members -----------------------------------------------------------------------------------


async def load_members(
    around: Running, brand: BenchBrand, members: int, written: Callable[[int], None]
) -> None:
    """Loads members 0 to `members`. Raises: GateFailed when the service writes others than what is loaded."""
    await _import_sample(around, brand)
    await _check_sample(around, brand)
    written(SAMPLE)
    pieces = members_data.load(
        brand, around.stack.mongo.uri, around.database_name, range(SAMPLE, members), Clock().now()
    )
    while piece := await asyncio.to_thread(next, pieces, 0):
        written(piece)


async def _import_sample(around: Running, brand: BenchBrand) -> None:
    channel = client.connect(around.stack.targets["members"], lambda: around.token("PLATFORM"))
    imports: MemberImportServiceAsyncStub = MemberImportServiceStub(channel)
    arriving = [
        member_import_pb2.ImportedMember(
            identities=[members_data.phone(number)],
            guide_id=brand.guide_of(number)[0],
            bound_time=to_timestamp(members_data.bound_time(number)),
        )
        for number in range(SAMPLE)
    ]
    await imports.ImportMembers(
        member_import_pb2.ImportMembersRequest(brand_id=brand.brand_id, members=arriving)
    )
    await channel.close()


async def _check_sample(around: Running, brand: BenchBrand) -> None:
    """Holds every document of the sample against the one that would be loaded in its place."""
    now = Clock().now()
    members, links = zip(*(brand.documents(number, now) for number in range(SAMPLE)), strict=True)
    for collection, made in (("members", members), ("identities", links)):
        ids = [document["_id"] for document in made]
        found = await around.database[collection].find({"_id": {"$in": ids}}).to_list(None)
        written = {document["_id"]: _comparable(brand, document, now) for document in found}
        for document in made:
            stands, loaded = written.get(document["_id"]), _comparable(brand, document, now)
            gate(stands == loaded, f"the service must write what is loaded: {stands} is not {loaded}")


def _comparable(brand: BenchBrand, value: Any, now: datetime) -> Any:
    """A document without the times of writing it, which are of today, and with what is sealed opened."""
    if isinstance(value, datetime):
        return "today" if abs(now - value) < timedelta(hours=1) else value
    if isinstance(value, list):
        return [_comparable(brand, item, now) for item in value]
    if not isinstance(value, dict):
        return value
    if "sealed" in value:
        parts = (value["kind"], value["app_id"], bytes(value["sealed"]), value["masked"])
        stored = StoredIdentity(value["_id"].partition("|")[2], *parts)
        value = value | {"sealed": brand.sealer.opened(brand.brand_id, stored).value}
    return {key: _comparable(brand, item, now) for key, item in value.items()}
