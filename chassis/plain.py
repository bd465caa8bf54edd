"""Text from outside as documents may show it: one line, of characters that draw something, not too long."""

from __future__ import annotations

import unicodedata
from typing import Final

# Control characters, line and paragraph separators, what turns the direction of writing around it, halves of
# pairs, and characters nobody has defined. Spaces of every kind become one space each.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_MARKS: Final = frozenset({"Mn", "Me"})
_MARKS_MAX: Final = 2
"""Marks upon one letter: no language needs more, and a heap of them covers the lines above."""


def plain(text: str, length_max: int) -> str:
    """The text on one line; what is too long ends in `…`."""
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        if marks <= _MARKS_MAX and (character.isspace() or category not in _UNSEEN):
            kept.append(" " if character.isspace() else character)
    line = " ".join("".join(kept).split())
    return line if len(line) <= length_max else line[: length_max - 1].rstrip() + "…"
