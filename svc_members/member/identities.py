"""Identities in their normal form, and sealed for storage: found by a keyed hash, readable by key alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import phonenumbers

from chassis.errors import Violation
from chassis.sealing import Sealer
from daogou.common.v1.identity_pb2 import Identity, IdentityKind

HOME_REGION = "CN"
"""How a phone number without a country code is read."""
_PHONE = IdentityKind.IDENTITY_KIND_PHONE
_WECHAT_OPEN_ID = IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID
_KIND_NAMES = {
    value.number: value.name.removeprefix("IDENTITY_KIND_") for value in IdentityKind.DESCRIPTOR.values
}
_MOBILE = re.compile(r"(?:\+86)?(1[3-9][0-9]{9})")


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """An identity as the database holds it. `index` is where it is found within a brand."""

    index: str
    kind: str
    app_id: str
    sealed: bytes
    masked: str


@dataclass(frozen=True, slots=True)
class Link:
    """An identity and the member it is linked to."""

    identity: StoredIdentity
    member_id: str
    linked_time: datetime


def problems(identity: Identity, path: str) -> list[Violation]:
    """What the contract's limits cannot say: a phone number must be one, an app must be named."""
    found = []
    if identity.kind == _PHONE and _e164(identity.value) is None:
        found.append(Violation(f"{path}.value", "must be a phone number"))
    if identity.kind == _WECHAT_OPEN_ID and not identity.app_id:
        found.append(Violation(f"{path}.app_id", "is required for a WeChat open id"))
    return found


def _e164(text: str) -> str | None:
    """The number in E.164, or None where it is none.

    A plain mobile number of the mainland, as nearly all are, is told by its form: asking the library for it
    took most of a look-up by phone, and ranges are opened sooner than it learns of them.
    """
    if (mobile := _MOBILE.fullmatch(text)) is not None:
        return f"+86{mobile[1]}"
    return parsed_e164(text)


def parsed_e164(text: str) -> str | None:
    """The same of any number whatever, by the library."""
    try:
        number = phonenumbers.parse(text, HOME_REGION)
    except phonenumbers.NumberParseException:
        return None
    # Not merely of a possible length: with a digit missing it would be somebody else's.
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _normal(identity: Identity) -> str:
    if identity.kind == _PHONE:
        return _e164(identity.value) or identity.value
    return identity.value


def _masked(value: str) -> str:
    """The value with its middle hidden; short values whole. At most 7 characters show."""
    if value.startswith("+86") and len(value) == 14:
        value = value[3:]
    if len(value) < 8:
        return "****"
    return f"{value[:3]}****{value[-4:]}" if len(value) >= 11 else f"{value[:2]}****{value[-2:]}"


class IdentitySealer:
    """Seals identities for storage and opens them again, each bound to its brand."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.digest = sealer.digest

    def index(self, brand_id: str, identity: Identity) -> str:
        """`KIND|hash`: where an identity is found within a brand. Needs a key, so no hash can be guessed."""
        kind = _kind_name(identity)
        named = "|".join((brand_id, kind, identity.app_id, _normal(identity)))
        return f"{kind}|{self._sealer.blind_index(named)}"

    def stored(self, brand_id: str, identity: Identity) -> StoredIdentity:
        """The identity as the database holds it."""
        value, index = _normal(identity), self.index(brand_id, identity)
        return StoredIdentity(
            index=index,
            kind=_kind_name(identity),
            app_id=identity.app_id,
            sealed=self._sealer.sealed(value.encode(), f"{brand_id}|{index}"),
            masked=_masked(value),
        )

    def opened(self, brand_id: str, stored: StoredIdentity) -> Identity:
        """The identity whole. Reading one is to be recorded in the audit log."""
        return Identity(
            kind=IdentityKind.Value(f"IDENTITY_KIND_{stored.kind}"),
            value=self._sealer.opened(stored.sealed, f"{brand_id}|{stored.index}").decode(),
            app_id=stored.app_id,
        )


def _kind_name(identity: Identity) -> str:
    return _KIND_NAMES[identity.kind]
