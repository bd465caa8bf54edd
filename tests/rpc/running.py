"""The real services, running for the tests: who calls them, what they refuse, what they wrote.

`Running` belongs to the whole session; `world.py` opens brands in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from bson.raw_bson import RawBSONDocument
from google.protobuf.descriptor import MethodDescriptor
from pymongo import MongoClient
from pymongo.database import Database

from chassis.clock import to_milliseconds
from chassis.errors import Violation
from chassis.rpc.status import from_rpc_error
from daogou.commission.v1.ledger_pb2_grpc import LedgerServiceStub
from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceStub
from daogou.commission.v1.performance_pb2_grpc import PerformanceServiceStub
from daogou.commission.v1.plan_pb2_grpc import PlanServiceStub
from daogou.members.v1.binding_pb2_grpc import BindingServiceStub
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceStub
from daogou.members.v1.member_pb2_grpc import MemberServiceStub
from daogou.members.v1.region_pb2_grpc import RegionServiceStub
from local import token
from local.services import SERVICES
from local.stack import Stack
from tests.messages import path_of

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.ledger_pb2_grpc import LedgerServiceAsyncStub
    from daogou.commission.v1.order_event_pb2_grpc import OrderEventServiceAsyncStub
    from daogou.commission.v1.performance_pb2_grpc import PerformanceServiceAsyncStub
    from daogou.commission.v1.plan_pb2_grpc import PlanServiceAsyncStub
    from daogou.members.v1.binding_pb2_grpc import BindingServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub
    from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceAsyncStub
    from daogou.members.v1.member_pb2_grpc import MemberServiceAsyncStub
    from daogou.members.v1.region_pb2_grpc import RegionServiceAsyncStub

CALL_TIMEOUT_S: Final = 20.0
CHANNEL_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # A service that was killed is found again as soon as it is back.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)

Metadata = tuple[tuple[str, str], ...]
Raw = RawBSONDocument


class _Bearing(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the caller's token, and a deadline where the test gave none."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *self._metadata)
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=client_call_details.timeout or CALL_TIMEOUT_S,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


class Caller:
    """Somebody with a token: the stubs of every service, called in his name."""

    def __init__(self, bearer: str, channels: Callable[[str, Metadata], grpc.aio.Channel]) -> None:
        self.token = bearer
        self.metadata: Metadata = (("authorization", f"Bearer {bearer}"),)
        self._channels = channels

    def channel(self, service: str) -> grpc.aio.Channel:
        """His connection to a service."""
        return self._channels(service, self.metadata)

    @cached_property
    def directory(self) -> DirectoryServiceAsyncStub:
        return DirectoryServiceStub(self.channel("members"))

    @cached_property
    def regions(self) -> RegionServiceAsyncStub:
        return RegionServiceStub(self.channel("members"))

    @cached_property
    def members(self) -> MemberServiceAsyncStub:
        return MemberServiceStub(self.channel("members"))

    @cached_property
    def bindings(self) -> BindingServiceAsyncStub:
        return BindingServiceStub(self.channel("members"))

    @cached_property
    def codes(self) -> GuideCodeServiceAsyncStub:
        return GuideCodeServiceStub(self.channel("members"))

    @cached_property
    def plans(self) -> PlanServiceAsyncStub:
        return PlanServiceStub(self.channel("commission"))

    @cached_property
    def ledger(self) -> LedgerServiceAsyncStub:
        return LedgerServiceStub(self.channel("commission"))

    @cached_property
    def performance(self) -> PerformanceServiceAsyncStub:
        return PerformanceServiceStub(self.channel("commission"))

    @cached_property
    def events(self) -> OrderEventServiceAsyncStub:
        return OrderEventServiceStub(self.channel("commission"))


@dataclass
class Canaries:
    """What must never appear outside of a reply to somebody who may know it."""

    tokens: set[str] = field(default_factory=set)
    identities: set[str] = field(default_factory=set)


class Running:
    """The stack, connections to it, its clock and its databases."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.canaries = Canaries()
        self._plain: dict[str, grpc.aio.Channel] = {}
        self._bearing: dict[tuple[str, Metadata], grpc.aio.Channel] = {}
        self._callers: dict[tuple[str, ...], Caller] = {}
        self._mongo: MongoClient[dict[str, Any]] = MongoClient(stack.mongo.uri, tz_aware=True)
        self._shift = timedelta(0)

    async def close(self) -> None:
        """Closes every connection."""
        for channel in (*self._plain.values(), *self._bearing.values()):
            await channel.close()
        self._mongo.close()

    # ---- callers ------------------------------------------------------------------------------------

    def plain(self, service: str) -> grpc.aio.Channel:
        """A connection that adds nothing to the calls."""
        if service not in self._plain:
            target = self.stack.targets[service]
            self._plain[service] = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        return self._plain[service]

    def _of(self, service: str, metadata: Metadata) -> grpc.aio.Channel:
        if (service, metadata) not in self._bearing:
            self._bearing[service, metadata] = grpc.aio.insecure_channel(
                self.stack.targets[service], options=CHANNEL_OPTIONS, interceptors=[_Bearing(metadata)]
            )
        return self._bearing[service, metadata]

    def caller(
        self,
        role: str,
        *,
        brand: str = "",
        region: str = "",
        store: str = "",
        guide: str = "",
        subject: str = "",
    ) -> Caller:
        """Somebody of a role; with another subject, another person."""
        key = (role, brand, region, store, guide, subject)
        if key not in self._callers:
            keys = self.stack.keys
            bearer = token.mint(
                keys, role, brand=brand, region=region, store=store, guide=guide, subject=subject
            )
            self.canaries.tokens.add(bearer)
            self._callers[key] = Caller(bearer, self._of)
        return self._callers[key]

    # ---- the clock ----------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time as the services take it, in whole milliseconds."""
        return to_milliseconds(datetime.now(UTC) + self._shift)

    def later(self, **by: float) -> None:
        """Lets time pass for the services: later(days=7). It never goes back."""
        self._shift += timedelta(**by)
        self.stack.shift_clock(self._shift.total_seconds())

    # ---- what was written ---------------------------------------------------------------------------

    def database(self, service: str) -> Database[dict[str, Any]]:
        """The service's database."""
        return self._mongo[self.stack._database(service) or f"daogou_{service}"]

    def documents(self, service: str, collection: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What stands in a collection."""
        return list(self.database(service)[collection].find(query))

    def written(self, *brand_ids: str) -> dict[str, tuple[int, str]]:
        """Per collection, the number of all documents and a hash of those of the brands.

        Two that are equal say that nothing was written in between.
        """
        # Keys begin with the brand, but for the audit's, which are of no brand.
        of_brands = [{"_id": {"$gte": brand_id, "$lt": f"{brand_id}~"}} for brand_id in brand_ids]
        found = {}
        for spec in SERVICES:
            database = self.database(spec.name)
            for name in sorted(database.list_collection_names()):
                query = {"brand_id": {"$in": brand_ids}} if name == "audit" else {"$or": of_brands}
                hashed = hashlib.sha256()
                for document in self._raw(spec.name, name).find(query).sort("_id", 1):
                    hashed.update(document.raw)
                count = database[name].estimated_document_count()
                found[f"{spec.name}.{name}"] = (count, hashed.hexdigest())
        return found

    def _raw(self, service: str, collection: str) -> Any:
        database = self.database(service)
        options = database.codec_options.with_options(document_class=RawBSONDocument)
        return database.get_collection(collection, codec_options=options)

    def dump(self) -> Iterator[tuple[str, bytes]]:
        """Every document of every service, as the database holds it, with its collection's name."""
        for spec in SERVICES:
            for name in sorted(self.database(spec.name).list_collection_names()):
                for document in self._raw(spec.name, name).find():
                    yield f"{spec.name}.{name}", bytes(document.raw)

    @contextmanager
    def nothing_written(self, *brand_ids: str) -> Iterator[None]:
        """Fails unless the databases are after the block what they were before."""
        self.until_all_is_told(brand_ids)
        before = self.written(*brand_ids)
        yield
        after = self.written(*brand_ids)
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert not changed, f"written although refused: {sorted(changed)}"

    def until_all_is_told(self, brand_ids: Sequence[str]) -> None:
        """Waits for what one service has to tell another of earlier calls: it is written when it is told."""
        waiting = {"brand_id": {"$in": list(brand_ids)}, "outbox": {"$exists": True}}
        deadline_s = time.monotonic() + 5.0
        while self.documents("commission", "orders", waiting) and time.monotonic() < deadline_s:
            time.sleep(0.05)

    # ---- what was logged ----------------------------------------------------------------------------

    def log(self, service: str) -> str:
        """All that the service has written to its log since the stack was started."""
        return self.log_file(service).read_text(encoding="utf-8", errors="replace")

    def log_file(self, service: str) -> Path:
        return self.stack.log_file(service)


@dataclass(frozen=True)
class Refusal:
    """What a call was refused with."""

    code: grpc.StatusCode
    reason: str
    message: str
    violations: tuple[Violation, ...]
    retry_after_s: float | None
    trace_id: str

    @property
    def fields(self) -> set[str]:
        """The offending fields."""
        return {violation.field for violation in self.violations}


async def refusal(call: Awaitable[object]) -> Refusal:
    """How the call was refused. Fails when it was not, or by something that is not of Daogou."""
    try:
        reply = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"not refused: {reply!r:.500}")


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What a failed call says. Fails when it says nothing of Daogou's."""
    said = from_rpc_error(error)
    assert said is not None, f"{error.code()} without a reason: {error.details()}"
    trailing: Mapping[str, Any] = dict(error.trailing_metadata() or ())
    return Refusal(
        code=error.code(),
        reason=said.reason,
        message=said.message,
        violations=said.violations,
        retry_after_s=said.retry_after_s,
        trace_id=str(trailing.get("daogou-trace-id", "")),
    )


async def sent(channel: grpc.aio.Channel, method: MethodDescriptor, raw: bytes, metadata: Metadata) -> bytes:
    """Sends these bytes for a request, whatever the method's cardinality; the reply's bytes, or the first's.

    Raises: grpc.aio.AioRpcError.
    """
    path = path_of(method)
    options: dict[str, Any] = {"metadata": metadata, "timeout": CALL_TIMEOUT_S}
    if method.client_streaming:
        if method.server_streaming:
            return await _first(channel.stream_stream(path, bytes, bytes)(iter([raw]), **options))
        return await channel.stream_unary(path, bytes, bytes)(iter([raw]), **options)
    if method.server_streaming:
        return await _first(channel.unary_stream(path, bytes, bytes)(raw, **options))
    return await channel.unary_unary(path, bytes, bytes)(raw, **options)


async def _first(call: Any) -> bytes:
    try:
        reply = await call.read()
    finally:
        call.cancel()
    return b"" if reply is grpc.aio.EOF else bytes(reply)


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, within_s: float = 15.0) -> None:
    """Waits until something holds, looking often. Fails, naming it, when it takes too long."""
    deadline_s = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.05)
