"""Profiles between messages and documents: `profile {field: value}` in the member's document.

A document's keys are the message's field names, so that an update mask selects the same in both. What is
personal is sealed; the month of a birthday stands beside it in the clear, for members are found by it.
"""

from __future__ import annotations

from collections.abc import Collection

from chassis.mongo.connection import Document
from chassis.times import from_timestamp, to_optional_timestamp
from daogou.members.v1 import profile_pb2 as pb
from svc_members.care.text_sealer import TextSealer
from svc_members.rules.profile import Birthday


class Profiles:
    """Makes documents of profiles and profiles of documents."""

    def __init__(self, sealer: TextSealer) -> None:
        self._sealer = sealer

    def stored(self, brand_id: str, profile: pb.Profile, paths: Collection[str]) -> Document:
        """The masked fields as the document holds them. None: the document is to hold nothing of it."""
        expires = profile.tier_expire_time if profile.HasField("tier_expire_time") else None
        birthday = birthday_of(profile)
        values: Document = {
            "display_name": self._sealed(brand_id, "display_name", profile.display_name),
            "gender": pb.Gender.Name(profile.gender).removeprefix("GENDER_") if profile.gender else None,
            "birthday": self._sealed(brand_id, "birthday", birthday.to_text() if birthday else ""),
            "birthday_month": birthday.month if birthday else None,
            "language_code": profile.language_code or None,
            "tier": profile.tier or None,
            "tier_expire_time": from_timestamp(expires) if expires else None,
            "remark": self._sealed(brand_id, "remark", profile.remark),
        }
        wanted = {*paths, "birthday_month"} if "birthday" in paths else paths
        return {name: value for name, value in values.items() if name in wanted}

    def message(self, brand_id: str, stored: Document) -> pb.Profile:
        """The profile of a member's document."""
        birthday = self._opened(brand_id, "birthday", stored)
        return pb.Profile(
            display_name=self.display_name(brand_id, stored),
            gender=pb.Gender.Value(f"GENDER_{stored.get('gender', 'UNSPECIFIED')}"),
            birthday=_birthday_message(Birthday.from_text(birthday)) if birthday else None,
            language_code=stored.get("language_code", ""),
            tier=stored.get("tier", ""),
            tier_expire_time=to_optional_timestamp(stored.get("tier_expire_time")),
            remark=self._opened(brand_id, "remark", stored),
        )

    def display_name(self, brand_id: str, stored: Document) -> str:
        """How the member is called. Empty: not known."""
        return self._opened(brand_id, "display_name", stored)

    def _sealed(self, brand_id: str, field: str, text: str) -> bytes | None:
        return self._sealer.sealed(brand_id, f"profile|{field}", text) or None

    def _opened(self, brand_id: str, field: str, stored: Document) -> str:
        return self._sealer.opened(brand_id, f"profile|{field}", stored.get(field, b""))


def birthday_of(profile: pb.Profile) -> Birthday | None:
    """The birthday in a profile, for the rules."""
    return to_birthday(profile.birthday) if profile.HasField("birthday") else None


def to_birthday(birthday: pb.Birthday) -> Birthday:
    """A birthday's message, for the rules."""
    return Birthday(birthday.month, birthday.day, birthday.year if birthday.HasField("year") else None)


def _birthday_message(birthday: Birthday) -> pb.Birthday:
    return pb.Birthday(month=birthday.month, day=birthday.day, year=birthday.year)
