"""What may stand in a profile: birthdays that there are, with or without a year, and language tags."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

TIER_LENGTH_MAX: Final = 32
LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
"""The form of a BCP 47 tag, of whatever length."""
_A_LEAP_YEAR: Final = 2000
_TEXT: Final = re.compile(r"(?:(\d{4})|-)-(\d{2})-(\d{2})")


@dataclass(frozen=True, slots=True)
class Birthday:
    """A birthday. `year` None: not told."""

    month: int
    day: int
    year: int | None

    def exists(self) -> bool:
        """Whether the calendar has that day: 29 February in leap years, and where no year is told."""
        return self._date() is not None

    def is_after(self, today: date) -> bool:
        """Whether he would be born after a day. Without a year nobody can tell: no."""
        day = self._date()
        return self.year is not None and day is not None and day > today

    def _date(self) -> date | None:
        try:
            return date(_A_LEAP_YEAR if self.year is None else self.year, self.month, self.day)
        except ValueError:
            return None

    def to_text(self) -> str:
        """As ISO 8601 writes it: 1987-11-23, or --11-23 without a year."""
        year = "-" if self.year is None else f"{self.year:04}"
        return f"{year}-{self.month:02}-{self.day:02}"

    @classmethod
    def from_text(cls, text: str) -> Birthday:
        """The birthday of such a text. Raises: ValueError for any other."""
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise ValueError("no birthday")
        year, month, day = parts.groups()
        return cls(int(month), int(day), int(year) if year else None)
