"""Reads CSV files as they are found in the wild: two encodings, broken quotes, lines without end.

A record that is no CSV is told as such, with all the text that it swallowed, and reading goes on behind it.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TextIO

LINE_MAX: Final = 1 << 20
"""Characters. Fields have at most 131,072 of them (csv.field_size_limit)."""
_CHUNK_BYTES: Final = 1 << 20
_SPREADSHEETS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class NotReadable(Exception):
    """A file is no text that could be an export."""


class Record(NamedTuple):
    """One record: the line on which it begins; its cells, or where it is no CSV its text and why."""

    line: int
    cells: tuple[str, ...]
    text: str = ""
    problem: str = ""


def encoding_of(path: Path) -> str:
    """UTF-8 where all of it can be read so, else GB18030. Raises: NotReadable; OSError."""
    with path.open("rb") as file:
        chunk = file.read(_CHUNK_BYTES)
        if chunk.startswith(_SPREADSHEETS):
            raise NotReadable("is a spreadsheet: save it as CSV")
        if chunk.startswith(_UTF16):
            raise NotReadable("is in UTF-16: save it as CSV UTF-8")
        if b"\0" in chunk[:4096]:
            raise NotReadable("is no text")
        marked = chunk.startswith(codecs.BOM_UTF8)
        names = ("utf-8-sig",) if marked else ("utf-8-sig", "gb18030")
        decoders = {name: codecs.getincrementaldecoder(name)() for name in names}
        while decoders:
            for name in list(decoders):
                try:
                    decoders[name].decode(chunk, final=not chunk)
                except UnicodeDecodeError:
                    del decoders[name]
            if not chunk:
                break
            chunk = file.read(_CHUNK_BYTES)
    if not decoders:
        raise NotReadable("begins as UTF-8 and is not" if marked else "is neither UTF-8 nor GB18030")
    return next(iter(decoders))


def records(file: TextIO) -> Iterator[Record]:
    """The records of a file that was opened with newline=""."""
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.of_record.clear()
        line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            upto = f", up to line {lines.number}" if lines.number > line else ""
            yield Record(line, (), "".join(lines.of_record), f"is no CSV{upto}: {error}")
        else:
            yield Record(line, tuple(cells))


class _Lines:
    """The lines of a file, counted, none longer than LINE_MAX; and those of the record at hand."""

    def __init__(self, file: TextIO) -> None:
        self.number = 0
        self.of_record: list[str] = []
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = rest = self._file.readline(LINE_MAX)
        if not line:
            raise StopIteration
        self.number += 1
        self.of_record.append(line)
        while len(rest) == LINE_MAX and not rest.endswith(("\n", "\r")):
            rest = self._file.readline(LINE_MAX)
        if rest is not line:
            raise csv.Error(f"a line of over {LINE_MAX:,} characters")
        return line
