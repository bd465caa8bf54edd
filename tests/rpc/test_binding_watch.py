"""Watching a brand's bindings over the wire: every row, in order, whatever is cut off or killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from chassis.times import EPOCH, from_timestamp, to_timestamp
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import binding_pb2, directory_pb2, member_import_pb2, member_pb2
from daogou.members.v1.binding_pb2 import Binding
from daogou.members.v1.binding_watch_pb2 import BindingChange, WatchBindingsRequest, WatchBindingsResponse
from daogou.members.v1.binding_watch_pb2_grpc import BindingWatchServiceStub
from daogou.members.v1.directory_pb2 import BindingPolicy
from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceStub
from tests.rpc.replicas import replica
from tests.rpc.running import Caller, Running, eventually, refusal_of
from tests.rpc.world import World, a_world

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceAsyncStub

GUIDES: Final = 10
CARD: Final = IdentityKind.IDENTITY_KIND_POS_CARD
Stream = grpc.aio.UnaryStreamCall[WatchBindingsRequest, WatchBindingsResponse]


def watch(channel: grpc.aio.Channel, world: World, caller: Caller | None = None, **request: Any) -> Stream:
    """A watch of a brand."""
    stub: Any = BindingWatchServiceStub(channel)
    asked = WatchBindingsRequest(**{"brand_id": world.brand_id, **request})
    stream: Stream = stub.WatchBindings(asked, metadata=(caller or world.connector).metadata, timeout=90)
    return stream


async def standing(stream: Stream) -> WatchBindingsResponse:
    """The first message, which says that the watch stands."""
    first = await stream.read()
    assert isinstance(first, WatchBindingsResponse)
    assert not first.changes
    assert 0 < len(first.resume_token) <= 64
    return first


@dataclass
class Listener:
    """Keeps the rows that it is told of, in whatever pieces, and asserts the order."""

    world: World
    token: str = ""
    rows: dict[str, Binding] = field(default_factory=dict)
    latest: dict[str, datetime] = field(default_factory=dict)
    """By member, when the last change was recorded that was new."""
    seen: set[tuple[str, datetime]] = field(default_factory=set)
    messages: int = 0

    def take(self, message: WatchBindingsResponse) -> None:
        """Keeps a message. Only then its token is good for this listener."""
        assert len(message.changes) <= 500
        for change in message.changes:
            self._keep(change)
        self.token = message.resume_token
        self.messages += 1

    def _keep(self, change: BindingChange) -> None:
        assert change.added or change.superseded_binding_ids
        recorded = from_timestamp(change.recorded_time)
        if (change.member_id, recorded) in self.seen:
            return
        self.seen.add((change.member_id, recorded))
        assert recorded > self.latest.get(change.member_id, EPOCH), "out of order"
        self.latest[change.member_id] = recorded
        for binding_id in change.superseded_binding_ids:
            self.rows[binding_id].superseded_time.CopyFrom(change.recorded_time)
        for row in change.added:
            assert (row.brand_id, row.member_id) == (self.world.brand_id, change.member_id)
            assert row.recorded_time == change.recorded_time
            assert not row.HasField("superseded_time")
            self.rows[row.binding_id] = row

    async def listen(self, stream: Stream, *, messages: int = 10**9) -> None:
        """Listens until the stream ends or so many messages were kept."""
        while messages and (message := await stream.read()) is not grpc.aio.EOF:
            assert isinstance(message, WatchBindingsResponse)
            self.take(message)
            messages -= 1

    async def has(self, wanted: dict[str, Binding]) -> bool:
        """Whether it has just these rows."""
        return self.rows == wanted


async def rows_of(world: World, member_ids: Sequence[str]) -> dict[str, Binding]:
    """All rows of some members, by id."""
    found: dict[str, Binding] = {}
    for member_id in set(member_ids):
        request = binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=member_id)
        reply = await world.connector.bindings.ListBindingRows(request)
        found |= {row.binding_id: row for row in reply.rows}
    return found


async def scans(world: World, count: int, customers: int, *, at_once: int = 1000) -> list[str]:
    """So many scans of fewer customers, whom one guide after the other takes over; the members' ids."""
    codes = [await world.code(index) for index in range(GUIDES)]
    people = [world.identity(CARD) for _ in range(customers)]
    found = []
    for start in range(0, count, at_once):
        replies = await asyncio.gather(
            *[
                world.scan(codes[number // customers % GUIDES], people[number % customers])
                for number in range(start, min(start + at_once, count))
            ]
        )
        found += [reply.member_id for reply in replies]
        await asyncio.sleep(0.3 if len(found) < count else 0)
    return found


async def a_busy_world(running: Running) -> World:
    """A brand in which every scan takes a customer over."""
    policy = BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS)
    return await a_world(running, guides=GUIDES, policy=policy, member=False)


@contextlib.asynccontextmanager
async def listening(listener: Listener, stream: Stream) -> AsyncIterator[None]:
    """Listens in the background while the block runs."""
    task = asyncio.create_task(listener.listen(stream))
    try:
        yield
        assert not task.done(), f"the watch has ended: {task!r}"
    finally:
        stream.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---- nothing is missed ------------------------------------------------------------------------------


async def test_while_200_scans_run_every_row_is_seen_and_each_members_in_order(running: Running) -> None:
    world = await a_busy_world(running)
    listener = Listener(world)
    stream = watch(running.plain("members"), world)
    await standing(stream)
    async with listening(listener, stream):
        member_ids = await scans(world, 200, customers=20)
        wanted = await rows_of(world, member_ids)
        assert len(wanted) > 200
        await eventually(lambda: listener.has(wanted), "every row is told", within_s=30)


async def test_a_change_is_told_within_a_second_or_so(running: Running) -> None:
    world = await a_busy_world(running)
    stream = watch(running.plain("members"), world)
    await standing(stream)
    code = await world.code()
    for _ in range(4):
        scanned = await world.scan(code, world.identity())
        begun_s = time.monotonic()
        message = await stream.read()
        assert time.monotonic() - begun_s < 1.5
        assert isinstance(message, WatchBindingsResponse)
        [change] = message.changes
        assert list(change.added) == [scanned.binding]
        assert not change.superseded_binding_ids
    stream.cancel()


async def test_cut_off_again_and_again_and_resumed_it_misses_nothing(running: Running) -> None:
    world = await a_busy_world(running)
    listener = Listener(world)
    channel = running.plain("members")
    first = watch(channel, world)
    listener.take(await standing(first))
    first.cancel()
    scanning = asyncio.create_task(scans(world, 200, customers=20, at_once=20))
    cuts = 0
    while not scanning.done():
        stream = watch(channel, world, resume_token=listener.token)
        # What is under way then is lost.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(listener.listen(stream), 0.05 + cuts % 7 * 0.15)
        stream.cancel()
        cuts += 1
    assert cuts > 5
    wanted = await rows_of(world, await scanning)
    stream = watch(channel, world, resume_token=listener.token)
    async with listening(listener, stream):
        await eventually(lambda: listener.has(wanted), f"every row is told, after {cuts} cuts", within_s=5)


async def test_a_service_that_is_killed_loses_nothing_for_who_resumes_at_another(
    running: Running, tmp_path: Path
) -> None:
    world = await a_busy_world(running)
    listener = Listener(world)
    scanning: asyncio.Task[list[str]] | None = None
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with replica(running, folder, "members") as one:
            await one.serving()
            async with one.channel() as channel:
                stream = watch(channel, world, resume_token=listener.token)
                listener.take(await standing(stream))
                scanning = scanning or asyncio.create_task(scans(world, 200, customers=20, at_once=10))
                listen = asyncio.create_task(listener.listen(stream))
                await asyncio.sleep(0.8)
                one.process.kill()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await listen
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert scanning is not None
    wanted = await rows_of(world, await scanning)
    stream = watch(running.plain("members"), world, resume_token=listener.token)
    async with listening(listener, stream):
        await eventually(lambda: listener.has(wanted), "every row is told", within_s=30)


async def test_from_the_start_everything_is_told_also_what_was_imported(running: Running) -> None:
    """More than a page of members at a few instants, and one with a history longer than his document."""
    world = await a_busy_world(running)
    stub: MemberImportServiceAsyncStub = MemberImportServiceStub(world.connector.channel("members"))
    imported = [
        member_import_pb2.ImportedMember(
            identities=[world.identity(CARD)],
            guide_id=world.guides[0],
            bound_time=to_timestamp(running.now() - timedelta(minutes=1)),
        )
        for _ in range(1200)
    ]
    results: list[member_import_pb2.ImportMembersResponse.Result] = []
    for start in (0, 600):
        request = member_import_pb2.ImportMembersRequest(
            brand_id=world.brand_id, members=imported[start : start + 600]
        )
        results += (await stub.ImportMembers(request)).results
    customer, codes = world.identity(CARD), [await world.code(index) for index in range(GUIDES)]
    [taken_over] = {(await world.scan(codes[number % GUIDES], customer)).member_id for number in range(20)}
    wanted = await rows_of(world, [*[one.member_id for one in results[::40]], taken_over])
    assert len(wanted) == 30 + 39

    def is_whole(listener: Listener) -> bool:
        members = {row.member_id for row in listener.rows.values()}
        return len(members) == 1201 and wanted.items() <= listener.rows.items()

    listener = Listener(world)
    stream = watch(running.plain("members"), world, from_start=True)
    await standing(stream)
    tokens = []
    while not is_whole(listener):
        await asyncio.wait_for(listener.listen(stream, messages=1), 10)
        tokens.append(listener.token)
    stream.cancel()
    assert listener.messages >= 3, "in pieces"

    # And from any of the tokens on, the rest.
    for count, token in enumerate(tokens[:-1], start=1):
        again = Listener(world)
        whole = watch(running.plain("members"), world, from_start=True)
        await standing(whole)
        await again.listen(whole, messages=count)
        whole.cancel()
        resumed = watch(running.plain("members"), world, resume_token=token)
        await standing(resumed)
        while not is_whole(again):
            await asyncio.wait_for(again.listen(resumed, messages=1), 10)
        resumed.cancel()


async def test_a_correction_and_a_merge_are_told(running: Running) -> None:
    """Whatever records rows: the listener has what the lists show."""
    world = await a_busy_world(running)
    listener = Listener(world)
    stream = watch(running.plain("members"), world)
    await standing(stream)
    async with listening(listener, stream):
        running.later(hours=1)
        one_id, one = await world.bound(0)
        running.later(hours=1)
        other_id, _ = await world.bound(1)
        running.later(hours=1)
        await world.admin.bindings.CorrectBinding(
            binding_pb2.CorrectBindingRequest(
                brand_id=world.brand_id,
                member_id=one_id,
                guide_id=world.guides[2],
                valid_from_time=to_timestamp(running.now() - timedelta(minutes=90)),
                valid_to_time=to_timestamp(running.now() - timedelta(minutes=60)),
                reason="she was ill",
                request_id=secrets.token_hex(8),
            )
        )
        await _merged(world, other_id, one)
        wanted = await rows_of(world, [one_id, other_id])
        assert any(row.HasField("superseded_time") for row in wanted.values())
        await eventually(lambda: listener.has(wanted), "every row is told", within_s=30)


async def _merged(world: World, member_id: str, identity: Identity) -> None:
    """The member and whoever has the identity are one from now on."""
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=identity)
    )


