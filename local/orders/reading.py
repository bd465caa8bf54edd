"""Opens the files of one import: encodings and headers of all of them first, then their rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.orders import columns, files
from local.orders.columns import Layout
from local.orders.rows import Sheets

_TELL_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Export:
    """A file that has the columns of an export."""

    path: Path
    encoding: str
    layout: Layout

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


def opened(paths: Sequence[Path]) -> tuple[list[Export], list[str]]:
    """The files that are exports, and what is wrong with the others: everything at once."""
    exports, problems = [], []
    for path in paths:
        try:
            encoding = files.encoding_of(path)
            with path.open(encoding=encoding, newline="") as file:
                header = next(files.records(file), files.Record(1, ()))
        except (files.NotReadable, OSError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            problems.append(f"{path}: {what}")
            continue
        if header.problem:
            problems.append(f"{path}: the header {header.problem}")
            continue
        layout, wrong = columns.layout(header.cells)
        problems += [f"{path}: {one} (read as {encoding})" for one in wrong]
        exports.append(Export(path, encoding, layout))
    return exports, problems


def read(export: Export, sheets: Sheets) -> Iterator[int]:
    """Takes in all rows of a file, and says now and then how many bytes. Raises: rows.NoExport; OSError."""
    name = str(export.path)
    with export.path.open("rb") as raw, io.TextIOWrapper(raw, export.encoding, newline="") as file:
        for number, record in enumerate(files.records(file)):
            if number % _TELL_EVERY == 0:
                yield raw.tell()
            if record.problem:
                sheets.add_broken(name, record.line, record.text, record.problem)
            elif number:
                sheets.add(name, record.line, record.cells, export.layout)
    yield export.size_bytes
