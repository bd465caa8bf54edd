"""Streams of replies, over a real connection: what goes around them, and every way in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.errors import DaogouError, Refused, Unavailable
from chassis.rpc import call, client
from chassis.rpc.identity import KeySet, TokenVerifier
from chassis.rpc.life import Registration, Wrapping
from chassis.rpc.status import from_rpc_error
from chassis.settings import ServiceSettings
from daogou.members.v1.binding_watch_pb2 import WatchBindingsRequest as Request
from daogou.members.v1.binding_watch_pb2 import WatchBindingsResponse as Reply
from daogou.members.v1.binding_watch_pb2_grpc import BindingWatchServiceStub
from daogou.members.v1.binding_watch_pb2_grpc import add_BindingWatchServiceServicer_to_server as add_watch
from daogou.members.v1.directory_pb2 import GetBrandRequest, GetBrandResponse
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from daogou.members.v1.directory_pb2_grpc import add_DirectoryServiceServicer_to_server as add_directory

KEY = Ed25519PrivateKey.generate()
BRAND = "abcdefghijklmnop"
REQUEST = Request(brand_id=BRAND)
SERVICE, METHOD = "daogou.members.v1.BindingWatchService", "WatchBindings"
LARGE = Reply(resume_token="x" * (1 << 20))
"""Of these a connection holds few until the caller reads."""

Behaviour = Callable[[int], AsyncGenerator[Reply, None]]
"""What the servicer does when it is called for the n-th time."""


async def for_ever(_call: int) -> AsyncGenerator[Reply, None]:
    """One message, then none."""
    yield Reply(resume_token="1")
    await asyncio.Event().wait()


async def too_much(_call: int) -> AsyncGenerator[Reply, None]:
    """More than anybody reads."""
    while True:
        yield LARGE


async def three(_call: int) -> AsyncGenerator[Reply, None]:
    """Three messages."""
    for number in range(3):
        yield Reply(resume_token=str(number))


@dataclass
class Servicer:
    """Streams as a test wants it, and notes what becomes of it."""

    behaviour: Behaviour = three
    calls: int = 0
    open: int = 0
    callers: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    async def WatchBindings(self, request: Request, context: Any) -> AsyncGenerator[Reply, None]:
        self.calls += 1
        self.open += 1
        self.callers.append(call.caller().subject)
        self.traces.append(call.current.get().trace_id)
        try:
            async with contextlib.aclosing(self.behaviour(self.calls)) as replies:
                async for reply in replies:
                    yield reply
        finally:
            # What a servicer has to close takes time, too.
            await asyncio.sleep(0)
            self.open -= 1


class Directory:
    """Answers a unary call when it is told to."""

    def __init__(self) -> None:
        self.held: asyncio.Event | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[GetBrandResponse]]:
        async def answer(request: GetBrandRequest, context: Any) -> GetBrandResponse:
            if self.held is not None:
                await self.held.wait()
            return GetBrandResponse()

        return answer


@dataclass
class Served:
    """A server of both, and a connection to it."""

    servicer: Servicer
    directory: Directory
    wrapping: Wrapping
    server: grpc.aio.Server
    port: int
    channel: grpc.aio.Channel

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def watch(self, bearer: str = "", channel: grpc.aio.Channel | None = None) -> Any:
        """A stream."""
        stub: Any = BindingWatchServiceStub(channel or self.channel)
        return stub.WatchBindings(REQUEST, metadata=metadata(bearer or token()), timeout=20)

    async def get_brand(self) -> GetBrandResponse:
        """A unary call."""
        stub: Any = DirectoryServiceStub(self.channel)
        reply: GetBrandResponse = await stub.GetBrand(
            GetBrandRequest(brand_id=BRAND), metadata=metadata(token()), timeout=20
        )
        return reply

    async def closed(self) -> None:
        """Returns once the servicer's generators have all run to their end."""
        deadline_s = time.monotonic() + 30
        while self.servicer.open:
            assert time.monotonic() < deadline_s, f"{self.servicer.open} generators are still open"
            await asyncio.sleep(0.01)


def token(ttl_s: float = 300, **claims: Any) -> str:
    """A connector's token."""
    good = {"sub": "crm", "aud": "daogou", "role": "CONNECTOR", "brand_id": BRAND}
    return jwt.encode(
        {**good, "exp": int(time.time() + ttl_s), **claims}, KEY, algorithm="EdDSA", headers={"kid": "k1"}
    )


