"""The signed token in a guide's QR code: made and opened without reading anything.

Layout, big-endian: version 1, key number 1, length of campaign 1, epoch 4, brand 10, store 10, guide 10,
issued 4 and expires 4 (Unix seconds), nonce 6, campaign 0-16, then 16 bytes of HMAC-SHA256 over all before
it; base64url without padding. At most 111 characters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chassis.errors import Invalid, Refused

VERSION: Final = 1
CAMPAIGN: Final = re.compile(r"[A-Za-z0-9._-]{0,16}")
NONCE_BYTES: Final = 6
NO_GUIDE: Final = bytes(10)
"""In the place of the guide: the code is the store's."""

_HEAD: Final = struct.Struct(">BBBI10s10s10sII6s")
_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class GuideCode:
    """What a code says. Ids are the 10 bytes of the directory's identifiers; times are whole seconds, UTC.

    `epoch` is the guide's or the store's when the code was made: raising it there revokes the code.
    """

    epoch: int
    brand: bytes
    store: bytes
    guide: bytes
    campaign: str
    issue_time: datetime
    expire_time: datetime
    nonce: bytes


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)[:_MAC_BYTES]


def signed(code: GuideCode, key_number: int, key: bytes) -> str:
    """The code as text."""
    campaign = code.campaign.encode("ascii")
    content = (
        _HEAD.pack(
            VERSION,
            key_number,
            len(campaign),
            code.epoch,
            code.brand,
            code.store,
            code.guide,
            int(code.issue_time.timestamp()),
            int(code.expire_time.timestamp()),
            code.nonce,
        )
        + campaign
    )
    return base64.urlsafe_b64encode(content + _mac(key, content)).rstrip(b"=").decode("ascii")


def opened(text: str, keys: Mapping[int, bytes]) -> GuideCode:
    """What the code says, if it is ours and whole. Does not look at the time.

    Raises: Invalid GUIDE_CODE_MALFORMED (truncated, or not a code), GUIDE_CODE_FORGED.
    """
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        fields = _HEAD.unpack_from(raw)
    except (UnicodeEncodeError, binascii.Error, struct.error):
        raise _malformed() from None
    version, key_number, campaign_length, epoch, brand, store, guide, issued, expires, nonce = fields
    whole = _HEAD.size + campaign_length + _MAC_BYTES
    canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") == text
    if version != VERSION or len(raw) != whole or not canonical:
        raise _malformed()
    content, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    key = keys.get(key_number)
    if key is None or not hmac.compare_digest(_mac(key, content), mac):
        raise Invalid("GUIDE_CODE_FORGED", "the code was not signed by this service")
    return GuideCode(
        epoch=epoch,
        brand=brand,
        store=store,
        guide=guide,
        campaign=content[_HEAD.size :].decode("ascii"),
        issue_time=datetime.fromtimestamp(issued, UTC),
        expire_time=datetime.fromtimestamp(expires, UTC),
        nonce=nonce,
    )


def check_valid(code: GuideCode, scanned_time: datetime, epoch: int) -> None:
    """Whether a code may be scanned; `epoch` is its guide's or its store's now.

    Raises: Refused GUIDE_CODE_REVOKED, GUIDE_CODE_EXPIRED.
    """
    if code.epoch != epoch:
        raise Refused("GUIDE_CODE_REVOKED", "the code was revoked")
    if scanned_time >= code.expire_time:
        raise Refused("GUIDE_CODE_EXPIRED", f"the code expired on {code.expire_time:%F %T} UTC")


def _malformed() -> Invalid:
    return Invalid("GUIDE_CODE_MALFORMED", "this is no guide code, or part of it is missing")
