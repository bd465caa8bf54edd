"""What stands where: who may import whom, and what no code of a service does by itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = sorted(path.name for path in ROOT.glob("svc_*") if path.is_dir())
PARTS = ["chassis", *SERVICES]
OURS = [*PARTS, "local", "bench", "tests"]
LINES_MAX = 400

# Modules of the standard library by which a rule could look at the world, or differ from one run to the next.
IO_MODULES = frozenset(
    {
        *("asyncio", "builtins", "concurrent", "ctypes", "fcntl", "fileinput", "ftplib", "getpass", "glob"),
        *(
            "http",
            "imaplib",
            "importlib",
            "io",
            "logging",
            "mmap",
            "multiprocessing",
            "os",
            "pathlib",
            "pickle",
        ),
        *("platform", "queue", "random", "resource", "secrets", "select", "selectors", "shelve", "shutil"),
        *("signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile"),
        *("threading", "time", "urllib", "uuid", "webbrowser", "xmlrpc"),
    }
)
RULES_MAY_USE = {"svc_vision": {"numpy"}}


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def files(*parts: str) -> list[Path]:
    """The Python files of some parts."""
    return sorted(path for part in parts for path in (ROOT / part).rglob("*.py"))


def named(path: Path) -> str:
    """A file as a person would name it."""
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it; names taken from one with it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of the packages or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


RULES = [path for path in files(*SERVICES) if path.parent.name == "rules"]


def test_there_is_something_to_look_at() -> None:
    """Else all that follows would hold of nothing."""
    assert {"svc_members", "svc_commission"} <= set(SERVICES)
    assert len(files(*PARTS)) > 40


def test_the_chassis_imports_no_service() -> None:
    """What stands there serves all of them."""
    for path in files("chassis"):
        assert not [module for module in imports(path) if within(module, *SERVICES)], named(path)


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    """They meet over gRPC alone, so that each can be deployed, and understood, by itself."""
    others = [other for other in SERVICES if other != service]
    for path in files(service):
        assert not [module for module in imports(path) if within(module, *others)], named(path)


def test_no_service_needs_a_developers_machine() -> None:
    """What starts, measures and tests them is in no image."""
    for path in files(*PARTS):
        assert not [module for module in imports(path) if within(module, "local", "bench", "tests")], named(
            path
        )


@pytest.mark.parametrize("path", RULES, ids=named)
def test_rules_import_nothing_that_reaches_the_world(path: Path) -> None:
    """A rule is decided by what it is given: it can be read, tried and proved by itself."""
    service = path.relative_to(ROOT).parts[0]
    for module in imports(path):
        package = module.partition(".")[0]
        if within(module, "chassis.errors", f"{service}.rules") or package in RULES_MAY_USE.get(
            service, set()
        ):
            continue
        assert package in sys.stdlib_module_names, f"{named(path)} imports {module}"
        assert package not in IO_MODULES, f"{named(path)} imports {module}"


@pytest.mark.parametrize("path", RULES, ids=named)
def test_rules_do_not_ask_for_the_time(path: Path) -> None:
    """It is taken once per request and handed to them; so are files, input and the environment."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"{named(path)}:{node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id not in {"open", "input", "exec", "eval", "print"}, f"{named(path)}:{node.lineno}"


def test_drivers_of_the_database_are_imported_where_documents_are_stored() -> None:
    """So that a service's reads and writes stand in its `store_*.py`, and the driver can be changed."""
    for path in files(*PARTS):
        part, *rest = path.relative_to(ROOT).parts
        stores = (part == "chassis" and (rest[0] == "mongo" or rest == ["audit.py"])) or (
            part in SERVICES and path.name.startswith("store_")
        )
        drivers = [module for module in imports(path) if within(module, "motor", "pymongo", "bson", "gridfs")]
        assert stores or not drivers, named(path)


def test_motor_is_imported_in_one_file() -> None:
    """The day it must be replaced, one file changes."""
    importing = [path for path in files(*PARTS) if any(within(module, "motor") for module in imports(path))]
    assert importing == [ROOT / "chassis" / "mongo" / "connection.py"]


def wall_clock_calls(path: Path) -> Iterator[int]:
    """The lines on which a file asks the machine for the time of day."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            asked = f"{node.value.id}.{node.attr}"
            if asked in {
                *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
                *("time.time", "time.time_ns", "time.localtime", "time.gmtime"),
            }:
                yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno


def test_services_take_the_time_from_their_clock() -> None:
    """Else a demonstration in which a week passes in a second would be told two times."""
    for path in files(*SERVICES):
        assert list(wall_clock_calls(path)) == [], named(path)


@pytest.mark.parametrize("part", [part for part in OURS if part != "tests"])
def test_no_file_is_longer_than_anybody_reads(part: str) -> None:
    """400 lines at most. Generated code is read by nobody, and of tests one reads the one that failed."""
    long = {
        named(path): lines
        for path in files(part)
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LINES_MAX
    }
    assert long == {}


def test_every_file_says_first_what_it_is() -> None:
    """One line for whoever opened it by its name."""
    assert not [named(path) for path in files(*OURS) if not ast.get_docstring(tree(path))]


def test_no_file_is_a_drawer() -> None:
    """A module's name says what it decides."""
    drawers = {"utils", "util", "helpers", "helper", "manager", "misc", "common", "domain", "base"}
    assert not [named(path) for path in files(*OURS) if path.stem in drawers]
