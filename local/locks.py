"""Compiles requirements/*.lock: `./daogou lock`. local/check.py uses it to tell whether they are up to date.

Every lock names each package by version and by the hashes of its files: an index cannot slip in another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
UNREACHABLE = ("error sending request", "failed to fetch", "dns error", "timed out", "network connectivity")


@dataclass(frozen=True)
class Lock:
    """One lock file, and what uv is to compile it from."""

    name: str
    extras: tuple[str, ...] = ()
    constraint: str | None = None
    """Another lock whose versions this one must share."""

    def source(self) -> list[str]:
        """What stands on uv's command line for it."""
        if self.name == "uv":
            return [str((REQUIREMENTS / "uv.in").relative_to(ROOT))]
        options = [option for extra in self.extras for option in ("--extra", extra)]
        if self.constraint is not None:
            options += ["-c", f"requirements/{self.constraint}.lock"]
        return ["pyproject.toml", *options]


LOCKS = (
    Lock("base"),
    Lock("vision", extras=("vision",), constraint="base"),
    Lock("dev", extras=("vision", "dev"), constraint="vision"),
    Lock("zoo", extras=("vision", "zoo"), constraint="dev"),
    Lock("uv"),
)


class CompileFailed(Exception):
    """uv found no set of versions, or could not look for one; the message is what it said."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.unreachable = any(words in said.lower() for words in UNREACHABLE)


def compile_lock(lock: Lock, output: Path, options: Sequence[str] = ()) -> None:
    """Compile into `output`; versions that already stand there are kept where they may be.

    Raises: CompileFailed.
    """
    uv = Path(sys.executable).parent / "uv"
    command = [
        *(str(uv), "pip", "compile", "--no-config", "--quiet", "--no-header"),
        *("--universal", "--generate-hashes", "--python-version", "3.11"),
        *lock.source(),
        *options,
        *("-o", str(output)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise CompileFailed(done.stderr.strip() or f"uv ended with {done.returncode}")


def is_current(lock: Lock) -> bool:
    """Whether compiling the lock again, from its own versions, leaves it as it is.

    Raises: CompileFailed.
    """
    committed = REQUIREMENTS / f"{lock.name}.lock"
    with tempfile.TemporaryDirectory(prefix="daogou-lock-") as folder:
        again = Path(folder) / committed.name
        shutil.copyfile(committed, again)
        compile_lock(lock, again)
        return again.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")


def unmet(lock: Lock) -> list[str]:
    """What the lock's source asks for and the lock does not pin, in words. Needs no network."""
    pinned = _pins(REQUIREMENTS / f"{lock.name}.lock")
    said = []
    for requirement in _asked(lock):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            said.append(f"{requirement.name} is not in it")
        elif not requirement.specifier.contains(version, prereleases=True):
            said.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return said


def _asked(lock: Lock) -> list[Requirement]:
    if lock.name == "uv":
        lines = (REQUIREMENTS / "uv.in").read_text(encoding="utf-8").splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = list(project["dependencies"])
    for extra in lock.extras:
        asked += project["optional-dependencies"][extra]
    return [Requirement(text) for text in asked]


def _pins(path: Path) -> dict[str, str]:
    """Package to version, from lines such as `grpcio==1.85.1 ; python_version < '4' \\`."""
    pins: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum() and "==" in line:
            name, _, rest = line.partition("==")
            pins[canonicalize_name(name)] = rest.split()[0]
    return pins


def main(options: Sequence[str]) -> int:
    """Compile every lock in place; `options`, such as --upgrade, go to uv."""
    for lock in LOCKS:
        path = REQUIREMENTS / f"{lock.name}.lock"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            compile_lock(lock, path, options)
        except CompileFailed as error:
            print(error, file=sys.stderr)
            return 1
        changed = path.read_text(encoding="utf-8") != before
        print(f"requirements/{path.name}: {'changed' if changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
