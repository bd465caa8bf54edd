"""Identifiers, clocks, times in messages, and waiting: the small things that everything stands on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from chassis import backoff, ids
from chassis.clock import Clock, to_milliseconds
from chassis.times import from_timestamp, to_optional_timestamp, to_timestamp

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.binary(min_size=10, max_size=10))
def test_an_identifier_is_ten_bytes_as_sixteen_characters(raw: bytes) -> None:
    """Both ways; and of the form that contracts demand."""
    text = ids.id_of_bytes(raw)
    assert re.fullmatch(r"[a-z2-7]{16}", text)
    assert ids.is_id(text)
    assert ids.bytes_of_id(text) == raw


@pytest.mark.parametrize(
    "text", ["", "short", "abcdefghijklmno1", "a" * 24, "a" * 8, "a" * 15 + "é", "a" * 15 + "="]
)
def test_what_is_no_identifier_has_no_bytes(text: str) -> None:
    """It cannot get into a code."""
    assert not ids.is_id(text)
    with pytest.raises(ValueError):
        ids.bytes_of_id(text)


def test_new_identifiers_differ() -> None:
    """80 random bits."""
    assert len({ids.new_id() for _ in range(1000)}) == 1000


@given(st.lists(st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"])), min_size=1))
def test_a_derived_identifier_follows_from_its_parts_and_their_borders(parts: list[str]) -> None:
    """The repeat of a request finds what the request created, and no other request does."""
    assert ids.derived_id(*parts) == ids.derived_id(*parts)
    assert ids.is_id(ids.derived_id(*parts))
    assert ids.derived_id(*parts) != ids.derived_id(*parts, "")
    if len(parts) > 1 and parts[1]:
        moved = [parts[0] + parts[1][0], parts[1][1:], *parts[2:]]
        assert ids.derived_id(*moved) != ids.derived_id(*parts)


@given(moments)
def test_a_time_to_the_millisecond_survives_a_message(moment: datetime) -> None:
    """What was stored is what is answered."""
    cut = to_milliseconds(moment)
    assert from_timestamp(to_timestamp(cut)) == cut
    assert timedelta(0) <= moment - cut < timedelta(milliseconds=1)


@given(st.integers(0, 253_402_300_799), st.integers(0, 999_999_999))
def test_a_message_is_cut_to_the_millisecond_that_it_lies_in(seconds: int, nanos: int) -> None:
    """Never rounded up: an event at the end of a month stays in it. Any time that a contract accepts fits."""
    back = to_timestamp(from_timestamp(Timestamp(seconds=seconds, nanos=nanos)))
    assert (back.seconds, back.nanos) == (seconds, nanos // 1_000_000 * 1_000_000)


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """Shanghai's noon is four o'clock in UTC."""
    noon = datetime(2026, 3, 10, 12, tzinfo=timezone(timedelta(hours=8)))
    assert from_timestamp(to_timestamp(noon)) == datetime(2026, 3, 10, 4, tzinfo=UTC)


def test_an_absent_time_stays_absent() -> None:
    """And is not 1970."""
    assert to_optional_timestamp(None) is None
    moment = datetime(2026, 3, 10, 4, tzinfo=UTC)
    assert to_optional_timestamp(moment) == to_timestamp(moment)


def test_the_clock_tells_whole_milliseconds_in_utc() -> None:
    """As the database keeps them."""
    before = datetime.now(UTC)
    now = Clock().now()
    assert now.microsecond % 1000 == 0
    assert now.utcoffset() == timedelta(0)
    assert before - timedelta(milliseconds=1) <= now <= datetime.now(UTC)
    assert Clock().database_now() == "$$NOW"


def test_a_shifted_clock_is_ahead_by_what_its_file_says_at_that_moment(tmp_path: Path) -> None:
    """A week passes by writing a file; the database's clock passes it too."""
    file = tmp_path / "shift"
    clock = Clock(file)
    for seconds in ("604800", "-3600.5", "0"):
        file.write_text(seconds, encoding="ascii")
        ahead = clock.now() - datetime.now(UTC)
        assert abs(ahead - timedelta(seconds=float(seconds))) < timedelta(seconds=1)
    assert clock.database_now() == "$$NOW"
    file.write_text("1.5", encoding="ascii")
    assert clock.database_now() == {"$add": ["$$NOW", 1500]}


def test_waits_grow_and_stay_short_and_differ() -> None:
    """Those who collided must not collide again, and nobody waits for half a second."""
    assert len({backoff.pause_s(3) for _ in range(20)}) > 10
    for attempt in range(60):
        assert 0.002 < backoff.pause_s(attempt) <= 0.375
    assert max(backoff.pause_s(0) for _ in range(50)) < min(backoff.pause_s(5) for _ in range(50))