# ---- whose ------------------------------------------------------------------------------------------


async def test_a_watch_of_one_brand_sees_nothing_of_another(running: Running) -> None:
    mine, theirs = await a_busy_world(running), await a_busy_world(running)
    listener = Listener(mine)
    channel = running.plain("members")
    stream = watch(channel, mine)
    first = await standing(stream)
    async with listening(listener, stream):
        await scans(theirs, 20, customers=5)
        wanted = await rows_of(mine, await scans(mine, 20, customers=5))
        await eventually(lambda: listener.has(wanted), "every row of ours is told", within_s=5)
        await asyncio.sleep(1.2)
        assert listener.rows == wanted, "and none of theirs"
    whole = Listener(mine)
    stream = watch(channel, mine, from_start=True)
    async with listening(whole, stream):
        await eventually(lambda: whole.has(wanted), "every row of ours is told", within_s=5)
        await asyncio.sleep(0.6)
    assert whole.rows == wanted
    refused = await _refused(watch(channel, theirs, resume_token=first.resume_token))
    assert refused.reason == "RESUME_TOKEN_INVALID"


async def _refused(stream: Stream) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    return refusal_of(caught.value)


async def test_what_is_asked_wrongly_is_refused_with_its_reason(world: World) -> None:
    channel = world.running.plain("members")
    stream = watch(channel, world)
    token = (await standing(stream)).resume_token
    stream.cancel()
    unknown = await _refused(watch(channel, world, world.service, brand_id="a" * 16))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "BRAND_UNKNOWN")
    for wrong in ("x", "é", "a" * 40, token[:-1], token[1:], token + "aaaa", token.swapcase()):
        found = await _refused(watch(channel, world, resume_token=wrong))
        assert (found.code, found.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "RESUME_TOKEN_INVALID",
        ), wrong
    too_long = await _refused(watch(channel, world, resume_token="a" * 65, from_start=True))
    assert too_long.fields == {"resume_token", "from_start"}
    both = await _refused(watch(channel, world, resume_token=token, from_start=True))
    assert (both.reason, both.fields) == ("INVALID_FIELDS", {"from_start"})


