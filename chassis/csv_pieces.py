"""Rows as CSV for people and their spreadsheets, made and sent piece by piece.

UTF-8 with a byte order mark, without which Excel reads Chinese as something else; lines end in CR LF.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

from chassis.plain import plain

_BOM: Final = "\ufeff"
_PIECE_CHARACTERS: Final = 48 * 1024
_TEXT_MAX: Final = 200
# What Excel, LibreOffice and WPS take for the beginning of a formula, in both widths.
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

R = TypeVar("R")


async def csv_pieces(
    columns: Sequence[str], rows: AsyncIterable[R], cells_of: Callable[[R], Sequence[str] | None]
) -> AsyncIterator[bytes]:
    """The columns and the rows, in pieces of about 64 KiB. A row whose cells are None is left out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    text.write(_BOM)
    writer.writerow(columns)
    async for row in rows:
        cells = cells_of(row)
        if cells is not None:
            writer.writerow(cells)
        if text.tell() >= _PIECE_CHARACTERS:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def text_cell(value: str) -> str:
    """A cell that is text in every program that opens it, and never a formula."""
    line = plain(value, _TEXT_MAX)
    return f"'{line}" if line.startswith(_FORMULA) else line
