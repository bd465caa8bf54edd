"""What an operator sees of a service: health, drain, metrics, logs, traces, limits; and what nobody sees.

A test that needs a service with other settings starts a replica of it beside the one that all share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.parser import text_string_to_metric_families

from daogou.commission.v1 import ledger_pb2, order_event_pb2
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import directory_pb2, guide_code_pb2, member_pb2
from daogou.vision.v1 import embedder_pb2
from daogou.vision.v1.embedder_pb2_grpc import EmbedderServiceStub
from local.embedded_mongo import EmbeddedMongo
from local.services import EMBEDDER, SERVICES
from local.stack import ROOT
from tests.messages import every_method, service_of
from tests.rpc.replicas import NOT_SERVING, SERVING, health, replica
from tests.rpc.running import CHANNEL_OPTIONS, Metadata, Running, eventually, refusal, refusal_of, sent
from tests.rpc.world import World, a_world, line_of, plan_of, refund_of
from tests.triggers import crop

NAMES: Final = [spec.name for spec in (*SERVICES, EMBEDDER)]


def get_brand(
    channel: grpc.aio.Channel, world: World, *, metadata: Metadata = (), timeout_s: float | None = 10
) -> Any:
    """The cheapest call that reads the database."""
    call = channel.unary_unary(
        "/daogou.members.v1.DirectoryService/GetBrand",
        directory_pb2.GetBrandRequest.SerializeToString,
        directory_pb2.GetBrandResponse.FromString,
    )
    request = directory_pb2.GetBrandRequest(brand_id=world.brand_id)
    return call(request, metadata=(*world.admin.metadata, *metadata), timeout=timeout_s)


def _state(task: Path) -> str:
    """Of a thread: T is stopped."""
    return (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


@contextlib.contextmanager
def database_stands_still(running: Running) -> Iterator[None]:
    """Nothing the database is asked gets an answer, until the end of the block."""
    mongo = running.stack.mongo
    if not isinstance(mongo, EmbeddedMongo):
        pytest.skip("MONGODB_URI is set, and that server is not ours to stop")
    mongo.freeze()
    try:
        # A signal is taken thread by thread, and one that still runs may answer.
        tasks = Path(f"/proc/{mongo.pid}/task")
        while not all(_state(task) == "T" for task in tasks.iterdir()):
            time.sleep(0.001)
        yield
    finally:
        mongo.thaw()


# ---- health and drain -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_the_health_port_tells_readiness_and_life_apart(name: str, running: Running) -> None:
    target = running.stack.health_targets[name]
    assert await health(target) == SERVING
    assert await health(target, "live") == SERVING
    assert await health(target, "nobody") == grpc.StatusCode.NOT_FOUND.value[0]
    # Nothing but health is served there, for it asks for no token.
    method = next(method for method in every_method() if service_of(method) == name)
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await sent(channel, method, b"", running.caller("PLATFORM").metadata)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", NAMES)
async def test_a_service_that_is_told_to_stop_says_so_serves_on_and_ends_well(
    name: str, running: Running, tmp_path: Path, world: World
) -> None:
    """NOT_SERVING, a while in which callers turn away, then the end: with status 0, and nothing cut off."""
    with replica(running, tmp_path, name, drain_s="1") as one:
        await one.serving()
        async with one.channel() as channel:
            told = time.monotonic()
            one.process.send_signal(signal.SIGTERM)

            async def turned_away() -> bool:
                return await health(one.health_target) == NOT_SERVING

            await eventually(turned_away, "it says that it is going", within_s=0.8)
            assert await health(one.health_target, "live") == SERVING, "nobody should kill it for that"
            assert await health(one.target) == NOT_SERVING, "clients ask on the port they call"
            if name == "members":
                assert (await get_brand(channel, world)).brand.brand_id == world.brand_id
            assert time.monotonic() - told < 1, "all that within the drain"
        assert await one.ended() == 0
        assert 1 <= time.monotonic() - told < 5
    events = [line["event"] for line in one.lines() if line["part"] == "life"]
    assert events == ["serving", "draining", "stopped"]


async def test_a_call_in_progress_is_finished_before_the_end(
    running: Running, tmp_path: Path, world: World
) -> None:
    with replica(running, tmp_path, "members", drain_s="0.1", grace_s="5") as one:
        await one.serving()
        async with one.channel() as channel:
            await get_brand(channel, world)
            with database_stands_still(running):
                call = get_brand(channel, world)
                await asyncio.sleep(0.1)
                one.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.3)
                assert not call.done()
            assert (await call).brand.brand_id == world.brand_id
        assert await one.ended() == 0


async def test_a_service_waits_for_its_indexes_and_says_what_is_missing(
    running: Running, tmp_path: Path
) -> None:
    database = f"daogou_members_{secrets.token_hex(4)}"
    with replica(
        running, tmp_path, "members", mongo_database=database, migrate_on_start="0", drain_s="0"
    ) as one:

        async def waits() -> bool:
            return any(line["event"] == "waiting" for line in one.lines())

        await eventually(waits, "it says that it waits")
        assert await health(one.health_target) == NOT_SERVING
        assert await health(one.health_target, "live") == SERVING
        assert await health(one.target) is None, "it takes no calls"
        [line] = [line for line in one.lines() if line["event"] == "waiting"]
        assert "run the migrate job" in line["missing"][0]
        for _ in range(2):
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "svc_members", "migrate"],
                env=one.env,
                cwd=ROOT,
                check=False,
                capture_output=True,
            )
            assert done.returncode == 0, done.stderr
        await one.serving()
    running._mongo.drop_database(database)


async def test_mistaken_settings_are_all_named_at_once_and_their_values_are_not(
    running: Running, tmp_path: Path
) -> None:
    with replica(
        running,
        tmp_path,
        "members",
        listen="everywhere",
        drain_s="-1",
        jwks_file="/nowhere/jwks-hunter2",
        log_level="loud",
        unary_calls_max="many-hunter2",
    ) as one:
        assert await one.ended() == 2
    said = one.log.read_text(encoding="utf-8")
    named = re.findall(r"^(DAOGOU_[A-Z_]+):", said, re.MULTILINE)
    assert sorted(named) == [
        "DAOGOU_DRAIN_S",
        "DAOGOU_JWKS_FILE",
        "DAOGOU_LISTEN",
        "DAOGOU_LOG_LEVEL",
        "DAOGOU_UNARY_CALLS_MAX",
    ]
    assert "hunter2" not in said


# ---- reflection -------------------------------------------------------------------------------------


async def reflected(channel: grpc.aio.Channel) -> set[str]:
    """The services that the server says it has."""
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    async for reply in call(asked, timeout=5):
        return {one.name for one in reply.list_services_response.service}
    return set()


@pytest.mark.parametrize("name", NAMES)
async def test_reflection_lists_every_service_of_the_contracts(name: str, running: Running) -> None:
    ours = {method.containing_service.full_name for method in every_method() if service_of(method) == name}
    assert await reflected(running.plain(name)) == ours | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_can_be_switched_off(running: Running, tmp_path: Path) -> None:
    with replica(running, tmp_path, "members", reflection="0") as one:
        await one.serving()
        async with one.channel() as channel:
            # A single message: what a stream sends after the refusal would fail in the client itself.
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ---- metrics ----------------------------------------------------------------------------------------


def samples_of(running: Running, name: str) -> list[tuple[str, dict[str, str], float]]:
    """What Prometheus would scrape: name, labels and value."""
    url = running.stack.metrics_urls[name]
    with urllib.request.urlopen(url, timeout=5) as reply:
        text = reply.read().decode()
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


async def test_calls_are_counted_under_the_names_that_dashboards_know(world: World) -> None:
    running = world.running

    def counted() -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for name, labels, value in samples_of(running, "members"):
            if labels.get("grpc_method") == "GetStore":
                assert labels["grpc_service"] == "daogou.members.v1.DirectoryService"
                assert labels["grpc_type"] == "unary"
                found[name, labels.get("grpc_code", "")] += int(value)
        return found

    before = counted()
    known = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id=world.nanjing_road)
    unknown = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id="a" * 16)
    for _ in range(3):
        await world.admin.directory.GetStore(known)
    await refusal(world.admin.directory.GetStore(unknown))
    await refusal(running.caller("BOX", brand=world.brand_id).directory.GetStore(known))
    with pytest.raises(grpc.aio.AioRpcError):
        await running.plain("members").unary_unary(
            "/daogou.members.v1.DirectoryService/GetStore", bytes, bytes
        )(b"\xff", timeout=5)
    gained = counted() - before
    assert gained["grpc_server_started_total", ""] == 6
    assert {code: number for (name, code), number in gained.items() if name.endswith("_handled_total")} == {
        "OK": 3,
        "NOT_FOUND": 1,
        "PERMISSION_DENIED": 1,
        "INVALID_ARGUMENT": 1,
    }
    assert gained["grpc_server_handling_seconds_count", ""] == 6
    assert gained["grpc_server_handling_seconds_bucket", ""] >= 6


LABELS: Final = {
    "grpc_type",
    "grpc_service",
    "grpc_method",
    "grpc_code",
    "le",
    "outcome",
    "act",
    "kind",
    "work",
    "priority",
    "reason",
    "stage",
    # Of prometheus-client's own.
    "generation",
    "implementation",
    "major",
    "minor",
    "patchlevel",
    "version",
}


@pytest.mark.parametrize("name", NAMES)
async def test_labels_name_nobody_and_their_values_are_few(name: str, running: Running, busy: World) -> None:
    samples = samples_of(running, name)
    assert {name for _, labels, _ in samples for name in labels} <= LABELS
    values = {value for _, labels, _ in samples for value in labels.values()}
    mine = {busy.brand_id, busy.nanjing_road, busy.member_id, busy.shop_id, *busy.guides}
    assert not values & (mine | running.canaries.identities | running.canaries.tokens)
    ids = re.compile(r"[a-z2-7]{16}")
    assert not [value for value in values if ids.fullmatch(value) or (value.isdecimal() and len(value) > 4)]
    assert len(values) < 200


# ---- limits -----------------------------------------------------------------------------------------


async def test_a_call_without_a_deadline_gets_one(running: Running, tmp_path: Path, world: World) -> None:
    with replica(running, tmp_path, "members", unary_timeout_s="0.4") as one:
        await one.serving()
        async with one.channel() as channel:
            await get_brand(channel, world, timeout_s=None)
            for timeout_s in (None, 60.0):
                with database_stands_still(running):
                    begun = time.monotonic()
                    found = await refusal(get_brand(channel, world, timeout_s=timeout_s))
                    took_s = time.monotonic() - begun
                assert (found.code, found.reason) == (
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    "CALL_TOO_LONG",
                ), timeout_s
                assert 0.3 < took_s < 2
            assert (await get_brand(channel, world)).brand.brand_id, "and the service is none the worse"


async def test_beyond_its_limit_of_calls_a_service_refuses_at_the_door(
    running: Running, tmp_path: Path, world: World
) -> None:
    with replica(running, tmp_path, "members", unary_calls_max="2") as one:
        await one.serving()
        async with one.channel() as channel:
            await get_brand(channel, world)
            with database_stands_still(running):
                held = [get_brand(channel, world) for _ in range(2)]
                await asyncio.sleep(0.2)
                begun = time.monotonic()
                found = await refusal(get_brand(channel, world))
                assert time.monotonic() - begun < 0.2, "at once: a queue would help nobody"
            assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
            assert found.retry_after_s is not None
            assert await health(one.health_target) == SERVING
            for call in held:
                assert (await call).brand.brand_id == world.brand_id
            assert (await get_brand(channel, world)).brand.brand_id == world.brand_id


# ---- traces -----------------------------------------------------------------------------------------


def traceparent(trace_id: str) -> Metadata:
    return (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)


def calls_logged(running: Running, name: str, trace_id: str) -> list[dict[str, Any]]:
    """The log lines of a service that carry a trace."""
    lines = (json.loads(line) for line in running.log(name).splitlines())
    return [line for line in lines if line.get("trace_id") == trace_id]


async def test_a_callers_trace_is_in_the_log_line_and_in_the_refusal(world: World) -> None:
    running = world.running
    good, bad = secrets.token_hex(16), secrets.token_hex(16)
    await get_brand(running.plain("members"), world, metadata=traceparent(good))
    unknown = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id="a" * 16)
    found = await refusal(world.admin.directory.GetStore(unknown, metadata=traceparent(bad)))
    assert found.trace_id == bad

    async def logged() -> bool:
        return bool(calls_logged(running, "members", good) and calls_logged(running, "members", bad))

    await eventually(logged, "both calls are in the log", within_s=2)
    [line] = calls_logged(running, "members", good)
    assert line["event"] == "call"
    assert line["method"] == "daogou.members.v1.DirectoryService/GetBrand"
    assert (line["code"], line["caller"], line["brand_id"]) == ("OK", "local-brand_admin", world.brand_id)
    assert line["ms"] > 0
    [line] = calls_logged(running, "members", bad)
    assert line["code"] == "NOT_FOUND"


async def test_a_trace_is_passed_on_from_service_to_service(running: Running) -> None:
    """Commission asks members whose a buyer is: one trace shows both."""
    world = await a_world(running, plan=plan_of())
    _, identity = await world.bound()
    running.later(hours=3)
    trace_id = secrets.token_hex(16)
    call = world.connector.events.IngestOrderEvents
    order = world.order(identity=identity)
    request = order_event_pb2.IngestOrderEventsRequest(
        brand_id=world.brand_id, events=[order.paid(line_of("coat", 100))]
    )
    await call(request, metadata=traceparent(trace_id))

    async def logged() -> bool:
        return bool(calls_logged(running, "commission", trace_id))

    await eventually(logged, "the call is in the log", within_s=2)
    asked = calls_logged(running, "members", trace_id)
    assert "daogou.members.v1.BindingService/BatchResolveBindings" in {line["method"] for line in asked}
    assert {line["caller"] for line in asked} == {"svc_commission"}


@pytest.mark.parametrize(
    "header",
    [
        "garbage",
        "",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
        f"00-{'a' * 31}-{'1' * 16}-01",
        f"00-{'a' * 32}-{'1' * 16}-01-more",
        "x" * 3000,
    ],
)
async def test_a_trace_that_is_none_is_replaced(header: str, world: World) -> None:
    unknown = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id="a" * 16)
    found = await refusal(world.admin.directory.GetStore(unknown, metadata=(("traceparent", header),)))
    assert re.fullmatch(r"[0-9a-f]{32}", found.trace_id)
    assert found.trace_id not in header


# ---- what nobody sees -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def busy(running: Running) -> World:
    """A brand in which everything has happened that touches what must not be seen."""
    world = await a_world(running, plan=plan_of())
    phone = world.identity()
    everything = [phone, *[world.identity(kind) for kind in IdentityKind.values()[1:] if kind != 5]]
    await world.connector.members.EnrolMember(
        member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=everything)
    )
    code = await world.code()
    scanned = await world.scan(code, everything[3])
    await world.admin.members.RevealIdentity(
        member_pb2.RevealIdentityRequest(
            brand_id=world.brand_id,
            member_id=scanned.member_id,
            kind=IdentityKind.IDENTITY_KIND_PHONE,
            purpose="a test",
        )
    )
    await world.admin.directory.CreateGuide(
        directory_pb2.CreateGuideRequest(
            brand_id=world.brand_id,
            request_id=secrets.token_hex(8),
            guide=directory_pb2.Guide(
                store_id=world.nanjing_road, display_name="Lin Mei", accounts=[world.identity()]
            ),
        )
    )
    running.later(hours=3)
    order = world.order(identity=everything[1])
    await world.ingest(order.paid(line_of("coat", 100)), order.refunded(refund_of("coat", 50)))
    await world.ingest(order.paid(line_of("coat", 101)))
    waiting = world.order(identity=world.identity(), shop_id="not-yet-open")
    await world.ingest(waiting.paid(line_of("coat", 100)))
    await world.admin.ledger.GetBalance(
        ledger_pb2.GetBalanceRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    )
    embedder = EmbedderServiceStub(running.caller("SERVICE").channel("embedder"))
    for number in range(8):
        request = embedder_pb2.EmbedRequest(
            crop=embedder_pb2.Crop(pixels=crop(number)), priority=embedder_pb2.EMBED_PRIORITY_DOOR
        )
        await embedder.Embed(request)
    # And what goes wrong with such values in hand.
    for wrong in (phone.value, code):
        await refusal(world.scan(wrong[:-1], phone))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _as_nobody(running, world, everything[2].value)
    refusal_of(caught.value)
    return world


async def _as_nobody(running: Running, world: World, value: str) -> None:
    """A call whose token is an identity, by somebody's mistake."""
    call = running.plain("members").unary_unary(
        "/daogou.members.v1.DirectoryService/GetBrand",
        directory_pb2.GetBrandRequest.SerializeToString,
        directory_pb2.GetBrandResponse.FromString,
    )
    request = directory_pb2.GetBrandRequest(brand_id=world.brand_id)
    await call(request, metadata=(("authorization", f"Bearer {value}"),), timeout=5)


