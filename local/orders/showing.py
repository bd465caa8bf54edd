"""What a person is shown of an import: the mapping, what was refused, what became of the events."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daogou.commission.v1.order_event_pb2 import OrderEventKind
from local.orders.columns import COLUMNS, NOTES, ORDER_STATUSES, REFUND_STATUSES
from local.orders.rows import Refusal
from local.orders.sending import BAD, Outcomes

SHOWN_MAX: Final = 20
"""Refusals shown unless all are asked for."""


def mapping(console: Console) -> None:
    """The mapping, from the one place where it is said."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("column", "form", "becomes"):
        table.add_column(title, overflow="fold")
    for column in COLUMNS:
        need = "" if column.column_required else " (optional)"
        table.add_row(" / ".join(column.names) + need, escape(column.form.value), escape(column.becomes))
    console.print(table)
    paid_back = {True: "paid back", False: "not paid back"}
    meant = [(word, stage.value) for word, stage in ORDER_STATUSES.items()]
    console.print("\n订单状态: " + "; ".join(f"{word} ({means})" for word, means in meant))
    meant = [(word, paid_back[back]) for word, back in REFUND_STATUSES.items()]
    console.print("退款状态: " + "; ".join(f"{word} ({means})" for word, means in meant) + "\n")
    for note in NOTES.split("\n- "):
        console.print("- " + " ".join(note.removeprefix("- ").split()), markup=False)


def refusals(console: Console, refused: Sequence[Refusal], *, everything: bool) -> None:
    """Rows that were refused, and why."""
    shown = sorted(refused)[: None if everything else SHOWN_MAX]
    for one in shown:
        column = f"{one.column}: " if one.column else ""
        console.print(f"{one.file}:{one.line}: {column}{one.problem}", style="red", markup=False)
    if more := len(refused) - len(shown):
        console.print(f"and {more:,} more: --dry-run lists them, --refused FILE.csv writes them all")


def save(path: Path, refused: Sequence[Refusal]) -> None:
    """Everything that was refused as a CSV file that spreadsheets open."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "line", "order_id", "column", "problem"))
        for one in sorted(refused):
            # A tab before what a spreadsheet would compute, or round.
            writer.writerow((one.file, one.line, f"\t{one.order_id}", one.column, one.problem))


def would_send(console: Console, would: Mapping[OrderEventKind.ValueType, int]) -> None:
    """How many events of which kind a real run would send."""
    for kind, count in sorted(would.items()):
        name = OrderEventKind.Name(kind).removeprefix("ORDER_EVENT_KIND_").lower()
        console.print(f"would send {name:<8} {count:>9,}")


def outcomes(console: Console, came: Outcomes) -> None:
    """How many events became what, and why."""
    for outcome, count in sorted(came.events.items()):
        why = Counter({reason: n for (one, reason), n in came.reasons.items() if one == outcome})
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in why.most_common())
        style = "red" if outcome in BAD else None
        console.print(f"{outcome.lower():<12} {count:>9,}  {reasons}".rstrip(), style=style, markup=False)
