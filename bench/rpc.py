"""What our chain costs on a unary call: `./daogou bench rpc [--quick]`.

The same calls, one after the other in short rounds, to three servers that answer the same method: ours with
all that surrounds every method of a service (token, access, limits, deadline, metrics, trace, log line); a
bare grpc.aio echo, the floor; and the peer of `bench.floors`. What counts is the CPU time of the server's
process per call, not how fast this machine's client can call. Every caller's token has been seen before, as
all but one in some thousands have; the calls bring no deadline, so that ours has to give them one.
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
ROUND_S: Final = 1.0
NAMES: Final = ("ours", "echo", "peer")
_SAYS: Final = {"ours": "ours", "echo": "floor: bare echo", "peer": "peer: interceptors"}
_LOGGED: Final = ("timestamp", "level", "event", "method", "code", "ms", "trace_id", "caller", "brand_id")

Metadata = tuple[tuple[str, str], ...]
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One call, ready to be sent, and the reply it must get."""

    request: bytes
    metadata: Metadata
    reply: bytes


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

    def tail(self) -> str:
        """What was written last, as it is."""
        return b"".join(self._last).decode(errors="replace")


def _channel(port: int) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


class Served:
    """A server in a process of its own, and a channel to it."""

    def __init__(self, name: str, jwks_file: Path) -> None:
        self.name = name
        self.calls = 0
        """Made so far that the server must have counted and logged."""
        self.cpu_us: list[float] = []
        """CPU time of the process per call, of each round."""
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
        self._cpu_ns: Call = self._meter_channel.unary_unary(f"/{METER}/CpuNs")
        self._handled: Call = self._meter_channel.unary_unary(f"/{METER}/Handled")

    async def started(self) -> None:
        """Returns once it serves. Raises: GateFailed with what it wrote, when it does not."""
        try:
            await self._cpu_ns(b"", wait_for_ready=True, timeout=15)
        except grpc.aio.AioRpcError:
            raise GateFailed(f"{self.name} does not serve; it wrote\n{self.log.tail()}") from None

    async def handled(self) -> dict[str, int]:
        """The calls it counted, by method and status code."""
        counted: dict[str, int] = orjson.loads(await self._handled(b""))
        return counted

    async def load(self, calls: Sequence[Prepared], numbers: Iterator[int]) -> int:
        """Calls for `ROUND_S`, `CONCURRENCY` at a time, and returns how often. Raises: GateFailed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ROUND_S
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

    async def round(self, calls: Sequence[Prepared], numbers: Iterator[int]) -> None:
        """Measures one round."""
        before_ns = orjson.loads(await self._cpu_ns(b""))
        count = await self.load(calls, numbers)
        after_ns = orjson.loads(await self._cpu_ns(b""))
        self.cpu_us.append((after_ns - before_ns) / 1000 / count)

    async def stop(self) -> None:
        """Ends the process."""
        await self._channel.close()
        await self._meter_channel.close()
        self._child.kill()
        self._child.wait()


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
    handled = await served.handled()
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        gate(handled.get(f"{HANGING_METHOD} {code}") == 1, f"ours: one call must count as {code}: {handled}")
    served.calls += 2


async def accounts(served: Served, calls: Sequence[Prepared]) -> None:
    """Every call was counted, and has its line in the log. Raises: GateFailed."""
    counted = sum((await served.handled()).values())
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


async def compare(all_served: dict[str, Served], keys: LocalKeys, rounds: int) -> None:
    """Gates, rounds, gates. Raises: GateFailed."""
    calls, numbers = prepared_calls(keys), itertools.count()
    ours, peer = all_served["ours"], all_served["peer"]
    with Console(stderr=True).status("warming up") as status:
        for served in all_served.values():
            await served.load(calls, numbers)
        await refusals(ours, keys, calls)
        await refusals(peer, keys, calls)
        await endings(ours, calls)
        for index in range(rounds):
            status.update(f"round {index + 1} of {rounds}")
            for place in range(len(NAMES)):
                await all_served[NAMES[(index + place) % len(NAMES)]].round(calls, numbers)
        await accounts(ours, calls)
        await accounts(peer, calls)


async def measure(rounds: int) -> dict[str, Served]:
    """The servers with their rounds. Raises: GateFailed."""
    with tempfile.TemporaryDirectory(prefix="daogou-bench-rpc-") as folder:
        keys = LocalKeys.made(Path(folder))
        all_served = {name: Served(name, keys.jwks_file) for name in NAMES}
        try:
            for served in all_served.values():
                await served.started()
            await compare(all_served, keys, rounds)
        except grpc.aio.AioRpcError as error:
            raise GateFailed(f"{error.code().name}: {error.details()}") from error
        finally:
            for served in all_served.values():
                await served.stop()
    return all_served


def show(all_served: dict[str, Served]) -> None:
    """The table, the machine, and the last line."""
    cpu_us = {name: served.cpu_us for name, served in all_served.items()}
    ratios = {
        name: Spread.of(theirs / ours for theirs, ours in zip(cpu_us[name], cpu_us["ours"], strict=True))
        for name in NAMES
    }
    table = Table(
        title=f"Unary calls of {TOKENS:,} callers, {CONCURRENCY} at a time: medians of "
        f"{len(cpu_us['ours'])} rounds (least–greatest)"
    )
    table.add_column("server")
    for heading in ("CPU µs per call", "calls per CPU s", "ours ÷ it"):
        table.add_column(heading, justify="right")
    for name in NAMES:
        spent, ratio = Spread.of(cpu_us[name]), ratios[name]
        table.add_row(
            _SAYS[name],
            f"{spent.median:.0f} ({spent.least:.0f}–{spent.greatest:.0f})",
            f"{1e6 / spent.median:,.0f}",
            "" if name == "ours" else f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.greatest:.2f})",
        )
    Console().print(table)
    print(machine("grpcio", "protobuf", "uvloop"))
    print_result({"rpc.vs_echo": ratios["echo"].median, "rpc.vs_peer": ratios["peer"].median})


def main() -> int:
    """0 when the gates passed, and then the figures stand on the last line; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="./daogou bench rpc", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in under 45 s")
    quick = parser.parse_args().quick
    rounds = 9 if quick else 35
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            all_served = runner.run(measure(rounds))
    except GateFailed as failed:
        print(f"bench rpc: {failed}", file=sys.stderr)
        return 1
    show(all_served)
    return 0


if __name__ == "__main__":
    sys.exit(main())
