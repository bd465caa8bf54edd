"""Reads one cell of an export: text as spreadsheets leave it, amounts, numbers, times. Pure.

Every function raises ValueError with what is wrong, in words that follow the column's name.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

AMOUNT_MAX_MINOR: Final = 10**12
PIECES_MAX: Final = 10**6
BUYER_LENGTH_MAX: Final = 128
PARCELS_MAX: Final = 20

_AROUND: Final = " \t\r\n\v\f\u00a0\u3000\u200b\ufeff"
_BEFORE: Final = "'" + _AROUND
_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
_NOTHING: Final = frozenset({"null", "-", "--"})
_IDENTIFIER = re.compile(r"[^\s|\x00-\x1f\x7f-\x9f]+")
_ROUNDED = re.compile(r"[0-9](\.[0-9]+)?[eE]\+[0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_YUAN = re.compile(r"¥? ?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]{1,2}))?")
_PIECES = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")
_TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?")
_PARCEL_SEPARATORS = re.compile(r"[,;，；、]")


def clean(cell: str) -> str:
    """What the cell says, without what spreadsheets put around it. Empty: nothing."""
    text = cell.strip(_AROUND)
    if not text:
        return ""
    if text[0] == "=" and (formula := _FORMULA.fullmatch(text)):
        text = formula[1].strip(_AROUND)
    text = text.lstrip(_BEFORE)
    return "" if text.lower() in _NOTHING else text


def shown(text: str) -> str:
    """A value for a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def identifier(text: str, length_max: int = 64) -> str:
    """An identifier that another system gave."""
    if _ROUNDED.fullmatch(text):
        raise ValueError(f"{shown(text)} was rounded by a spreadsheet: export again, do not save it there")
    if not _IDENTIFIER.fullmatch(text) or len(text) > length_max:
        raise ValueError(
            f"{shown(text)} must be 1 to {length_max} characters, neither spaces, control characters nor |"
        )
    return text


def buyer(text: str) -> str:
    """A buyer's account. What it says is personal data and in no message."""
    if "*" in text:
        raise ValueError("is masked with *, and would be the same for many buyers: export it in full")
    if len(text) > BUYER_LENGTH_MAX or _CONTROL.search(text):
        raise ValueError(f"must be 1 to {BUYER_LENGTH_MAX} characters without control characters")
    return text


def parcels(text: str, length_max: int) -> tuple[str, ...]:
    """The numbers of parcels, each once, sorted. `No:` before a number is left out."""
    numbers = {
        one.strip(_AROUND).removeprefix("No:").strip(_AROUND) for one in _PARCEL_SEPARATORS.split(text)
    }
    if len(numbers) > PARCELS_MAX:
        raise ValueError(f"names {len(numbers)} parcels: at most {PARCELS_MAX}")
    return tuple(sorted(identifier(number, length_max) for number in numbers if number))


def yuan(text: str) -> int:
    """An amount in fen."""
    amount = _YUAN.fullmatch(unicodedata.normalize("NFKC", text)) if len(text) <= 40 else None
    if amount is None:
        raise ValueError(
            f"{shown(text)} must be an amount in yuan with at most two decimals, not below 0: 1,234.50"
        )
    minor = int(amount[1].replace(",", "")) * 100 + int((amount[2] or "").ljust(2, "0"))
    if minor > AMOUNT_MAX_MINOR:
        raise ValueError(f"{shown(text)} is over 10,000,000,000 yuan")
    return minor


def pieces(text: str) -> int:
    """A number of pieces."""
    number = int(text.replace(",", "")) if len(text) <= 12 and _PIECES.fullmatch(text) else 0
    if not 1 <= number <= PIECES_MAX:
        raise ValueError(f"{shown(text)} must be a whole number from 1 to {PIECES_MAX:,}")
    return number


def time(text: str, zone: ZoneInfo) -> datetime:
    """A time of a zone's clocks, in UTC. Of an hour that comes twice, the first."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown(text)} must be a time: YYYY-MM-DD HH:MM:SS or YYYY-MM-DD HH:MM")
    try:
        local = datetime(*(int(part or 0) for part in found.groups()), tzinfo=zone)  # type: ignore[arg-type, misc]
    except ValueError:
        raise ValueError(f"{shown(text)} is a time that does not exist") from None
    if not 1970 < local.year < 9999:
        raise ValueError(f"{shown(text)} must be a time from 1971 to 9998")
    utc = local.astimezone(UTC)
    if utc.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        raise ValueError(f"{shown(text)} is a time that the clocks of {zone.key} skip")
    return utc


def status(text: str) -> str:
    """A status in the one way in which it is looked up: half-width commas, no spaces."""
    return text.replace("，", ",").replace(" ", "")
