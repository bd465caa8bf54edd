"""Nothing a caller sends makes a service fall over: hostile messages, broken bytes, for every RPC there is.

`DAOGOU_SEED=n` repeats a run; every failure names its seed.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from chassis.rpc.status import from_rpc_error
from chassis.times import to_timestamp
from daogou.commission.v1.performance_pb2 import PeriodRange
from daogou.common.v1 import access_pb2
from daogou.common.v1.access_pb2 import Access, Role
from daogou.common.v1.date_pb2 import Date
from daogou.members.v1.follow_up_pb2 import CreateTaskRequest, Task
from daogou.members.v1.member_pb2 import LinkIdentityRequest
from tests.messages import Accepted, Hostile, Values, every_method, service_of
from tests.rpc.care import Care
from tests.rpc.running import Caller, Running, sent
from tests.rpc.world import World, request_id

SEED: Final = int(os.environ.get("DAOGOU_SEED", random.SystemRandom().randrange(10**9)))
METHODS: Final = every_method()
NAMES: Final = [method.full_name.removeprefix("daogou.") for method in METHODS]
SERVICES: Final = sorted({service_of(method) for method in METHODS})
MESSAGES: Final = 1_500
"""Of each kind, over all RPCs; under --soak twenty times as many."""
GROWTH_MIB_MAX: Final = 60

# What a message may be answered with. INTERNAL and UNKNOWN are not among them, and neither is silence.
ANSWERS: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def somebody_admitted(method: MethodDescriptor, world: World) -> Caller:
    """Somebody whom the method admits, as free in what he may name as its roles allow."""
    access: Access = method.GetOptions().Extensions[access_pb2.access]
    role = min(access.roles)
    ids = {} if role in {Role.ROLE_PLATFORM, Role.ROLE_SERVICE} else {"brand": world.brand_id}
    if role >= Role.ROLE_STORE_MANAGER:
        ids["store"] = world.nanjing_road
    if role == Role.ROLE_GUIDE:
        ids["guide"] = world.guides[0]
    return world.running.caller(Role.Name(Role.ValueType(role)).removeprefix("ROLE_"), **ids)


@pytest.fixture(scope="module")
async def values(world: World) -> Values:
    """What is real in the world, by field name, so that hostile messages get past the first look-up.

    Made before the first message: one of them may well dismiss the guide.
    """
    order = world.order()
    (bound, _), (_, card) = await world.bound(), await world.bound(1)
    request = LinkIdentityRequest(brand_id=world.brand_id, member_id=bound, identity=card)
    merge = (await world.connector.members.LinkIdentity(request)).merge
    return {
        "brand_id": [world.brand_id],
        "region_id": ["", world.region_id, "a" * 16],
        "parent_region_id": ["", world.region_id, "a" * 16],
        "store_id": [world.nanjing_road, world.nanjing_road, world.xintiandi, "a" * 16],
        "selling_store_id": ["", world.nanjing_road],
        "pool_store_id": [world.nanjing_road, world.flagship],
        "guide_id": [*world.guides, "a" * 16],
        "member_id": [world.member_id, bound, merge.merged_member_id, "a" * 16],
        "merge_id": [merge.merge_id, "a" * 16],
        "task_id": [await a_task(world, bound), "a" * 16],
        "order_id": [order.order_id, "another"],
        "order_placed_time": [to_timestamp(order.placed_time)],
        "event_id": ["PLACED", "PAID:1", "PAID:2", "SHIPPED:1", "RECEIVED", "REFUND:1", "CLOSED"],
        "shop_id": [world.shop_id, "unknown-shop"],
        # Of one name, so that most deliveries come from whoever was registered as their shop's.
        "feed_id": ["erp"],
        "currency_code": ["CNY"],
        "code": [await world.code(), "garbage"],
        "line_id": ["a", "b"],
        "period": [Date(year=2026, month=11), Date(year=2026, month=11, day=22)],
        "range": [PeriodRange(first=Date(year=2026, month=1), last=Date(year=2026, month=12))],
    }


async def a_task(world: World, member_id: str) -> str:
    """The id of an open task of the first guide, for a member of hers."""
    task = Task(title="Call him", due_time=to_timestamp(world.running.now()))
    request = CreateTaskRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide_id=world.guides[0],
        member_id=member_id,
        task=task,
    )
    return (await Care(world.connector).follow_up.CreateTask(request)).task.task_id


async def answered(
    channel: grpc.aio.Channel, method: MethodDescriptor, raw: bytes, caller: Caller
) -> tuple[grpc.StatusCode, str]:
    """The status of a call with these bytes for a message, and its details."""
    try:
        await sent(channel, method, raw, caller.metadata)
    except grpc.aio.AioRpcError as error:
        code = error.code()
        if code in ANSWERS and from_rpc_error(error) is None:
            return grpc.StatusCode.UNKNOWN, f"{code.name} without a reason: {error.details()}"
        return code, str(error.details())
    return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def count(soak: bool) -> int:
    """Messages per RPC."""
    return (MESSAGES * 20 if soak else MESSAGES) // len(METHODS)


@pytest.fixture(scope="module", autouse=True)
def pids(running: Running) -> Mapping[str, int | None]:
    """The processes that the first message meets."""
    return {service: running.stack.pid(service) for service in SERVICES}


@pytest.fixture(scope="module")
def codes() -> Counter[str]:
    """How messages were answered."""
    return Counter()


def rss_mib(running: Running, service: str) -> float:
    """Memory that the service's process holds."""
    status = Path(f"/proc/{running.stack.pid(service)}/status").read_text(encoding="ascii")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) / 1024


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_hostile_messages_are_answered_in_the_contracts_words(
    method: MethodDescriptor, running: Running, world: World, count: int, values: Values, codes: Counter[str]
) -> None:
    draw = random.Random(f"{SEED}|{method.full_name}")
    hostile = Hostile(draw, values)
    caller, channel = somebody_admitted(method, world), running.plain(service_of(method))
    for _ in range(count):
        message = hostile.message(method.input_type)
        code, details = await answered(channel, method, message.SerializeToString(), caller)
        codes[code.name] += 1
        assert code in ANSWERS, f"DAOGOU_SEED={SEED}: {code.name} {details}\n{_shown(message)}"


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_acceptable_messages_with_random_values_are_answered(
    method: MethodDescriptor, running: Running, world: World, count: int, values: Values, codes: Counter[str]
) -> None:
    """What the limits let through reaches the rules and the database, and those must stand it too."""
    draw = random.Random(f"{SEED}|accepted|{method.full_name}")
    accepted = Accepted(values, draw=draw, now=running.now())
    caller, channel = somebody_admitted(method, world), running.plain(service_of(method))
    for _ in range(count // 2):
        message = accepted.message(method.input_type)
        code, details = await answered(channel, method, message.SerializeToString(), caller)
        codes[code.name] += 1
        assert code in ANSWERS, f"DAOGOU_SEED={SEED}: {code.name} {details}\n{_shown(message)}"


def test_the_messages_have_tried_something(codes: Counter[str]) -> None:
    """A fuzzer whose every message is turned away at the door shows nothing."""
    if not codes:
        pytest.skip("runs after the tests above, and they were left out")
    tried = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED"}
    assert tried <= codes.keys(), f"DAOGOU_SEED={SEED}: {codes}"
    assert codes["OK"] > codes.total() / 20, f"DAOGOU_SEED={SEED}: {codes}"


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_broken_bytes_are_refused_as_what_they_are(
    method: MethodDescriptor, running: Running, world: World, count: int, values: Values
) -> None:
    """Bytes that are no message are the caller's mistake: INVALID_ARGUMENT, in our words."""
    draw = random.Random(f"{SEED}|bytes|{method.full_name}")
    hostile = Hostile(draw, values)
    accepted = Accepted(values, draw=draw, now=running.now())
    caller, channel = somebody_admitted(method, world), running.plain(service_of(method))
    parse = GetMessageClass(method.input_type).FromString
    for _ in range(count):
        raw = hostile.bytes_of(accepted.message(method.input_type))
        code, details = await answered(channel, method, raw, caller)
        context = f"DAOGOU_SEED={SEED}: {code.name} {details}\n{raw.hex()[:2000]}"
        assert code in ANSWERS, context
        assert "<class" not in details, f"tells of our insides: {context}"
        if not _parses(parse, raw):
            assert code is grpc.StatusCode.INVALID_ARGUMENT, context


def _parses(parse: Any, raw: bytes) -> bool:
    try:
        parse(raw)
    except DecodeError:
        return False
    return True


def _shown(message: Message) -> str:
    return f"{message!r:.3000}"


async def test_a_message_over_the_size_limit_is_refused_by_size(running: Running, world: World) -> None:
    method = next(method for method in METHODS if method.name == "EnrolMember")
    caller = somebody_admitted(method, world)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sent(running.plain("members"), method, b"\x0a\xff" + b"x" * (9 << 20), caller.metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("service", SERVICES)
async def test_memory_stays_flat_under_hostile_messages(
    service: str, running: Running, world: World, count: int, values: Values
) -> None:
    """After a first round has filled what is kept on purpose, more of the same must not add to it."""
    methods = [method for method in METHODS if service_of(method) == service]
    channel = running.plain(service)
    draw = random.Random(f"{SEED}|memory|{service}")
    hostile = Hostile(draw, values)

    async def round_() -> None:
        for _ in range(count // 5):
            for method in methods:
                raw = hostile.message(method.input_type).SerializeToString()
                await answered(channel, method, raw, somebody_admitted(method, world))

    await round_()
    before = rss_mib(running, service)
    for _ in range(2):
        await round_()
    grown = rss_mib(running, service) - before
    assert grown < GROWTH_MIB_MAX, f"DAOGOU_SEED={SEED}: {service} grew by {grown:.0f} MiB"


@pytest.mark.parametrize("service", SERVICES)
async def test_after_all_that_it_serves_and_has_foreseen_everything(
    service: str, running: Running, pids: Mapping[str, int | None]
) -> None:
    """The same process still answers, and its log has no line at level error."""
    check = running.plain(service).unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    reply = await check(health_pb2.HealthCheckRequest(service=""), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert running.stack.pid(service) == pids[service], "the process ended and was started again"
    lines = running.log(service).splitlines()
    errors = [line for line in lines if not line.startswith("{") or json.loads(line)["level"] == "error"]
    assert not errors, f"DAOGOU_SEED={SEED}, {len(errors)} lines such as {errors[0]:.3000}"
