"""What our chain costs on a unary call: `./daogou bench rpc [--quick]`.

The same calls, one after the other in short rounds, to three servers that answer the same method: ours with
all that surrounds every method of a service (token, access, limits, deadline, metrics, trace, log line); a
bare grpc.aio echo, the floor; and the peer of `bench.floors`. What counts is the CPU time of the server's
process per call, not how fast this machine's client can call.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from bench.measure import GateFailed, Spread, gate, machine, print_result
from bench.rpc_servers import HANGING_METHOD, METER, METHOD, SERVICE, brand_reply
from daogou.members.v1.directory_pb2 import GetBrandRequest, GetStoreRequest
from local.children import PIPE, start_child
from local.keys import LocalKeys
from local.ports import free_ports
from local.token import mint

TOKENS: Final = 1_000
BRANDS: Final = 100
CONCURRENCY: Final = 32
NAMES: Final = ("ours", "echo", "peer")
_SAYS: Final = {"ours": "Daogou's chain", "echo": "bare echo (floor)", "peer": "grpc.aio interceptors (peer)"}
_LOGGED: Final = ("timestamp", "level", "event", "method", "code", "ms", "trace_id", "caller", "brand_id")

Metadata = tuple[tuple[str, str], ...]
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One call, ready to be sent, and the reply it must get."""

    request: bytes
    metadata: Metadata
    reply: bytes


@dataclass(frozen=True, slots=True)
class Round:
    """What one server used in one round."""

    calls: int
    cpu_us: float
    """CPU time of the server's process per call."""
    wall_s: float


# ---- what is sent ----------------------------------------------------------------------------------


def _metadata(token: str) -> Metadata:
    traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return (("authorization", f"Bearer {token}"), ("traceparent", traceparent))


def _brand_id(index: int) -> str:
    return f"brand{index:011}".translate(str.maketrans("0189", "abcd"))


def prepared_calls(keys: LocalKeys) -> list[Prepared]:
    """A call for each of the callers, whose brands take turns."""
    calls = []
    for index in range(TOKENS):
        brand_id = _brand_id(index % BRANDS)
        token = mint(keys, "CONNECTOR", brand=brand_id, subject=f"pos-{index}")
        request = GetBrandRequest(brand_id=brand_id).SerializeToString()
        calls.append(Prepared(request, _metadata(token), brand_reply(brand_id).SerializeToString()))
    return calls


# ---- the servers -----------------------------------------------------------------------------------


class LogReader:
    """Reads what a server writes as soon as it is written, as a container runtime does, and counts it."""

    def __init__(self, descriptor: int) -> None:
        self.lines = 0
        self._last: deque[bytes] = deque(maxlen=40)
        self._descriptor = descriptor
        threading.Thread(target=self._run, name="log reader", daemon=True).start()

    def _run(self) -> None:
        while chunk := os.read(self._descriptor, 1 << 16):
            self.lines += chunk.count(b"\n")
            self._last.append(chunk)

    def last(self) -> list[bytes]:
        """The last whole lines."""
        return b"".join(self._last).split(b"\n")[1:-1]


def _channel(port: int) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