# ---- its life ---------------------------------------------------------------------------------------


async def test_a_quiet_watch_says_every_ten_seconds_that_it_stands(world: World) -> None:
    stream = watch(world.running.plain("members"), world)
    begun_s = time.monotonic()
    await standing(stream)
    assert time.monotonic() - begun_s < 2
    begun_s = time.monotonic()
    alive = await standing(stream)
    assert 9 < time.monotonic() - begun_s < 12
    stream.cancel()
    resumed = watch(world.running.plain("members"), world, resume_token=alive.resume_token)
    await standing(resumed)
    resumed.cancel()


async def test_a_service_that_is_told_to_stop_ends_its_watches_and_does_not_wait_for_them(
    running: Running, tmp_path: Path
) -> None:
    world = await a_busy_world(running)
    with replica(running, tmp_path, "members", drain_s="0.5", grace_s="30") as one:
        await one.serving()
        async with one.channel() as channel:
            streams = [watch(channel, world) for _ in range(20)]
            listeners = [Listener(world) for _ in streams]
            for listener, stream in zip(listeners, streams, strict=True):
                listener.take(await standing(stream))
            listens = [
                asyncio.create_task(listener.listen(stream))
                for listener, stream in zip(listeners, streams, strict=True)
            ]
            told_s = time.monotonic()
            one.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            assert not any(listen.done() for listen in listens), "in the drain they go on"
            for listen in listens:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await listen
                ended = refusal_of(caught.value)
                assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
                assert ended.retry_after_s == 0
        assert await one.ended() == 0
        assert time.monotonic() - told_s < 5, "not after the grace"
        ends = [line for line in one.lines() if line.get("method", "").endswith("/WatchBindings")]
    assert [(line["code"], line["messages"]) for line in ends] == [("UNAVAILABLE", 1)] * 20
    member_ids = await scans(world, 10, customers=2)
    wanted = await rows_of(world, member_ids)
    stream = watch(running.plain("members"), world, resume_token=listeners[0].token)
    async with listening(listeners[0], stream):
        await eventually(lambda: listeners[0].has(wanted), "the next goes on", within_s=5)


