"""Settings: every mistake is told at once, in the names that the operator wrote, without their values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chassis import crash, settings
from chassis.settings import ServiceSettings

SECRET = "mongodb://root:hunter2@db/"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """All that a service needs and nothing else; tests change it before they `load`."""
    for name in os.environ:
        if name.startswith("DAOGOU_") or name == "MONGODB_URI":
            monkeypatch.delenv(name)
    keys = tmp_path / "keys.json"
    keys.touch()
    return {
        "DAOGOU_LISTEN": "0.0.0.0:50051",
        "DAOGOU_HEALTH_LISTEN": "0.0.0.0:50061",
        "DAOGOU_METRICS_LISTEN": "[::]:9151",
        "DAOGOU_JWKS_FILE": str(keys),
        "DAOGOU_SERVICE_KEY_FILE": str(keys),
        "MONGODB_URI": SECRET,
    }


def loaded(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """The settings of this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings.load(ServiceSettings)


def told(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What is told on standard error before the service ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        loaded(environment, monkeypatch)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_what_a_service_needs_is_enough(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All else has a default that holds in production."""
    config = loaded(environment, monkeypatch)
    assert config.mongodb_uri == SECRET
    assert config.mongo_driver == "motor"
    assert (config.testing, config.migrate_on_start, config.clock_shift_file) == (False, False, None)
    assert config.crash_at == ""


def test_a_setting_is_named_as_its_field(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DAOGOU_ and the name in capitals."""
    changed = {"DAOGOU_DRAIN_S": "0.5", "DAOGOU_MONGO_DRIVER": "pymongo", "DAOGOU_REFLECTION": "false"}
    config = loaded({**environment, **changed}, monkeypatch)
    assert (config.drain_s, config.mongo_driver, config.reflection) == (0.5, "pymongo", False)


def test_everything_that_is_missing_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody starts a service seven times to learn what it needs."""
    lines = told({}, monkeypatch, capsys).splitlines()
    assert {line.partition(":")[0] for line in lines} == set(environment)


def test_everything_that_is_wrong_is_told_at_once(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Each by its name in the environment; a shifted clock in production among them."""
    wrong = {
        "DAOGOU_LISTEN": "50051",
        "DAOGOU_HEALTH_LISTEN": "0.0.0.0:70000",
        "DAOGOU_METRICS_LISTEN": ":9151",
        "DAOGOU_JWKS_FILE": str(tmp_path / "missing.json"),
        "DAOGOU_DRAIN_S": "-1",
        "DAOGOU_GRACE_S": "nan",
        "DAOGOU_UNARY_CALLS_MAX": "many",
        "DAOGOU_MONGO_DRIVER": "mongoose",
        "DAOGOU_LOG_LEVEL": "loud",
        "DAOGOU_TESTING": "perhaps",
        "DAOGOU_CLOCK_SHIFT_FILE": str(tmp_path / "shift"),
    }
    lines = told({**environment, **wrong}, monkeypatch, capsys).splitlines()
    assert {line.partition(":")[0] for line in lines} == set(wrong)


def test_no_value_is_repeated(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret put into the wrong variable must not end up in a log."""
    fields = ("LISTEN", "DRAIN_S", "UNARY_CALLS_MAX", "REFLECTION", "LOG_FORMAT", "JWKS_FILE")
    wrong = {f"DAOGOU_{field}": SECRET for field in fields}
    said = told({**environment, **wrong}, monkeypatch, capsys)
    assert "hunter2" not in said
    assert len(said.splitlines()) == len(wrong)


def test_a_clock_is_shifted_in_tests_alone(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A forgotten variable must not let a month of commission pass."""
    shifted = {**environment, "DAOGOU_CLOCK_SHIFT_FILE": str(tmp_path / "shift")}
    assert "DAOGOU_TESTING=1" in told(shifted, monkeypatch, capsys)
    assert "DAOGOU_TESTING=1" in told({**shifted, "DAOGOU_TESTING": "0"}, monkeypatch, capsys)
    config = loaded({**shifted, "DAOGOU_TESTING": "1"}, monkeypatch)
    assert config.clock_shift_file == tmp_path / "shift"


def test_a_service_kills_itself_in_tests_alone(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And only where there is such a point; those there are are told."""
    monkeypatch.setattr(crash, "_POINTS", {})
    crash.point("orders_written")
    armed = {**environment, "DAOGOU_CRASH_AT": "orders_written:2"}
    assert "DAOGOU_TESTING=1" in told(armed, monkeypatch, capsys)
    assert "DAOGOU_TESTING=1" in told({**armed, "DAOGOU_TESTING": "0"}, monkeypatch, capsys)
    unknown = {**armed, "DAOGOU_TESTING": "1", "DAOGOU_CRASH_AT": "orders_eaten"}
    said = told(unknown, monkeypatch, capsys)
    assert said.startswith("DAOGOU_CRASH_AT:")
    assert "orders_written" in said
    assert loaded({**armed, "DAOGOU_TESTING": "1"}, monkeypatch).crash_at == "orders_written:2"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "127.0.0.1:65535", "[::1]:50051", "localhost:50051"])
def test_an_address_is_host_and_port(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Port 0 means any that is free."""
    assert loaded({**environment, "DAOGOU_LISTEN": address}, monkeypatch).listen == address


@pytest.mark.parametrize(
    "address", ["", ":", "host", "host:", ":50051", "host:-1", "host:65536", "host:http", "host:²"]
)
def test_what_is_no_address_is_told(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
) -> None:
    """In words that say what it should look like."""
    said = told({**environment, "DAOGOU_LISTEN": address}, monkeypatch, capsys)
    assert said.startswith("DAOGOU_LISTEN:")
    assert "HOST:PORT" in said