class Served:
    """A server in a process of its own, and a channel to it."""

    def __init__(self, name: str, jwks_file: Path) -> None:
        self.name = name
        self.calls = 0
        """Made so far that the server must have counted and logged."""
        self.rounds: list[Round] = []
        port, meter_port = free_ports(2)
        self._child = start_child(
            [
                sys.executable,
                "-c",
                "from bench import rpc_servers; rpc_servers.main()",
                name,
                str(port),
                str(meter_port),
                str(jwks_file),
            ],
            output=PIPE,
        )
        assert self._child.stdout is not None
        self.log = LogReader(self._child.stdout.fileno())
        self._channel, self._meter_channel = _channel(port), _channel(meter_port)
        # Bytes as they are: the client is to be light.
        self.method: Call = self._channel.unary_unary(f"/{SERVICE}/{METHOD}")
        self.hanging: Call = self._channel.unary_unary(f"/{SERVICE}/{HANGING_METHOD}")
        self._meter: Call = self._meter_channel.unary_unary("/" + "/".join(METER))

    async def meter(self) -> tuple[int, dict[str, int]]:
        """CPU nanoseconds the process has used, and the calls it counted, as `METHOD CODE`."""
        read = orjson.loads(await self._meter(b"", wait_for_ready=True, timeout=15))
        return read["cpu_ns"], read["handled"]

    async def load(self, calls: Sequence[Prepared], numbers: Iterator[int], seconds: float) -> int:
        """Calls for so long, `CONCURRENCY` at a time, and returns how often. Raises: GateFailed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        method, count = self.method, 0

        async def caller() -> None:
            nonlocal count
            while loop.time() < until:
                call = calls[next(numbers) % TOKENS]
                reply = await method(call.request, metadata=call.metadata)
                gate(reply == call.reply, f"{self.name} replied {reply!r:.100}")
                count += 1

        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
        self.calls += count
        return count

    async def round(self, calls: Sequence[Prepared], numbers: Iterator[int], seconds: float) -> None:
        """Measures one round."""
        loop = asyncio.get_running_loop()
        before_ns, _ = await self.meter()
        began = loop.time()
        count = await self.load(calls, numbers, seconds)
        wall_s = loop.time() - began
        after_ns, _ = await self.meter()
        self.rounds.append(Round(count, (after_ns - before_ns) / 1000 / count, wall_s))

    async def stop(self) -> None:
        """Ends the process."""
        await self._channel.close()
        await self._meter_channel.close()
        self._child.kill()
        self._child.wait()


@contextmanager
def _callers() -> Iterator[tuple[LocalKeys, list[Prepared]]]:
    with tempfile.TemporaryDirectory(prefix="daogou-bench-rpc-") as folder:
        keys = LocalKeys.made(Path(folder))
        yield keys, prepared_calls(keys)


# ---- the gates -------------------------------------------------------------------------------------


async def _code(call: Any) -> str:
    """The status code that a call ends with."""
    code: grpc.StatusCode = await call.code()
    return code.name


async def refusals(served: Served, keys: LocalKeys, calls: Sequence[Prepared]) -> None:
    """Whoever must not get in does not. Raises: GateFailed."""
    own, other = calls[0], calls[1]
    token = dict(own.metadata)["authorization"]
    forged = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    wanted: list[tuple[str, str, Metadata, bytes]] = [
        ("no token", "UNAUTHENTICATED", (), own.request),
        ("a forged token", "UNAUTHENTICATED", (("authorization", forged),), own.request),
        ("another brand's token", "PERMISSION_DENIED", other.metadata, own.request),
    ]
    if served.name == "ours":
        door = mint(keys, "DOOR", brand=_brand_id(0))
        bad = GetBrandRequest(brand_id="no id").SerializeToString()
        platform = mint(keys, "PLATFORM")
        wanted += [
            ("a role not admitted", "PERMISSION_DENIED", _metadata(door), own.request),
            ("a malformed id", "INVALID_ARGUMENT", _metadata(platform), bad),
        ]
    for who, code, metadata, request in wanted:
        got = await _code(served.method(request, metadata=metadata))
        gate(got == code, f"{served.name}: with {who} a call must end {code}, not {got}")
    served.calls += len(wanted)


async def endings(served: Served, calls: Sequence[Prepared]) -> None:
    """Calls that their caller gave up, and that ran out of time, are told apart. Raises: GateFailed."""
    request = GetStoreRequest(
        brand_id=GetBrandRequest.FromString(calls[0].request).brand_id, store_id=_brand_id(1)
    ).SerializeToString()
    given_up = served.hanging(request, metadata=calls[0].metadata)
    endless = served.hanging(request, metadata=calls[0].metadata)
    await asyncio.sleep(0.2)
    given_up.cancel()
    got = await _code(endless)
    gate(got == "DEADLINE_EXCEEDED", f"ours: a call without a deadline must end DEADLINE_EXCEEDED, not {got}")
    _, handled = await served.meter()
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        gate(handled.get(f"{HANGING_METHOD} {code}") == 1, f"ours: one call must count as {code}: {handled}")
    served.calls += 2


async def accounts(served: Served, calls: Sequence[Prepared]) -> None:
    """Every call was counted, and has its line in the log. Raises: GateFailed."""
    _, handled = await served.meter()
    counted = sum(handled.values())
    gate(counted == served.calls, f"{served.name}: {served.calls} calls, but {counted} were counted")
    for _ in range(50):
        if served.log.lines >= served.calls:
            break
        await asyncio.sleep(0.1)
    gate(
        served.log.lines == served.calls,
        f"{served.name}: {served.calls} calls, but {served.log.lines} log lines",
    )
    traces = {dict(call.metadata)["traceparent"][3:35]: f"pos-{index}" for index, call in enumerate(calls)}
    for line in served.log.last():
        said = orjson.loads(line)
        gate(
            all(name in said for name in _LOGGED) and traces.get(said["trace_id"]) == said["caller"],
            f"{served.name}: a log line that no call explains: {line!r}",
        )


# ---- the claim -------------------------------------------------------------------------------------


async def measure(rounds: int, seconds: float) -> dict[str, Served]:
    """The servers with their rounds. Raises: GateFailed."""
    console = Console(stderr=True)
    with _callers() as (keys, calls), console.status("starting") as status:
        all_served = {name: Served(name, keys.jwks_file) for name in NAMES}
        numbers = itertools.count()
        try:
            for served in all_served.values():
                status.update(f"warming up: {served.name}")
                await served.meter()
                await served.load(calls, numbers, 1.0)
            await refusals(all_served["ours"], keys, calls)
            await refusals(all_served["peer"], keys, calls)
            await endings(all_served["ours"], calls)
            for index in range(rounds):
                for place in range(len(NAMES)):
                    status.update(f"round {index + 1} of {rounds}")
                    await all_served[NAMES[(index + place) % len(NAMES)]].round(calls, numbers, seconds)
            await accounts(all_served["ours"], calls)
            await accounts(all_served["peer"], calls)
        finally:
            for served in all_served.values():
                await served.stop()
    return all_served


def show(all_served: dict[str, Served]) -> None:
    """The table, the machine, and the last line."""
    cpu_us = {name: [one.cpu_us for one in served.rounds] for name, served in all_served.items()}
    ratios = {
        name: Spread.of(theirs / ours for theirs, ours in zip(cpu_us[name], cpu_us["ours"], strict=True))
        for name in NAMES
    }
    table = Table(
        title=f"A unary call with {TOKENS:,} callers in turn, {CONCURRENCY} at a time: "
        f"medians of {len(cpu_us['ours'])} rounds"
    )
    table.add_column("server")
    for heading in ("CPU µs per call", "calls per CPU s", "calls/s here", "ours ÷ it", "min–max"):
        table.add_column(heading, justify="right")
    for name, served in all_served.items():
        per_call = Spread.of(cpu_us[name])
        here = Spread.of(one.calls / one.wall_s for one in served.rounds)
        ratio = ratios[name]
        table.add_row(
            _SAYS[name],
            f"{per_call.median:.1f}",
            f"{1e6 / per_call.median:,.0f}",
            f"{here.median:,.0f}",
            "" if name == "ours" else f"{ratio.median:.2f}",
            "" if name == "ours" else f"{ratio.least:.2f}–{ratio.greatest:.2f}",
        )
    Console().print(table)
    print(machine("grpcio", "protobuf", "uvloop"))
    print_result({"rpc.vs_echo": ratios["echo"].median, "rpc.vs_peer": ratios["peer"].median})


def main() -> int:
    """0 when the gates passed, and then the figures stand on the last line; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="./daogou bench rpc", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in under 45 s")
    quick = parser.parse_args().quick
    rounds, seconds = (9, 1.0) if quick else (24, 1.5)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            all_served = runner.run(measure(rounds, seconds))
    except (GateFailed, grpc.aio.AioRpcError) as failed:
        print(f"bench rpc: {failed}", file=sys.stderr)
        return 1
    show(all_served)
    return 0


if __name__ == "__main__":
    sys.exit(main())
