"""Everything that can be checked without running the product: `./daogou check`.

Runs every step, also after one has failed, and names the failed ones at the end.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local import locks, proto

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
RELEASED = ROOT / "proto" / "released.binpb"
# Folders of the machines this was written on. Written so that the pattern does not find itself.
PRIVATE_PATHS = "/(work|root)/".replace("work", "[w]ork").replace("root", "[r]oot")


@dataclass(frozen=True)
class Step:
    """One check: `run` tells whether it passed, and prints what is wrong and how to mend it."""

    name: str
    run: Callable[[], bool]


def _command(*command: str) -> Callable[[], bool]:
    def run() -> bool:
        program = str(SCRIPTS / command[0])
        return subprocess.run([program, *command[1:]], check=False, cwd=ROOT).returncode == 0

    return run


def breaking() -> bool:
    """Nothing that a released client relies on has changed."""
    if not RELEASED.exists():
        print("proto/released.binpb: nothing is released yet, so nothing can break")
        return True
    return _command("buf", "breaking", "--against", str(RELEASED.relative_to(ROOT)))()


def generated() -> bool:
    """gen/ is what proto/ generates."""
    with tempfile.TemporaryDirectory(prefix="daogou-gen-") as made:
        try:
            proto.generate(proto.PROTO, Path(made))
        except proto.GenerationFailed as error:
            print(error)
            return False
        said = proto.differences(Path(made), proto.GEN)
    for line in said:
        print(f"gen/ {line}")
    if said:
        print("./daogou proto mends this")
    return not said


def locks_current() -> bool:
    """The locks are what pyproject.toml compiles to; without an index, at least they satisfy it."""
    passed = True
    for lock in locks.LOCKS:
        try:
            said = [] if locks.is_current(lock) else ["not what its source compiles to"]
        except locks.CompileFailed as error:
            if not error.unreachable:
                said = [str(error)]
            else:
                print(f"requirements/{lock.name}.lock: no index in reach; only compared with its source")
                said = locks.unmet(lock)
        for line in said:
            print(f"requirements/{lock.name}.lock: {line}")
        passed = passed and not said
    if not passed:
        print("./daogou lock mends this")
    return passed


def tree() -> bool:
    """The licence is there, and no file names a folder of somebody's own machine."""
    licence = ROOT / "LICENSE"
    passed = licence.exists() and "Apache License" in licence.read_text(encoding="utf-8")
    if not passed:
        print("LICENSE does not hold the Apache License")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        print("not a git checkout: its files were not searched for private paths")
        return passed
    command = ["git", "grep", "--untracked", "-nE", PRIVATE_PATHS]
    found = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", cwd=ROOT)
    if found.returncode > 1:
        print(found.stderr, end="")
        return False
    print(found.stdout, end="")
    return passed and not found.stdout


STEPS = (
    Step("ruff check", _command("ruff", "check", "--quiet", "--output-format=concise")),
    Step("ruff format", _command("ruff", "format", "--check", "--quiet")),
    Step("mypy", _command("mypy", "--no-error-summary")),
    Step("buf lint", _command("buf", "lint")),
    Step("buf breaking", breaking),
    Step("generated code", generated),
    Step("locks", locks_current),
    Step("tree", tree),
)


def main() -> int:
    """Run all steps. 0 when all passed, 1 otherwise."""
    failed = []
    for step in STEPS:
        print(f"--- {step.name}", flush=True)
        began = time.monotonic()
        passed = step.run()
        seconds = time.monotonic() - began
        print(f"    {'passed' if passed else 'FAILED'} in {seconds:.1f} s", flush=True)
        if not passed:
            failed.append(step.name)
    if failed:
        print(f"check: {len(failed)} of {len(STEPS)} steps failed: {', '.join(failed)}")
        return 1
    print(f"check: all {len(STEPS)} steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
