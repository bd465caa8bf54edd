"""The audit log's chain: whatever is done to it afterwards is found."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.audit import broken_at, record_hash

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)


def chain(length: int) -> list[dict[str, Any]]:
    """An untouched chain of one process."""
    records: list[dict[str, Any]] = []
    for sequence in range(length):
        record: dict[str, Any] = {
            "_id": f"process|{sequence:012d}",
            "process_id": "process",
            "sequence": sequence,
            "recorded_time": NOON + timedelta(seconds=sequence),
            "caller": "auditor",
            "role": "ROLE_BRAND_ADMIN",
            "brand_id": "brand",
            "action": "RevealIdentity",
            "subject": {"brand_id": "brand", "member_id": f"member-{sequence % 2}"},
            "purpose": "a complaint",
            "previous_hash": records[-1]["hash"] if records else "",
        }
        record["hash"] = record_hash(record)
        records.append(record)
    return records


FIELDS = sorted(chain(1)[0])


def test_an_untouched_chain_is_whole() -> None:
    """Also an empty one, and one of a single record."""
    for length in (0, 1, 5):
        assert broken_at(chain(length)) is None


@pytest.mark.parametrize("field", FIELDS)
@given(place=st.integers(0, 3))
def test_a_changed_field_is_found_in_its_record(field: str, place: int) -> None:
    """Who, what, whose, why, when: none can be changed unseen."""
    records = chain(4)
    old = records[place][field]
    match old:
        case int():
            records[place][field] = old + 1
        case datetime():
            records[place][field] = old + timedelta(milliseconds=1)
        case dict():
            records[place][field] = {**old, "member_id": "another"}
        case _:
            records[place][field] = f"{old}x"
    assert broken_at(records) == records[place]["_id"]


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "_id"])
def test_a_field_taken_out_is_found(field: str) -> None:
    """It is told of, not stumbled over."""
    records = chain(4)
    del records[1][field]
    assert broken_at(records) == records[1]["_id"]


def test_a_field_put_in_is_found() -> None:
    """A record says what was written, and nothing more."""
    records = chain(4)
    records[2]["approved_by"] = "the boss"
    assert broken_at(records) == records[2]["_id"]


def test_a_change_with_its_hash_made_anew_is_found_in_the_next() -> None:
    """Whoever knows how hashes are made would have to make all that follow anew."""
    records = chain(4)
    records[1]["purpose"] = "curiosity"
    records[1]["hash"] = record_hash(records[1])
    assert broken_at(records) == records[2]["_id"]


@given(st.integers(0, 4))
def test_a_record_taken_out_is_found(place: int) -> None:
    """At the one that followed it. (What is cut off the end is found by the anchored head.)"""
    records = chain(6)
    follower = records[place + 1]["_id"]
    del records[place]
    assert broken_at(records) == follower


@given(st.permutations(range(5)))
def test_records_in_another_order_are_found(order: list[int]) -> None:
    """At the first that is not in its place."""
    records = chain(5)
    moved = [records[place] for place in order]
    wrong = next((one for place, one in enumerate(moved) if one["sequence"] != place), None)
    assert broken_at(moved) == (wrong["_id"] if wrong else None)


def test_a_record_written_twice_is_found() -> None:
    """A copied reading is no second reading."""
    records = chain(3)
    doubled = [*records[:2], copy.deepcopy(records[1]), *records[2:]]
    assert broken_at(doubled) == records[1]["_id"]
