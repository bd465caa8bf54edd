"""Crash points: they end the process where they are told to, and nowhere else; never in production."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from chassis import crash
from local.stack import ROOT

_PASSES = """
from chassis import crash
one, other = crash.point("one"), crash.point("other")
if {armed!r}:
    crash.arm({armed!r})
for time in range(1, 4):
    other.reached()
    print("other", time, flush=True)
    one.reached()
    print("one", time, flush=True)
"""


def passed(armed: str) -> tuple[int, list[str]]:
    """How a process ended that was armed so and came by two points three times, and how far it came."""
    code = _PASSES.format(armed=armed)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout.splitlines()


def test_nothing_happens_unless_armed() -> None:
    """As in production."""
    assert passed("") == (0, [f"{name} {time}" for time in (1, 2, 3) for name in ("other", "one")])


@pytest.mark.parametrize(
    ("armed", "last"), [("one", "other 1"), ("one:1", "other 1"), ("one:3", "other 3"), ("other:2", "one 1")]
)
def test_the_process_ends_by_kill_9_the_time_it_is_told(armed: str, last: str) -> None:
    """Nothing after the point is done, not even what ends a process in order."""
    status, said = passed(armed)
    assert (status, said[-1]) == (-signal.SIGKILL, last)


@pytest.mark.parametrize("armed", ["no_such_point", "one", ":1", "test_crash_here:", "test_crash_here:0"])
def test_what_names_no_point_is_refused_with_those_there_are(
    armed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that arms a point which is gone must not pass because nothing happens."""
    monkeypatch.setattr(crash, "_POINTS", {})
    crash.point("test_crash_here")
    for wrong in (armed, f"{armed}:-1", f"{armed}:²", f"{armed}:1:1"):
        with pytest.raises(ValueError, match=r"of one of: test_crash_here$"):
            crash.arm(wrong)


def test_a_point_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody could say which of two is meant."""
    monkeypatch.setattr(crash, "_POINTS", {})
    crash.point("here")
    with pytest.raises(ValueError, match="here"):
        crash.point("here")
    assert crash.known() == ["here"]
