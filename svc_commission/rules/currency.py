"""Amounts in minor units as people read them: how many digits a currency has behind the point."""

from __future__ import annotations

from typing import Final

# ISO 4217: every other currency has two.
_DIGITS: Final = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"),
            *("PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def minor_digits(currency_code: str) -> int:
    """How many digits of an amount in minor units stand behind the point: of fen two, of yen none."""
    return _DIGITS.get(currency_code, 2)


def major_text(amount_minor: int, currency_code: str, *, grouped: bool = False) -> str:
    """The amount in the currency's own unit, exactly: `-1234.56`; grouped for people: `-1,234.56`."""
    digits = minor_digits(currency_code)
    whole, fraction = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    point = f".{fraction:0{digits}}" if digits else ""
    return f"{sign}{whole:{',' if grouped else ''}}{point}"