async def test_beyond_its_limit_of_streams_a_service_refuses_them_and_takes_other_calls(
    running: Running, tmp_path: Path, world: World
) -> None:
    with replica(running, tmp_path, "members", streams_max="2", unary_calls_max="1") as one:
        await one.serving()
        async with one.channel() as channel:
            held = [watch(channel, world) for _ in range(2)]
            for stream in held:
                await standing(stream)
            found = await _refused(watch(channel, world))
            assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            get: Any = channel.unary_unary(
                "/daogou.members.v1.DirectoryService/GetBrand",
                directory_pb2.GetBrandRequest.SerializeToString,
                directory_pb2.GetBrandResponse.FromString,
            )
            request = directory_pb2.GetBrandRequest(brand_id=world.brand_id)
            assert (await get(request, metadata=world.admin.metadata)).brand.brand_id == world.brand_id
            held[0].cancel()

            async def taken() -> bool:
                try:
                    return bool(await watch(channel, world).read())
                except grpc.aio.AioRpcError:
                    return False

            await eventually(taken, "his place is another's", within_s=5)
            held[1].cancel()


async def test_a_watch_that_has_ended_is_one_line_in_the_log(world: World) -> None:
    trace_id = secrets.token_hex(16)
    stub: Any = BindingWatchServiceStub(world.running.plain("members"))
    traced = (("traceparent", f"00-{trace_id}-{'1' * 16}-01"), *world.connector.metadata)
    stream = stub.WatchBindings(WatchBindingsRequest(brand_id=world.brand_id), metadata=traced)
    await standing(stream)
    # It may be here before the service knows that it was sent.
    await asyncio.sleep(0.2)
    stream.cancel()

    def lines() -> list[dict[str, Any]]:
        found = (json.loads(line) for line in world.running.log("members").splitlines())
        return [line for line in found if line.get("trace_id") == trace_id]

    async def logged() -> bool:
        return bool(lines())

    await eventually(logged, "the call is in the log", within_s=3)
    [line] = lines()
    assert (line["event"], line["code"], line["messages"]) == ("call", "CANCELLED", 1)
    assert (line["caller"], line["brand_id"]) == ("local-connector", world.brand_id)
