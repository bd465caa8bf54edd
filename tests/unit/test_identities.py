"""Identities: one customer is one, however his number is written; and nobody reads it who should not."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from chassis.rpc import limits
from chassis.sealing import KeyRing, Sealer
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1.member_pb2 import EnrolMemberRequest
from svc_members import checks
from svc_members.member import identities
from svc_members.member.identities import IdentitySealer

PHONE = IdentityKind.IDENTITY_KIND_PHONE
SEALER = IdentitySealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32))
OTHER_SEALER = IdentitySealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"j" * 32))


def phone(value: str) -> Identity:
    """A phone number as somebody wrote it."""
    return Identity(kind=PHONE, value=value)


@pytest.mark.parametrize(
    "written",
    [
        "13812345678",
        "138 1234 5678",
        "138-1234-5678",
        "+8613812345678",
        "+86 138 1234 5678",
        "008613812345678",
        "(+86)138-1234-5678",
        "１３８１２３４５６７８",
        " 13812345678 ",
    ],
)
def test_a_phone_number_is_the_same_however_it_is_written(written: str) -> None:
    """Else one customer would be two members, with two guides."""
    assert identities.problems(phone(written), "identity") == []
    assert SEALER.index("brand", phone(written)) == SEALER.index("brand", phone("+8613812345678"))
    assert SEALER.opened("brand", SEALER.stored("brand", phone(written))).value == "+8613812345678"


@pytest.mark.parametrize("written", ["", "hello", "12", "1381234567890123456", "+86"])
def test_what_is_no_phone_number_is_named_as_the_offending_field(written: str) -> None:
    """Before anything is written."""
    [problem] = identities.problems(phone(written), "identities[3]")
    assert problem.field == "identities[3].value"
    assert written not in problem.description or not written


def test_a_wechat_open_id_needs_its_app() -> None:
    """It is one per customer and app: without the app it names nobody."""
    kind = IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID
    [problem] = identities.problems(Identity(kind=kind, value="o-123"), "identity")
    assert problem.field == "identity.app_id"
    assert identities.problems(Identity(kind=kind, value="o-123", app_id="wx1"), "identity") == []


def test_every_identity_of_a_request_is_looked_at_with_the_limits() -> None:
    """All offending fields at once, wherever an identity stands."""
    checks.register()
    request = EnrolMemberRequest(identities=[phone("x"), phone("13812345678"), phone("y")])
    found = {problem.field for problem in limits.violations(request)}
    assert found == {"brand_id", "identities[0].value", "identities[2].value"}


@given(st.text(min_size=1, max_size=128))
def test_a_masked_value_shows_at_most_seven_characters(value: str) -> None:
    """And never the value itself."""
    masked = SEALER.stored("brand", Identity(kind=IdentityKind.IDENTITY_KIND_POS_CARD, value=value)).masked
    assert "****" in masked
    assert len(masked.replace("****", "", 1)) <= 7
    assert value not in masked or set(value) == {"*"}


def test_a_masked_phone_number_looks_as_people_know_it() -> None:
    """138****5678."""
    assert SEALER.stored("brand", phone("13812345678")).masked == "138****5678"
    assert SEALER.stored("brand", phone("+1 415 555 2671")).masked == "+14****2671"


def test_the_same_customer_of_two_brands_is_found_under_two_indexes() -> None:
    """No brand, and nobody who reads two of them, can tell that a customer is also the other's."""
    assert SEALER.index("one", phone("13812345678")) != SEALER.index("two", phone("13812345678"))


def test_kind_and_app_tell_identities_apart() -> None:
    """The same characters on two channels are two accounts."""
    open_id = IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID
    same = [
        Identity(kind=IdentityKind.IDENTITY_KIND_POS_CARD, value="77"),
        Identity(kind=IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID, value="77"),
        Identity(kind=open_id, value="77", app_id="wx1"),
        Identity(kind=open_id, value="77", app_id="wx2"),
        Identity(kind=IdentityKind.IDENTITY_KIND_POS_CARD, value="wx1|77"),
    ]
    assert len({SEALER.index("brand", identity) for identity in same}) == len(same)


def test_an_index_cannot_be_computed_without_the_key() -> None:
    """A plain hash of a phone number is found by trying all of them."""
    assert SEALER.index("brand", phone("13812345678")) != OTHER_SEALER.index("brand", phone("13812345678"))
    assert "13812345678" not in SEALER.index("brand", phone("13812345678"))


def test_a_sealed_identity_opens_only_where_it_belongs() -> None:
    """A value copied into another brand's or another member's document stays shut."""
    stored = SEALER.stored("one", phone("13812345678"))
    assert b"13812345678" not in stored.sealed
    with pytest.raises(InvalidTag):
        SEALER.opened("two", stored)


@given(st.from_regex(r"(\+86)?1[3-9][0-9]{9}", fullmatch=True))
def test_a_mobile_number_told_by_its_form_is_what_the_library_makes_of_it(text: str) -> None:
    """The short cut past the library never gives another normal form than it would."""
    assert identities.problems(phone(text), "identity") == []
    assert identities.parsed_e164(text) in (None, identities._e164(text))


@pytest.mark.parametrize("written", ["1381234567", "65551234", "12345", "+8613812345678;ext=1"])
def test_what_is_only_long_enough_to_be_a_number_is_refused(written: str) -> None:
    """A digit missing, an area missing, an extension: taken for a number, two people might become one."""
    [problem] = identities.problems(phone(written), "identity")
    assert problem.field == "identity.value"
