"""Repeats of a request: the first reply, once, for as long as the contract promises."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import AlreadyExists, Overloaded
from chassis.mongo import idempotency
from daogou.members.v1.directory_pb2 import Brand, CreateBrandRequest, GetBrandRequest

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)


def digest(content: bytes) -> bytes:
    """Stands in for the keyed hash."""
    return hashlib.sha256(content).digest()


def receipt(key: str, name: str = "First", time: datetime = NOON) -> dict[str, Any]:
    """What a document keeps of a request that named a brand."""
    return idempotency.receipt(key, name.encode(), Brand(display_name=name), time)


def test_a_repeat_gets_the_first_reply() -> None:
    """Also when much else was written since."""
    kept = [receipt("request-1", "First"), receipt("request-2", "Second")]
    assert idempotency.first_reply(kept, "request-1", b"First", Brand) == Brand(display_name="First")
    assert idempotency.first_reply(kept, "request-3", b"Third", Brand) is None
    assert idempotency.first_reply([], "request-1", b"First", Brand) is None


def test_one_id_for_two_requests_is_refused() -> None:
    """The caller has a mistake, and neither of his requests may pass for the other."""
    with pytest.raises(AlreadyExists) as error:
        idempotency.first_reply([receipt("request-1", "First")], "request-1", b"Other", Brand)
    assert error.value.reason == "REQUEST_ID_REUSED"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_body_is_all_of_the_request_but_its_id(one: str, other: str) -> None:
    """Requests that differ in anything else are not repeats."""
    named = [
        CreateBrandRequest(request_id=request_id, brand=Brand(display_name=name))
        for request_id, name in [("request-1", one), ("request-2", one), ("request-1", other)]
    ]
    first, second, third = (idempotency.body_hash(request, digest) for request in named)
    assert first == second
    assert (first == third) == (one == other)
    assert named[0].request_id == "request-1", "the request is left as it was"


def test_a_request_without_an_id_has_a_body_too() -> None:
    """Items of a batch are hashed one by one."""
    one, other = GetBrandRequest(brand_id="a"), GetBrandRequest(brand_id="b")
    assert idempotency.body_hash(one, digest) != idempotency.body_hash(other, digest)


def test_a_receipt_is_kept_for_two_days_and_then_makes_room() -> None:
    """Twice the day that the contract promises."""
    assert timedelta(hours=24) <= idempotency.KEPT
    before = [receipt("old", time=NOON - idempotency.KEPT), receipt("young", time=NOON - timedelta(hours=47))]
    kept = idempotency.with_receipt(before, receipt("new"))
    assert [one["key"] for one in kept] == ["young", "new"]


def test_too_many_changes_of_one_document_are_refused() -> None:
    """Its size has a limit; a day later there is room again."""
    full = [receipt(f"request-{number}") for number in range(idempotency.RECEIPTS_MAX)]
    assert len(idempotency.with_receipt(full[1:], receipt("new"))) == idempotency.RECEIPTS_MAX
    with pytest.raises(Overloaded) as error:
        idempotency.with_receipt(full, receipt("new"))
    assert error.value.reason == "TOO_MANY_CHANGES"
    assert error.value.retry_after_s
    later = receipt("new", time=NOON + idempotency.KEPT)
    assert idempotency.with_receipt(full, later) == [later]
