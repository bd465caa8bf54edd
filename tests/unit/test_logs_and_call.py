"""Logs without secrets, and the trace that a call carries through them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from chassis import logs
from chassis.rpc import call
from chassis.rpc.call import Call, Claims
from daogou.common.v1.access_pb2 import Role

TRACE = "0af7651916cd43dd8448eb211c80319c"


def claims_of(subject: str) -> Claims:
    """The claims of somebody of that name."""
    return Claims(
        subject=subject,
        role=Role.ROLE_CONNECTOR,
        brand_id="brand",
        store_id="",
        guide_id="",
        region_id="",
        expire_time_s=0.0,
    )


@pytest.fixture
def configured() -> Iterator[None]:
    """Puts logging back as it was: it is one for the process."""
    yield
    structlog.reset_defaults()


def logged(capfd: pytest.CaptureFixture[str], log_format: str, level: str = "info", **values: object) -> str:
    """What a service writes for one line."""
    logs.configure("members", log_format, level)
    logs.logger("test").info("happened", **values)
    return capfd.readouterr().out


def test_a_line_for_machines_says_what_where_and_when(
    configured: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """One JSON object a line."""
    [line] = logged(capfd, "json", brand_id="brand", ms=1.5).splitlines()
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "event": "happened",
        "level": "info",
        "service": "members",
        "part": "test",
        "brand_id": "brand",
        "ms": 1.5,
    }


def test_without_a_terminal_lines_are_for_machines(
    configured: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """`auto` asks nobody."""
    assert json.loads(logged(capfd, "auto"))["event"] == "happened"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_is_named_like_a_secret_is_not_written(
    configured: None, capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    """In neither form, whoever slipped."""
    secrets = {key: f"secret-of-{key}" for key in logs.REDACTED_KEYS}
    line = logged(capfd, log_format, harmless="shown", **secrets)
    assert "shown" in line
    assert "secret-of-" not in line
    assert line.count("[redacted]") == len(secrets)
    assert {"phone", "token", "authorization", "password"} <= logs.REDACTED_KEYS


def test_lines_below_the_level_are_not_written(configured: None, capfd: pytest.CaptureFixture[str]) -> None:
    """A busy service at `warning` writes no line a call."""
    assert logged(capfd, "json", level="warning") == ""


def test_a_failure_is_written_with_where_it_came_from(
    configured: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the same line, so that one search finds it."""
    logs.configure("members", "json", "info")
    try:
        dict[str, int]()["lost"]
    except KeyError as error:
        logs.logger("test").error("unforeseen", exc_info=error)
    [line] = capfd.readouterr().out.splitlines()
    assert "test_logs_and_call.py" in json.loads(line)["exception"]
    assert "KeyError: 'lost'" in json.loads(line)["exception"]


def test_the_callers_trace_goes_on() -> None:
    """As W3C writes it."""
    assert call.trace_id_of(f"00-{TRACE}-b7ad6b7169203331-01") == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TRACE,
        f"01-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331",
        f"00-{TRACE}-b7ad6b7169203331-01-more",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{TRACE[1:]}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-b7ad6b7169203331-01\n",
    ],
)
def test_any_other_header_begins_a_new_trace(header: str | None) -> None:
    """Nothing of what a caller sends gets into the logs unlooked at."""
    one, other = call.trace_id_of(header), call.trace_id_of(header)
    assert re.fullmatch(r"[0-9a-f]{32}", one)
    assert one not in (other, TRACE)


@given(st.text())
def test_a_trace_id_is_always_32_hexadecimal_digits(header: str) -> None:
    """Whatever the header holds."""
    assert re.fullmatch(r"[0-9a-f]{32}", call.trace_id_of(header))


async def test_the_next_service_is_told_the_same_trace() -> None:
    """And another span of it each time; outside of a call, a trace of its own."""

    async def within() -> tuple[str, str]:
        call.current.set(Call(TRACE))
        return call.traceparent(), call.traceparent()

    one, other = await asyncio.create_task(within())
    assert call.trace_id_of(one) == call.trace_id_of(other) == TRACE
    assert one != other
    assert call.trace_id_of(call.traceparent()) != TRACE


async def test_who_calls_is_known_within_his_call_alone() -> None:
    """Two calls at once do not see each other's callers; outside of one there is nobody."""

    async def within(subject: str | None) -> str:
        claims = None if subject is None else claims_of(subject)
        call.current.set(Call(TRACE, claims))
        await asyncio.sleep(0)
        return call.caller().subject

    found = await asyncio.gather(*(asyncio.create_task(within(subject)) for subject in ("pos", "crm")))
    assert found == ["pos", "crm"]
    with pytest.raises(RuntimeError):
        await asyncio.create_task(within(None))
    with pytest.raises(RuntimeError):
        call.caller()
