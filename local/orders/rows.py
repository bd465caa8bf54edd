"""From the rows of exports to orders: reads cells, groups rows by order, and refuses what cannot be read.

Pure: whatever order the rows come in, the same orders follow. Next: `events`, which makes events of an order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from chassis.times import EPOCH
from local.orders import forms
from local.orders.columns import COLUMNS, ORDER_STATUSES, REFUND_STATUSES, Column, Form, Layout, Stage

UNKNOWN_MAX: Final = 1000
"""Rows of one file of which the order is not known. With more of them it is taken for something else."""

_WORD = re.compile(r"[0-9A-Za-z_-]{4,64}")


class Refusal(NamedTuple):
    """What is wrong with a row. `column` empty: with the row as a whole."""

    file: str
    line: int
    column: str
    problem: str
    order_id: str = ""


@dataclass(slots=True)
class Row:
    """One sub-order. Where it stands, and in which column what, makes no difference to what it says."""

    where: tuple[str, int] = field(compare=False)
    """File and line."""
    layout: Layout = field(compare=False)
    line_id: str = ""
    order_id: str = ""
    payment_id: str = ""
    shop_id: str = ""
    buyer: str = ""
    sku_id: str = ""
    category_id: str = ""
    price_minor: int = 0
    quantity: int = 1
    paid_minor: int = 0
    subsidy_minor: int = 0
    status: Stage = Stage.WAITING
    placed_time: datetime = EPOCH
    paid_time: datetime | None = None
    shipped_time: datetime | None = None
    parcels: tuple[str, ...] = ()
    received_time: datetime | None = None
    refund_status: bool | None = None
    """Whether `refund_minor` was paid back; None: the row does not say."""
    refund_minor: int = 0
    refund_id: str = ""
    refund_time: datetime | None = None
    closed_time: datetime | None = None

    @property
    def closed(self) -> bool:
        return self.status is Stage.CLOSED

    @property
    def refunded(self) -> bool:
        return bool(self.refund_status)

    def refused(self, field_name: str, problem: str) -> Refusal:
        """What is wrong with a field of this row; with an empty name, with all of it."""
        column = self.layout.name(field_name) if field_name else ""
        return Refusal(*self.where, column, problem, self.order_id)


class NoExport(Exception):
    """A file has so much that cannot be read that it is no export of orders."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one order, without those that repeat another, by line id; and whose row was refused."""

    order_id: str
    rows: tuple[Row, ...]
    spoiled_by: str


