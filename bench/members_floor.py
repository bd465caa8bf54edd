"""The floors of `bench.members`, in a process of their own as the service is: the same driver and options.

`python -c 'from bench import members_floor; members_floor.main()' PORT MONGODB_URI DATABASE`. Asking is timed
in here, so that no gRPC surrounds it; a scan is a call, for what it is held against is one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

import grpc
import orjson
import uvloop

from bench import floors
from chassis.mongo import connection
from chassis.mongo.connection import Collection
from chassis.settings import ServiceSettings
from daogou.members.v1.binding_pb2 import Binding
from daogou.members.v1.guide_code_pb2 import ScanGuideCodeRequest, ScanGuideCodeResponse

SERVICE: Final = "bench.Floor"


def _handlers(members: Collection) -> dict[str, floors.RpcHandler]:
    async def ask(request: bytes, _context: Any) -> bytes:
        """Reads one list of documents after the other; how long that took in seconds, and what was found."""
        batches = orjson.loads(request)
        began_s = time.perf_counter()
        found = [len(await floors.found_by_ids(members, ids)) for ids in batches]
        return orjson.dumps([time.perf_counter() - began_s, found])

    async def scan(request: ScanGuideCodeRequest, _context: Any) -> ScanGuideCodeResponse:
        """Reads and updates the member whose id stands for the identity's value."""
        key = f"{request.brand_id}|{request.identity.value}"
        member = await floors.found_and_updated(members, key)
        standing = member["standing"]
        binding = Binding(
            binding_id=standing["binding_id"],
            brand_id=request.brand_id,
            member_id=member["member_id"],
            guide_id=standing["guide_id"],
            store_id=standing["store_id"],
        )
        return ScanGuideCodeResponse(member_id=member["member_id"], binding=binding)

    return {
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
        "Scan": grpc.unary_unary_rpc_method_handler(
            scan,
            request_deserializer=ScanGuideCodeRequest.FromString,
            response_serializer=ScanGuideCodeResponse.SerializeToString,
        ),
    }


async def _serve(port: str, uri: str, database: str) -> None:
    # All that a connection reads of a service's settings.
    config = ServiceSettings.model_construct(mongodb_uri=uri, mongo_driver="motor")
    async with connection.connected(config, database) as opened:
        server = floors.bare_server(SERVICE, _handlers(opened["members"]))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


def main() -> None:
    """Serves until the process is ended."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(*sys.argv[1:]))
