"""Page tokens that are signed: good for the list that they were given for, and for no other."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Invalid
from chassis.rpc.cursors import Cursors, milliseconds, time_of
from chassis.sealing import KeyRing, Sealer
from daogou.members.v1.follow_up_pb2 import ListContactsRequest
from daogou.members.v1.member_search_pb2 import SearchMembersRequest
from daogou.members.v1.tag_pb2 import ListTagsRequest

CURSORS = Cursors(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32).digest)
SEARCH = SearchMembersRequest(brand_id="a" * 16, tag="vip", page_size=10)


def search(token: str, **changed: object) -> SearchMembersRequest:
    """The same search with a token, and whatever else is changed of it."""
    request = SearchMembersRequest(page_token=token, **changed)  # type: ignore[arg-type]
    asked = SearchMembersRequest()
    asked.CopyFrom(SEARCH)
    asked.MergeFrom(request)
    return asked


@given(st.lists(st.one_of(st.text(max_size=64), st.integers(0, 253_402_300_799_999)), min_size=1, max_size=3))
def test_a_token_tells_the_place_that_it_was_made_of(place: list[str | int]) -> None:
    assert CURSORS.place(search(CURSORS.token(SEARCH, *place))) == place


def test_without_a_token_a_list_begins_at_its_start() -> None:
    assert CURSORS.place(SEARCH) == []


def test_a_token_is_good_for_a_page_of_another_size() -> None:
    assert CURSORS.place(search(CURSORS.token(SEARCH, "m"), page_size=200)) == ["m"]


def refused(request: object) -> bool:
    """Whether a request's token is refused."""
    with pytest.raises(Invalid) as raised:
        CURSORS.place(request)
    return raised.value.reason == "PAGE_TOKEN_INVALID"


def test_a_token_is_good_for_the_same_filters_only() -> None:
    """A place in one list says nothing of another."""
    token = CURSORS.token(SEARCH, "m")
    assert refused(search(token, tag="vips"))
    assert refused(search(token, tier="gold"))
    assert refused(search(token, brand_id="b" * 16))


def test_a_token_is_good_for_the_same_method_only() -> None:
    """Though the fields that are set are the same."""
    token = CURSORS.token(ListTagsRequest(brand_id="a" * 16, member_id="b" * 16), "m")
    assert refused(ListContactsRequest(brand_id="a" * 16, member_id="b" * 16, page_token=token))


@given(st.binary(max_size=80))
def test_nobody_makes_a_token_himself(raw: bytes) -> None:
    token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() or "x"
    assert refused(search(token))


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_token_that_was_changed_is_refused(place: int, flipped: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(CURSORS.token(SEARCH, "abcdef") + "=="))
    raw[place % len(raw)] ^= flipped
    assert refused(search(base64.urlsafe_b64encode(raw).decode()))


@pytest.mark.parametrize("token", ["!!!", "x", "导购", "=", "A" * 512])
def test_nonsense_is_refused(token: str) -> None:
    assert refused(search(token))


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_in_a_place_is_whole_to_the_millisecond(count: int) -> None:
    assert milliseconds(time_of(count)) == count


def test_a_time_counts_from_1970() -> None:
    assert time_of(86_400_001) == datetime(1970, 1, 2, 0, 0, 0, 1000, tzinfo=UTC)
