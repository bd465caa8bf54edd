"""What every benchmark needs: ratios of paired rounds, gates, the machine in words, the last line.

The machines this runs on are shared and noisy: whatever is compared is measured in short rounds, in turn, and
only figures of one round are divided by each other.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self


class GateFailed(Exception):
    """What was measured did not do its work, so that its speed means nothing."""


def gate(passed: bool, what: str) -> None:
    """Raises: GateFailed with what should have been, unless it passed."""
    if not passed:
        raise GateFailed(what)


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, and how far they lie apart."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Of at least one round."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


def cpu_s(pid: int) -> float:
    """CPU time that a process has used so far, in steps of 10 ms. 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    # The name of the program, in brackets, may hold anything.
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine(*packages: str) -> str:
    """The machine and what runs on it, in one line."""
    versions = " ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}{' ' * bool(versions)}{versions}"
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    )
    return found[1] if found else "unknown CPU"


def print_result(values: Mapping[str, float]) -> None:
    """The last line of a benchmark that passed its gates."""
    print("BENCH", *(f"{key}={value:.2f}" for key, value in values.items()), flush=True)