class Sheets:
    """Takes rows in, from any number of files, and gives them out by order."""

    def __init__(self, shop_id: str, zone: ZoneInfo) -> None:
        self.refusals: list[Refusal] = []
        self.repeated = 0
        """Rows that repeat another to the letter, as far as orders were given out."""
        self._shop_id = shop_id
        # The rows of an order share most of their times: they are read, and kept, once.
        time = lru_cache(maxsize=1 << 14)(forms.time)
        self._read: dict[Form, Callable[[str, Column], Any]] = {
            Form.IDENTIFIER: lambda text, column: forms.identifier(text, column.id_length_max),
            Form.BUYER: lambda text, _: forms.buyer(text),
            Form.PARCELS: lambda text, column: forms.parcels(text, column.id_length_max),
            Form.YUAN: lambda text, _: forms.yuan(text),
            Form.PIECES: lambda text, _: forms.pieces(text),
            Form.TIME: lambda text, _: time(text, zone),
            Form.ORDER_STATUS: lambda text, _: _known(text, ORDER_STATUSES),
            Form.REFUND_STATUS: lambda text, _: _known(text, REFUND_STATUSES),
        }
        self._rows: dict[str, list[Row]] = {}
        self._spoiled: dict[str, str] = {}
        """Orders one of whose rows was refused, and which; with words of rows that could not be read."""
        self._unknown: dict[str, int] = {}

    def add(self, file: str, line: int, cells: Sequence[str], layout: Layout) -> None:
        """Takes in one row of a file. Raises: NoExport."""
        if not any(map(forms.clean, cells)):
            return
        if "\0" in (text := " ".join(cells)):
            self.add_broken(file, line, text, "has NUL bytes: the file is damaged here")
        elif len(cells) < layout.width or any(map(forms.clean, cells[layout.width :])):
            problem = f"has {len(cells)} columns where the header has {layout.width}"
            self.add_broken(file, line, text, problem)
        else:
            self._add(file, line, cells, layout)

    def add_broken(self, file: str, line: int, text: str, problem: str) -> None:
        """Takes in what is no row. Any order that it may belong to is refused with it. Raises: NoExport."""
        self.refusals.append(Refusal(file, line, "", problem))
        self._spoil(file, line, text)

    def orders(self) -> Iterator[Group]:
        """The orders in which they came, each forgotten as it is given out."""
        for order_id in list(self._rows):
            rows: list[Row] = []
            for row in sorted(self._rows.pop(order_id), key=lambda row: row.line_id):
                if rows and row == rows[-1]:
                    self.repeated += 1
                else:
                    rows.append(row)
            yield Group(order_id, tuple(rows), self._spoiled.get(order_id, ""))

    @property
    def order_count(self) -> int:
        """Orders that wait to be given out."""
        return len(self._rows)

    def _add(self, file: str, line: int, cells: Sequence[str], layout: Layout) -> None:
        row = Row((file, line), layout)
        problems: dict[str, str] = {}
        for column in COLUMNS:
            text = ""
            for at in layout.places[column.field]:
                text = text or forms.clean(cells[at])
            if text:
                try:
                    setattr(row, column.field, self._read[column.form](text, column))
                except ValueError as error:
                    problems[column.field] = str(error)
            elif column.cell_required:
                problems[column.field] = "is empty"
        for name, other, problem in self._contradictions(row):
            if other not in problems:
                problems.setdefault(name, problem)
        if not problems:
            self._rows.setdefault(row.order_id, []).append(row)
            return
        self.refusals += [row.refused(name, problem) for name, problem in problems.items()]
        if row.order_id:
            self._spoiled.setdefault(row.order_id, f"{file}:{line}")
        else:
            self._spoil(file, line, " ".join(cells))

    def _spoil(self, file: str, line: int, text: str) -> None:
        """Has every order that the text may mean refused, as nobody can say of which one it is a row."""
        for word in _WORD.findall(text):
            self._spoiled.setdefault(word, f"{file}:{line}")
        self._unknown[file] = self._unknown.get(file, 0) + 1
        if self._unknown[file] > UNKNOWN_MAX:
            raise NoExport(
                f"{file}: of over {UNKNOWN_MAX:,} rows nobody can say whose they are: is it an order export?"
            )

    def _contradictions(self, row: Row) -> Iterator[tuple[str, str, str]]:
        """Fields that do not go with another: the field, the other, the problem."""
        if row.shop_id and row.shop_id != self._shop_id:
            yield "shop_id", "", f"{forms.shown(row.shop_id)} is another shop than {self._shop_id}"
        if row.status is Stage.PAID and row.paid_time is None:
            yield "paid_time", "status", "is empty, although the order status says that it was paid"
        if row.status is Stage.WAITING and row.paid_time is not None:
            yield "paid_time", "status", "is not empty, although the order status says that it was not paid"
        if row.closed_time is not None and row.status is not Stage.CLOSED:
            yield (
                "closed_time",
                "status",
                "is not empty, although the order status is not closed",
            )
        if row.refund_status and not row.refund_minor:
            yield (
                "refund_minor",
                "refund_status",
                "is nothing, although the refund status says otherwise",
            )
        if row.refund_status and row.paid_time is None:
            yield "paid_time", "refund_status", "is empty, although something was paid back"
        if row.refund_minor and row.refund_status is None:
            yield "refund_status", "refund_minor", "is empty, although there is an amount of a refund"


def _known(text: str, known: dict[str, Any]) -> Any:
    """What a status means. Raises: ValueError."""
    found = known.get(forms.status(text))
    if found is None:
        raise ValueError(f"{forms.shown(text)} is none of {' / '.join(known)}")
    return found
