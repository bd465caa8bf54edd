"""Rows with two time axes: when something held, and when it was believed. Half-open intervals, both.

A row held from `valid_from_time` to `valid_to_time` and was believed from `recorded_time` to
`superseded_time`. Of the rows believed at any moment no two hold at one time, so that every question has
one answer; rows are added and superseded, never changed, so that it stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol, TypeVar


class Dated(Protocol):
    """A row. `valid_from_time` None: since ever; `valid_to_time` None: it stands.

    `recorded_time` None: not written yet; `superseded_time` None: believed still.
    """

    @property
    def valid_from_time(self) -> datetime | None:
        """When it began to hold."""

    @property
    def valid_to_time(self) -> datetime | None:
        """When it ceased to hold, exclusive."""

    @property
    def recorded_time(self) -> datetime | None:
        """When it became known."""

    @property
    def superseded_time(self) -> datetime | None:
        """When other rows replaced it."""


R = TypeVar("R", bound=Dated)


def believed(row: Dated, known_at: datetime | None) -> bool:
    """Whether a row was believed at a moment; None: whether it is believed now."""
    if known_at is None:
        return row.superseded_time is None
    return (
        row.recorded_time is not None
        and row.recorded_time <= known_at
        and (row.superseded_time is None or known_at < row.superseded_time)
    )


def found(rows: Iterable[R], as_of: datetime, known_at: datetime | None) -> R | None:
    """The row that held at `as_of`, as known at `known_at`; None: as believed now."""
    for row in rows:
        if (
            believed(row, known_at)
            and (row.valid_from_time is None or row.valid_from_time <= as_of)
            and (row.valid_to_time is None or as_of < row.valid_to_time)
        ):
            return row
    return None


def standing(rows: Iterable[R]) -> R | None:
    """The row that is believed and has no end, if any. Raises: ValueError if there are two."""
    open_ended = [row for row in rows if row.superseded_time is None and row.valid_to_time is None]
    if len(open_ended) > 1:
        raise ValueError(f"{len(open_ended)} standing rows: {open_ended}")
    return open_ended[0] if open_ended else None
