"""Resume tokens of watches: how far one had come, opaque to callers, good for ever."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from chassis.errors import Invalid
from chassis.ids import ID_BYTES, bytes_of_id, id_of_bytes
from chassis.rpc.cursors import milliseconds, time_of
from svc_members.rules.changes import Place, Progress

_TIMES: Final = struct.Struct(">QQ")
_SUM_BYTES: Final = 4


def resume_token(brand_id: str, progress: Progress) -> str:
    """The token of a watch that has come so far. At most 40 characters."""
    content = _TIMES.pack(milliseconds(progress.since), milliseconds(progress.place.time))
    if progress.place.member_id:
        content += bytes_of_id(progress.place.member_id)
    return base64.urlsafe_b64encode(_sum(brand_id, content) + content).rstrip(b"=").decode()


def opened_resume_token(brand_id: str, token: str) -> Progress:
    """How far the watch had come. Raises: Invalid RESUME_TOKEN_INVALID."""
    try:
        summed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        progress = _progress(brand_id, summed[:_SUM_BYTES], summed[_SUM_BYTES:])
    except (binascii.Error, OverflowError, ValueError):
        progress = None
    if progress is None:
        raise Invalid("RESUME_TOKEN_INVALID", "this resume_token was not given by this method for this brand")
    return progress


def _progress(brand_id: str, summed: bytes, content: bytes) -> Progress | None:
    """What a token holds; None: it is none of this brand's. Raises: OverflowError for absurd times."""
    member = content[_TIMES.size :]
    # Against accidents: a token of another brand would pass over changes, and nobody would know.
    if summed != _sum(brand_id, content) or len(content) < _TIMES.size or len(member) not in (0, ID_BYTES):
        return None
    since_ms, place_ms = _TIMES.unpack_from(content)
    place = Place(time_of(place_ms), id_of_bytes(member) if member else "")
    return Progress(time_of(since_ms), place)


def _sum(brand_id: str, content: bytes) -> bytes:
    return hashlib.sha256(brand_id.encode() + b"|" + content).digest()[:_SUM_BYTES]
