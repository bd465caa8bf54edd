"""What `bench.commission` claims, on how much data, and the table in which it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.commission_data import EVENTS_OF_CALL, EVENTS_OF_ORDER
from bench.commission_stack import INSERTED, LARGE, NAIVE, OURS, REPLAYED, SMALL
from bench.measure import Spread, machine, print_result


@dataclass(frozen=True)
class Size:
    """How much is taken in, in calls of `EVENTS_OF_CALL`, and in how many rounds."""

    members: int
    rounds: int
    calls: int
    """Of a round."""
    trial_calls: int
    """With each number of calls at once."""
    at_once: tuple[int, ...]
    """Calls at a time; the best of these is measured."""
    naive_events: int
    """Of a round."""
    naive_at_once: tuple[int, ...]
    small: int
    large: int
    """Orders that are there already, to compare the cost of one more."""
    flat_rounds: int
    flat_calls: int
    """Of a round."""
    payees: int
    entries: int
    """Of the month that is closed."""
    lease_s: float
    """How long a posting lease is, for which the close waits; that is not counted."""


FULL: Final = Size(
    members=20_000,
    rounds=10,
    calls=20,
    trial_calls=8,
    at_once=(1, 2, 4, 8),
    naive_events=500,
    naive_at_once=(1, 4, 8, 16),
    small=10_000,
    large=100_000,
    flat_rounds=9,
    flat_calls=4,
    payees=71_388,
    entries=2_000_000,
    lease_s=10.0,
)
QUICK: Final = Size(
    members=1000,
    rounds=3,
    calls=2,
    trial_calls=2,
    at_once=(2,),
    naive_events=60,
    naive_at_once=(8,),
    small=1000,
    large=10_000,
    flat_rounds=2,
    flat_calls=1,
    payees=7_139,
    entries=200_000,
    lease_s=8.0,
)
SOAK_LARGE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """What was done, in what time, and what it took of the process that did it and of MongoDB."""

    count: int
    seconds: float
    process_s: float
    mongo_s: float

    @property
    def each_s(self) -> float:
        """Time for one."""
        return self.seconds / self.count


@dataclass(frozen=True)
class Claim:
    """A line of the table, and which other line it is divided by. `key`: of its figure on the last line."""

    says: str
    of: str
    than: str = ""
    key: str = ""
    by_time: bool = False
    """The ratio is of times, so that less is better; else of rates."""


INGEST: Final = Claim("ingest", OURS, REPLAYED, "commission.ingest.vs_floor")
CLAIMS: Final = (
    INGEST,
    Claim("floor: the same commands", REPLAYED),
    Claim("raw: insert_many of the documents", INSERTED),
    Claim("peer: a transaction an event", NAIVE),
    Claim("ingest, ÷ peer", OURS, NAIVE, "commission.ingest.vs_naive"),
    Claim("ingest, few orders there", SMALL),
    Claim("ingest, many orders there", LARGE, SMALL, "commission.flatness", by_time=True),
)


def show(measured: Mapping[str, Sequence[Round]], closes_s: tuple[float, float], size: Size) -> None:
    """The table, the machine, and the last line."""
    events = size.rounds * size.calls * EVENTS_OF_CALL
    table = Table(
        title=f"{events:,} events of some {events // EVENTS_OF_ORDER:,} orders, {EVENTS_OF_CALL:,} a call: "
        f"medians of {size.rounds} rounds (least–greatest)"
    )
    table.add_column("")
    for heading in ("events a second", "CPU µs each", "of MongoDB", "ratio"):
        table.add_column(heading, justify="right")
    figures = {}
    for claim in CLAIMS:
        mine = measured[claim.of]
        row = [
            f"{Spread.of(1 / each.each_s for each in mine).median:,.0f}",
            f"{Spread.of(each.process_s / each.count * 1e6 for each in mine).median:.0f}",
            f"{Spread.of(each.mongo_s / each.count * 1e6 for each in mine).median:.0f}",
        ]
        if claim.than:
            pairs = zip(mine, measured[claim.than], strict=True)
            ratio = Spread.of(
                each.each_s / other.each_s if claim.by_time else other.each_s / each.each_s
                for each, other in pairs
            )
            row.append(f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.greatest:.2f})")
            figures[claim.key] = ratio.median
        table.add_row(claim.says, *row)
    Console().print(table)
    close_s, floor_s = closes_s
    figures["commission.close.vs_floor"] = close_s / floor_s
    print(
        f"A month of {size.entries:,} entries, {size.payees:,} payees: closed in {close_s:.1f} s; "
        f"floor, the same grouping and insert_many of the statements: {floor_s:.1f} s"
    )
    print(machine("grpcio", "motor", "pymongo", "uvloop"))
    print_result(figures)
