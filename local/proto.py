"""Generates gen/ from proto/: `./daogou proto`. local/check.py uses it to tell whether gen/ is up to date."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"


class GenerationFailed(Exception):
    """protoc refused; the message is what it said."""


def generate(proto: Path, into: Path) -> None:
    """Write messages, services and their stubs for every .proto file under `proto` to the folder `into`.

    Raises: GenerationFailed.
    """
    files = sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto"))
    services = [name for name in files if _defines_service(proto / name)]
    if files:
        _protoc(proto, [f"--python_out={into}", f"--mypy_out=quiet:{into}"], files)
    if services:
        _protoc(proto, [f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}"], services)


def differences(made: Path, kept: Path) -> list[str]:
    """Which files of `kept` are missing, stale or different from those just `made`, in words, sorted."""
    new, old = _files(made), _files(kept)
    said = [f"missing: {name}" for name in new - old]
    said += [f"left over: {name}" for name in old - new]
    said += [
        f"different: {name}" for name in new & old if not filecmp.cmp(made / name, kept / name, shallow=False)
    ]
    return sorted(said)


def install(made: Path, into: Path) -> int:
    """Make `into` equal to `made`, touching only what differs. Returns how many files changed."""
    changes = differences(made, into)
    for change in changes:
        kind, _, name = change.partition(": ")
        target = into / name
        if kind == "left over":
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Replaced in one step, so that a test that runs meanwhile never imports half a file.
            shutil.copyfile(made / name, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
    _remove_empty_folders(into)
    return len(changes)


def _defines_service(path: Path) -> bool:
    return any(line.startswith("service ") for line in path.read_text(encoding="utf-8").splitlines())


def _protoc(proto: Path, outputs: list[str], files: list[str]) -> None:
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", *plugins, *outputs, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise GenerationFailed(done.stderr.strip() or f"protoc ended with {done.returncode}")


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_dir() or path.name == "__pycache__":
            continue
        if all(child.name == "__pycache__" for child in path.iterdir()):
            shutil.rmtree(path)


def main() -> int:
    """Regenerate gen/ and say what changed."""
    with tempfile.TemporaryDirectory(prefix="daogou-gen-") as made:
        try:
            generate(PROTO, Path(made))
        except GenerationFailed as error:
            print(error, file=sys.stderr)
            return 1
        GEN.mkdir(exist_ok=True)
        changed = install(Path(made), GEN)
    print(f"gen/: {changed} files changed" if changed else "gen/ is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