IDENTITY: Final = re.compile(r"cust-[0-9a-f]{18}|139[0-9]{8}")
"""What every customer's identity in these tests looks like, a phone's without its country."""


def identities_in(text: str, running: Running) -> set[str]:
    """The customers' identities that are in a text."""
    values = {value.removeprefix("+86") for value in running.canaries.identities}
    assert all(IDENTITY.fullmatch(value) for value in values)
    return values & set(IDENTITY.findall(text))


def keys_in(text: str, running: Running) -> set[str]:
    """The names of the keys that are in a text."""
    files = running.stack.keys.folder.glob("*.json")
    named = [
        (f"{name} of {file.name}", value)
        for file in files
        for name, value in secrets_in(json.loads(file.read_text(encoding="ascii")))
    ]
    assert len(named) >= 5
    return {name for name, value in named if value in text}


def secrets_in(content: Any) -> Iterator[tuple[str, str]]:
    """The secret values of a key file: the private halves of keys, and symmetric keys."""
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, str) and len(value) >= 40 and name != "x":
                yield name, value
            else:
                yield from secrets_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from secrets_in(value)


@pytest.mark.parametrize("name", [*NAMES, "mongod"])
async def test_no_token_no_identity_and_no_key_is_in_any_log(
    name: str, running: Running, busy: World
) -> None:
    """Of all tests that ran so far, in the logs of the services and of the database."""
    log = running.log(name)
    assert len(log) > 1000
    assert len(running.canaries.identities) > 10
    assert not identities_in(log, running)
    assert not keys_in(log, running)
    assert all(re.match(r"eyJ[A-Za-z0-9_-]{8,}\.", token) for token in running.canaries.tokens)
    assert not re.search(r"eyJ[A-Za-z0-9_-]{8,}\.", log), "something like a token"


async def test_no_identity_is_in_the_databases_in_the_clear(running: Running, busy: World) -> None:
    """Whoever steals a dump has nobody's number."""
    size = 0
    for collection, document in running.dump():
        size += len(document)
        found = identities_in(document.decode("latin-1"), running)
        assert not found, f"{len(found)} in {collection}"
    assert size > 10_000


@pytest.mark.parametrize("name", NAMES)
async def test_every_line_of_a_log_is_json_with_time_level_and_service(name: str, running: Running) -> None:
    for line in running.log(name).splitlines():
        entry = json.loads(line)
        assert {"timestamp", "level", "event", "service"} <= entry.keys(), line
        assert entry["service"] == name


async def test_a_guide_code_tells_nothing_of_its_key(running: Running, busy: World) -> None:
    reply = await busy.connector.codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=busy.brand_id, store_id=busy.nanjing_road, guide_id=busy.guides[0]
        )
    )
    assert not keys_in(f"{reply.code} {reply.link} {reply.qr_svg}", running)
