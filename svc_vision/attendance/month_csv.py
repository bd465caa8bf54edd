"""A month's attendance as CSV, a row for each person. Made and sent piece by piece.

Written as `chassis.csv_pieces` writes all tables. Minutes are whole numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.csv_pieces import csv_pieces, text_cell
from svc_vision.rules.attendance_month import MonthTotals

MONTH_COLUMNS: Final = (
    *("month", "person_id", "person_name", "store_name", "days_worked"),
    *("absent", "missing_punch", "seriously_late", "late", "early", "normal"),
    *("scheduled_minutes", "worked_minutes", "late_minutes", "early_minutes", "absent_minutes"),
    *("leave_minutes", "unproven_minutes", "holiday_minutes", "flagged", "corrected"),
)
"""`month` is `2026-11`. From `absent` to `normal`: shifts, which sum to all of the month. Worked, late,
early, absent, leave and unproven minutes sum to the scheduled ones; those worked on holidays come on top."""


@dataclass(frozen=True, slots=True)
class PersonMonth:
    """Somebody's month, and what people call her and her store. Empty names: not known."""

    person_id: str
    person_name: str
    store_name: str
    totals: MonthTotals


async def month_csv(rows: AsyncIterable[PersonMonth]) -> AsyncIterator[bytes]:
    """The months, a row each, under MONTH_COLUMNS, in pieces of about 64 KiB."""
    async for piece in csv_pieces(MONTH_COLUMNS, rows, _cells):
        yield piece


def _cells(row: PersonMonth) -> Sequence[str]:
    one = row.totals
    return (
        *(f"{one.month:%Y-%m}", text_cell(row.person_id), text_cell(row.person_name)),
        *(text_cell(row.store_name), str(one.days_worked)),
        *(str(count) for count in one.occurrences.values()),
        *(str(minutes) for minutes in one.minutes),
        *(str(one.flagged), str(one.corrected)),
    )