def metadata(bearer: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {bearer}"),)


def settings(**changed: Any) -> ServiceSettings:
    """All that the chain reads of a service's settings."""
    defaults = {"unary_calls_max": 500, "unary_timeout_s": 30.0, "streams_max": 200}
    return ServiceSettings.model_construct(**{**defaults, **changed})


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server with a behaviour and settings."""
    public = {**jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1"}
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public]}), encoding="ascii")
    verifier = TokenVerifier(KeySet(jwks), "daogou")
    async with contextlib.AsyncExitStack() as stack:

        async def start(behaviour: Behaviour = three, **changed: Any) -> Served:
            servicer, directory = Servicer(behaviour), Directory()
            wrapping, server = Wrapping(settings(**changed), verifier), grpc.aio.server()
            registrations: list[Registration] = [(add_watch, servicer), (add_directory, directory)]
            wrapping.add(server, registrations)
            ready = health.aio.HealthServicer()
            await ready.set("", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(ready, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
            )
            return Served(servicer, directory, wrapping, server, port, channel)

        yield start


async def read(stream: Any) -> tuple[list[str], DaogouError | None]:
    """All messages, and what the stream ended with; None: well."""
    found: list[str] = []
    ended = None
    try:
        while (reply := await stream.read()) != grpc.aio.EOF:
            found.append(reply.resume_token)
    except grpc.aio.AioRpcError as error:
        ended = error
    if ended is None:
        return found, None
    said = from_rpc_error(ended)
    assert said is not None, f"{ended.code()} without a reason: {ended.details()}"
    return found, said


async def refused(stream: Any) -> DaogouError:
    """How a stream ended, before or after its messages."""
    _, error = await read(stream)
    assert error is not None, "not refused"
    return error


async def begun(stream: Any) -> Any:
    """The stream, once its first message has come."""
    assert await stream.read() != grpc.aio.EOF
    return stream


# ---- messages and errors ----------------------------------------------------------------------------


async def test_messages_come_in_order_and_the_stream_ends_well(serve: Serve) -> None:
    served = await serve()
    assert await read(served.watch()) == (["0", "1", "2"], None)
    assert served.servicer.callers == ["crm"], "the servicer knows who calls"
    await served.closed()


async def test_an_error_in_the_middle_comes_after_the_messages_before_it(serve: Serve) -> None:
    async def fails(_call: int) -> AsyncGenerator[Reply, None]:
        yield Reply(resume_token="0")
        raise Refused("GUIDE_RESIGNED", "the guide has resigned")

    served = await serve(fails)
    found, error = await read(served.watch())
    assert found == ["0"]
    assert isinstance(error, Refused)
    assert error.reason == "GUIDE_RESIGNED"
    await served.closed()


async def test_what_nobody_foresaw_is_told_as_internal_and_no_more(serve: Serve) -> None:
    async def fails(_call: int) -> AsyncGenerator[Reply, None]:
        yield Reply(resume_token="0")
        raise KeyError("hunter2")

    served = await serve(fails)
    with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await begun(served.watch())).read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"
    assert "unforeseen" in {line["event"] for line in lines}


@pytest.mark.parametrize(
    ("raw", "claims", "reason"),
    [
        (REQUEST.SerializeToString(), None, "TOKEN_INVALID"),
        (REQUEST.SerializeToString(), {"role": "BOX"}, "ROLE_NOT_ADMITTED"),
        (REQUEST.SerializeToString(), {"brand_id": "b" * 16}, "NOT_YOUR_BRAND"),
        (b"", {"brand_id": "b" * 16}, "NOT_YOUR_BRAND"),
        (REQUEST.SerializeToString() + b"\xff", {}, "MESSAGE_MALFORMED"),
        (Request(brand_id=BRAND, resume_token="x" * 65).SerializeToString(), {}, "INVALID_FIELDS"),
    ],
)
async def test_a_stream_is_refused_like_any_call_and_then_does_not_begin(
    serve: Serve, raw: bytes, claims: dict[str, Any] | None, reason: str
) -> None:
    served = await serve()
    call = served.channel.unary_stream(f"/{SERVICE}/{METHOD}", bytes, Reply.FromString)
    # Made now: one that was made when the tests were collected has expired by the time this one runs.
    bearer = "none" if claims is None else token(**claims)
    error = await refused(call(raw, metadata=metadata(bearer)))
    assert error.reason == reason
    assert served.servicer.calls == 0


async def test_the_deadline_of_unary_calls_ends_no_stream(serve: Serve) -> None:
    async def slow(_call: int) -> AsyncGenerator[Reply, None]:
        for number in range(3):
            await asyncio.sleep(0.15)
            yield Reply(resume_token=str(number))

    served = await serve(slow, unary_timeout_s=0.1)
    assert await read(served.watch()) == (["0", "1", "2"], None)


async def test_a_method_that_takes_a_stream_is_refused_at_the_start(serve: Serve) -> None:
    served = await serve()

    class Reflection:
        def ServerReflectionInfo(self) -> None: ...

    with pytest.raises(ValueError, match="ServerReflectionInfo"):
        served.wrapping.add(
            grpc.aio.server(),
            [(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, Reflection())],
        )


# ---- limits -----------------------------------------------------------------------------------------


async def test_streams_and_unary_calls_are_limited_apart(serve: Serve) -> None:
    served = await serve(for_ever, streams_max=2, unary_calls_max=1)
    held = [await begun(served.watch()) for _ in range(2)]
    error = await refused(served.watch())
    assert (error.reason, error.retry_after_s) == ("TOO_MANY_STREAMS", 0.2)
    await served.get_brand()

    for stream in held:
        stream.cancel()
    await served.closed()
    served.directory.held = asyncio.Event()
    busy = asyncio.create_task(served.get_brand())
    await asyncio.sleep(0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.get_brand()
    said = from_rpc_error(caught.value)
    assert said is not None
    assert said.reason == "TOO_MANY_CALLS"
    await begun(served.watch())
    served.directory.held.set()
    await busy


@pytest.mark.parametrize("behaviour", [for_ever, too_much])
async def test_a_caller_who_leaves_frees_his_place_and_the_servicer_closes_what_it_opened(
    serve: Serve, behaviour: Behaviour
) -> None:
    """Also while it waits for him to read."""
    served = await serve(behaviour, streams_max=1)
    with capture_logs() as lines:
        for _ in range(3):
            stream = await begun(served.watch())
            await asyncio.sleep(0.05)
            assert served.servicer.open == 1
            stream.cancel()
            await served.closed()
    assert served.servicer.calls == 3, "none was refused for want of a place"
    assert [line["code"] for line in lines] == ["CANCELLED"] * 3, lines


async def test_who_does_not_read_is_waited_for(serve: Serve) -> None:
    """Else his messages would fill the service's memory."""
    made = 0

    async def counted(_call: int) -> AsyncGenerator[Reply, None]:
        nonlocal made
        while True:
            made += 1
            yield LARGE

    served = await serve(counted)
    stream = await begun(served.watch())
    await asyncio.sleep(0.3)
    before = made
    await asyncio.sleep(0.3)
    assert made == before < 100
    for _ in range(100):
        await stream.read()
    assert made >= 100
    stream.cancel()


async def test_a_connection_that_is_gone_ends_its_streams_without_an_error(serve: Serve) -> None:
    """A caller's machine lost its power: there is nothing to log as our mistake."""

    async def ticking(_call: int) -> AsyncGenerator[Reply, None]:
        while True:
            yield Reply(resume_token="tick")
            await asyncio.sleep(0)

    served = await serve(ticking)
    for _ in range(5):
        async with relayed(served.port) as (port, cut), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as far:
            streams = [await begun(served.watch(channel=far)) for _ in range(4)]
            with capture_logs() as lines:
                cut()
                await served.closed()
            for stream in streams:
                stream.cancel()
        assert {line["log_level"] for line in lines} == {"info"}, lines
        assert Counter(line["code"] for line in lines) == {"CANCELLED": 4}


@contextlib.asynccontextmanager
async def relayed(port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A port that leads to another, and what cuts the line."""
    lines: list[asyncio.StreamWriter] = []
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        lines.extend((writer, far_writer))
        pumps.extend(
            asyncio.create_task(pump(*ends)) for ends in ((reader, far_writer), (far_reader, writer))
        )

    def cut() -> None:
        for writer in lines:
            writer.transport.abort()

    relay = await asyncio.start_server(joined, "127.0.0.1", 0)
    try:
        yield relay.sockets[0].getsockname()[1], cut
    finally:
        cut()
        await asyncio.gather(*pumps)
        relay.close()
        await relay.wait_closed()


# ---- its own ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [for_ever, too_much])
async def test_a_stream_ends_with_its_callers_token(serve: Serve, behaviour: Behaviour) -> None:
    """Whether he reads or not."""
    served = await serve(behaviour, streams_max=1)
    expires_s = int(time.time()) + 2
    stream = await begun(served.watch(token(exp=expires_s)))
    await asyncio.sleep(expires_s - time.time() - 0.1)
    assert served.servicer.open == 1
    await served.closed()
    assert expires_s <= time.time() < expires_s + 1
    error = await refused(stream)
    assert error.reason == "TOKEN_EXPIRED"
    assert not isinstance(error, Unavailable), "another replica would say the same"
    await begun(served.watch())


async def test_a_stream_with_a_token_for_a_thousand_years_begins(serve: Serve) -> None:
    served = await serve()
    assert await read(served.watch(token(exp=10**11))) == (["0", "1", "2"], None)


async def test_streams_end_when_the_service_does_and_say_that_another_goes_on(serve: Serve) -> None:
    """SIGTERM would else wait for them as long as it waits for anything."""
    served = await serve(for_ever)
    held = [await begun(served.watch()) for _ in range(50)]
    served.directory.held = asyncio.Event()
    busy = asyncio.create_task(served.get_brand())
    await asyncio.sleep(0.05)

    served.wrapping.end_streams()
    late = await refused(served.watch())
    stopping = asyncio.create_task(served.server.stop(10))
    for error in [late, *[await refused(stream) for stream in held]]:
        assert isinstance(error, Unavailable)
        assert (error.reason, error.retry_after_s) == ("SHUTTING_DOWN", 0)
    await served.closed()
    assert served.servicer.calls == 50, "the late one did not begin"
    assert not busy.done(), "calls in progress are not cut off"
    served.directory.held.set()
    await busy
    await asyncio.wait_for(stopping, 2)


async def test_a_caller_who_leaves_at_the_shutdown_is_let_go(serve: Serve) -> None:
    """Both at once: the stream ends, whoever was first."""
    served = await serve(for_ever)
    held = [await begun(served.watch()) for _ in range(20)]
    for stream in held:
        stream.cancel()
    served.wrapping.end_streams()
    await served.closed()


# ---- what is seen of it -----------------------------------------------------------------------------


def counted(name: str, **labels: str) -> float:
    """A metric of the method."""
    every = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": METHOD, **labels}
    return REGISTRY.get_sample_value(name, every) or 0


async def test_a_stream_is_counted_timed_and_logged_once_at_its_end(serve: Serve) -> None:
    async def slow(_call: int) -> AsyncGenerator[Reply, None]:
        async for reply in three(_call):
            yield reply
        await asyncio.sleep(0.2)
        raise Refused("GUIDE_RESIGNED", "the guide has resigned")

    served = await serve(slow)
    names = ("grpc_server_started_total", "grpc_server_msg_sent_total", "grpc_server_handling_seconds_sum")
    before = [counted(name) for name in names]
    ended = counted("grpc_server_handled_total", grpc_code="FAILED_PRECONDITION")
    with capture_logs() as lines:
        await read(served.watch())
        await served.closed()
    started, sent, seconds = [counted(name) - was for name, was in zip(names, before, strict=True)]
    assert (started, sent) == (1, 3)
    assert 0.2 <= seconds < 2
    assert counted("grpc_server_handled_total", grpc_code="FAILED_PRECONDITION") == ended + 1
    [line] = lines
    assert (line["event"], line["method"], line["code"]) == (
        "call",
        f"{SERVICE}/{METHOD}",
        "FAILED_PRECONDITION",
    )
    assert (line["messages"], line["caller"], line["brand_id"]) == (3, "crm", BRAND)
    assert 200 <= line["ms"] < 2000
    with capture_logs() as lines:
        await served.get_brand()
    assert "messages" not in lines[0]


# ---- the shipped client -----------------------------------------------------------------------------


async def test_the_shipped_client_signs_and_traces_streams(serve: Serve) -> None:
    served = await serve()
    async with client.connect(served.target, token) as channel:
        stub: Any = BindingWatchServiceStub(channel)
        call.current.set(call.Call("0af7651916cd43dd8448eb211c80319c"))
        assert await read(stub.WatchBindings(REQUEST)) == (["0", "1", "2"], None)
    assert served.servicer.callers == ["crm"]
    assert served.servicer.traces == ["0af7651916cd43dd8448eb211c80319c"]


async def test_a_stream_that_has_not_begun_is_tried_again(serve: Serve) -> None:
    async def at_second(call: int) -> AsyncGenerator[Reply, None]:
        if call == 1:
            raise Unavailable("SHUTTING_DOWN", "this replica is shutting down", retry_after_s=0)
        yield Reply(resume_token="0")

    served = await serve(at_second)
    async with client.connect(served.target, token) as channel:
        stub: Any = BindingWatchServiceStub(channel)
        assert await read(stub.WatchBindings(REQUEST)) == (["0"], None)
    assert served.servicer.calls == 2


async def test_a_stream_that_has_begun_is_never_begun_again_behind_its_readers_back(serve: Serve) -> None:
    """He would be told twice, and take it for new; he knows where he was, and resumes there."""

    async def cut_off(_call: int) -> AsyncGenerator[Reply, None]:
        yield Reply(resume_token="0")
        raise Unavailable("SHUTTING_DOWN", "this replica is shutting down", retry_after_s=0)

    served = await serve(cut_off)
    async with client.connect(served.target, token) as channel:
        stub: Any = BindingWatchServiceStub(channel)
        found, error = await read(stub.WatchBindings(REQUEST))
    assert found == ["0"]
    assert isinstance(error, Unavailable)
    assert served.servicer.calls == 1
