"""What is known of a member, between messages and documents: as it was told, and what is personal sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from cryptography.exceptions import InvalidTag

from chassis.errors import AlreadyExists
from chassis.sealing import KeyRing, Sealer
from chassis.times import to_timestamp
from daogou.members.v1 import profile_pb2 as pb
from svc_members.care.profiles import Profiles
from svc_members.care.text_sealer import TextSealer

FIELDS = frozenset(pb.Profile.DESCRIPTOR.fields_by_name)

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
BRAND = "a" * 16
TEXTS = TextSealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32))
PROFILES = Profiles(TEXTS)
WHOLE = pb.Profile(
    display_name="王小明",
    gender=pb.GENDER_FEMALE,
    birthday=pb.Birthday(month=11, day=23, year=1987),
    language_code="zh-CN",
    tier="gold",
    tier_expire_time=to_timestamp(NOON),
    remark="对羊毛过敏",
)


def stored(values: dict[str, Any]) -> dict[str, Any]:
    """A document as the database gives it back."""
    options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
    return bson.decode(bson.encode(values), options)


def test_a_profile_is_answered_as_it_was_written() -> None:
    """Each field that a caller can set."""
    assert {field.name for field, _ in WHOLE.ListFields()} == FIELDS
    assert PROFILES.message(BRAND, stored(PROFILES.stored(BRAND, WHOLE, FIELDS))) == WHOLE


def test_a_birthday_without_a_year_has_none() -> None:
    """Not year 0, and not this one."""
    profile = pb.Profile(birthday=pb.Birthday(month=2, day=29))
    message = PROFILES.message(BRAND, stored(PROFILES.stored(BRAND, profile, {"birthday"})))
    assert message == profile
    assert not message.birthday.HasField("year")


def test_of_name_birthday_and_remark_only_the_month_is_to_be_read_in_the_database() -> None:
    document = PROFILES.stored(BRAND, WHOLE, FIELDS)
    raw = bson.encode(document)
    for text in ("王小明", "对羊毛过敏", "1987", "11-23"):
        assert text.encode() not in raw
    numbers = [value for value in document.values() if isinstance(value, int)]
    assert numbers == [11], "the month, for the search"
    assert document["tier"] == "gold"


def test_what_is_cleared_is_not_to_be_kept() -> None:
    """None: the document is to hold nothing of it."""
    assert set(PROFILES.stored(BRAND, pb.Profile(), FIELDS).values()) == {None}
    assert PROFILES.message(BRAND, {}) == pb.Profile()


def test_only_masked_fields_are_written_and_the_month_goes_with_the_birthday() -> None:
    assert PROFILES.stored(BRAND, WHOLE, {"tier", "gender"}) == {"tier": "gold", "gender": "FEMALE"}
    assert PROFILES.stored(BRAND, WHOLE, {"birthday"}).keys() == {"birthday", "birthday_month"}


def test_a_sealed_text_opens_in_its_own_brand_and_field_alone() -> None:
    """Copied elsewhere it stays shut."""
    document = PROFILES.stored(BRAND, WHOLE, FIELDS)
    with pytest.raises(InvalidTag):
        PROFILES.message("b" * 16, document)
    with pytest.raises(InvalidTag):
        PROFILES.message(BRAND, {**document, "remark": document["display_name"]})


def test_a_first_reply_is_kept_sealed_and_given_again() -> None:
    """What stands in it is as personal as what stands in the profile."""
    reply = pb.UpdateProfileResponse(member_id="m" * 16, profile=WHOLE)
    receipt = stored(TEXTS.receipt(BRAND, "request-1", b"hash", reply, NOON))
    assert "王小明".encode() not in bson.encode(receipt)
    again = TEXTS.first_reply(BRAND, [receipt], "request-1", b"hash", pb.UpdateProfileResponse)
    assert again == reply
    assert TEXTS.first_reply(BRAND, [receipt], "request-2", b"hash", pb.UpdateProfileResponse) is None
    with pytest.raises(AlreadyExists) as reused:
        TEXTS.first_reply(BRAND, [receipt], "request-1", b"other", pb.UpdateProfileResponse)
    assert reused.value.reason == "REQUEST_ID_REUSED"
