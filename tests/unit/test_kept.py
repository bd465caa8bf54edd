"""A bounded memory: what it keeps, for how long, and what it lets go first."""

from __future__ import annotations

import time

import pytest

from chassis import kept
from chassis.kept import Kept


def test_what_was_kept_a_moment_ago_is_known() -> None:
    """Also a value that is false, and the last of several for one key."""
    memory: Kept[str, int] = Kept(60)
    assert memory.get("a") is None
    memory.put("a", 1)
    memory.put("a", 0)
    assert memory.get("a") == 0
    assert memory.get("b") is None


def test_what_is_too_old_must_be_asked_for_again() -> None:
    """It is the caller's promise that nothing older is told."""
    memory: Kept[str, int] = Kept(0.02)
    memory.put("a", 1)
    time.sleep(0.03)
    assert memory.get("a") is None
    memory.put("a", 2)
    assert memory.get("a") == 2


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names new things all day does not fill the memory; what was put anew is young again."""
    monkeypatch.setattr(kept, "KEPT_MAX", 2)
    memory: Kept[str, int] = Kept(float("inf"))
    for number, key in enumerate("abac"):
        memory.put(key, number)
    assert [memory.get(key) for key in "abc"] == [2, None, 3]
