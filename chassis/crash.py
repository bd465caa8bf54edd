"""Named places at which a process can be told to kill itself, so that tests can cut work off between steps.

A module names its points when it is imported, and says where each is reached:

    _WRITTEN = crash.point("orders_written")
    ...
    _WRITTEN.reached()

Nothing happens there unless `crash_at` of the settings names the point, which is refused outside of tests.
Every service knows the points of the modules it is made of, so a test can walk all of them.
"""

from __future__ import annotations

import os
import signal


class Point:
    """One place. What came before it is done; what comes after is not."""

    __slots__ = ("_left", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._left = 0

    def arm(self, nth: int) -> None:
        """From now on the nth time that it is reached is the last thing the process does."""
        self._left = nth

    def reached(self) -> None:
        """Ends the process by SIGKILL if it is armed and this is the time; else nothing."""
        if self._left:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


_POINTS: dict[str, Point] = {}


def point(name: str) -> Point:
    """A new point, known by its name from now on. Raises: ValueError when the name is taken."""
    if name in _POINTS:
        raise ValueError(f"there is a crash point {name} already")
    return _POINTS.setdefault(name, Point(name))


def known() -> list[str]:
    """The names of all points of the modules that have been imported."""
    return sorted(_POINTS)


def parsed(crash_at: str) -> tuple[Point, int]:
    """The point that `name` or `name:nth` means, and which time it is reached: the first unless said.

    Raises: ValueError, naming those there are.
    """
    name, _, nth = crash_at.partition(":")
    count = nth if ":" in crash_at else "1"
    if name not in _POINTS or not (count.isascii() and count.isdigit() and int(count) >= 1):
        raise ValueError(f"must be NAME or NAME:NTH, counted from 1, of one of: {', '.join(known())}")
    return _POINTS[name], int(count)


def arm(crash_at: str) -> None:
    """Arms the point that `name` or `name:nth` means. Raises: ValueError."""
    armed, nth = parsed(crash_at)
    armed.arm(nth)
