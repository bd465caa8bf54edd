"""A month's statements as CSV, and the export that payroll pays from. Made and sent piece by piece.

Written as `chassis.csv_pieces` writes all tables. Amounts are in the currency's own unit with as many digits
as it has, a point before them, and no grouping: `-1234.56` CNY, `-1234` JPY.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.csv_pieces import csv_pieces, text_cell
from svc_commission.rules.attribution import guide_of
from svc_commission.rules.currency import major_text
from svc_commission.rules.statement import Statement

STATEMENT_COLUMNS: Final = (
    *("statement_number", "month", "payee", "payee_name", "store_name", "currency_code"),
    *("opening_payable", "opening_held", "earned", "clawed_back", "confirmed", "adjusted", "pool_shared"),
    *("opening_balance", "written_off", "paid_out", "closing_payable", "closing_held", "entry_count"),
)
"""`month` is `2026-11`. Amounts are the payee's: what is owed to her is positive. `confirmed` moved from held
to payable; all others change what is owed, and opening, changes and closing add up."""

PAYROLL_COLUMNS: Final = ("statement_number", "employee_id", "name", "store_name", "amount", "currency_code")
"""`employee_id` is the guide's id. One row for each guide to whom something is payable."""


@dataclass(frozen=True, slots=True)
class NamedStatement:
    """A statement, and what people call its payee and her store. Empty names: not known."""

    statement: Statement
    payee_name: str
    store_name: str


async def statement_csv(rows: AsyncIterable[NamedStatement]) -> AsyncIterator[bytes]:
    """The statements, a row each, under STATEMENT_COLUMNS, in pieces of about 64 KiB."""
    async for piece in csv_pieces(STATEMENT_COLUMNS, rows, _statement_row):
        yield piece


async def payroll_csv(rows: AsyncIterable[NamedStatement]) -> AsyncIterator[bytes]:
    """What is to be paid to whom, under PAYROLL_COLUMNS: to guides, where more than 0 is payable."""
    async for piece in csv_pieces(PAYROLL_COLUMNS, rows, _payroll_row):
        yield piece


def _statement_row(row: NamedStatement) -> Sequence[str]:
    one = row.statement
    amounts = (
        *(one.opening_payable_minor, one.opening_held_minor, one.earned_minor, one.clawed_back_minor),
        *(one.confirmed_minor, one.adjusted_minor, one.pool_shared_minor, one.opening_balance_minor),
        *(one.written_off_minor, one.paid_out_minor, one.closing_payable_minor, one.closing_held_minor),
    )
    return (
        *(text_cell(one.statement_number), f"{one.month:%Y-%m}", text_cell(one.payee)),
        *(text_cell(row.payee_name), text_cell(row.store_name), one.currency_code),
        *(major_text(amount, one.currency_code) for amount in amounts),
        str(one.entry_count),
    )


def _payroll_row(row: NamedStatement) -> Sequence[str] | None:
    one = row.statement
    guide_id = guide_of(one.payee)
    if not guide_id or one.closing_payable_minor <= 0:
        return None
    return (
        *(text_cell(text) for text in (one.statement_number, guide_id, row.payee_name, row.store_name)),
        *(major_text(one.closing_payable_minor, one.currency_code), one.currency_code),
    )
