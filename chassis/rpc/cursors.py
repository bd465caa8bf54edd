"""Page tokens of lists that are ordered or filtered by more than an id: a place, signed.

A token is good for the request that it was given for: the same method and the same filters, whatever the
size of the page. Signed, so that a place is one that this service has told.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from google.protobuf.message import Message

from chassis.errors import Invalid
from chassis.times import EPOCH

PAGE_SIZE_DEFAULT: Final = 100
"""Items of a page whose request does not say how many."""
_SIGNATURE_BYTES: Final = 12


class Cursors:
    """Makes page tokens and opens them. `digest`: a keyed hash (Sealer.digest)."""

    def __init__(self, digest: Callable[[bytes], bytes]) -> None:
        self._digest = digest

    def token(self, request: Message, *place: str | int) -> str:
        """The token of the page that begins after a place in the list that was asked for."""
        content = orjson.dumps(place)
        signed = self._signature(request, content) + content
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def place(self, request: Any) -> list[Any]:
        """The place in the request's `page_token`; empty: from the start.

        Raises: Invalid PAGE_TOKEN_INVALID.
        """
        token = request.page_token
        if not token:
            return []
        try:
            signed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            signed = b""
        signature, content = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(request, content)):
            raise Invalid("PAGE_TOKEN_INVALID", "this page_token was not given for this request")
        place: list[Any] = orjson.loads(content)
        return place

    def _signature(self, request: Message, content: bytes) -> bytes:
        asked = type(request)()
        asked.CopyFrom(request)
        asked.ClearField("page_size")
        asked.ClearField("page_token")
        signed = [request.DESCRIPTOR.full_name.encode(), asked.SerializeToString(deterministic=True), content]
        # With their lengths, so that nothing can move from one to the next.
        return self._digest(orjson.dumps([part.hex() for part in signed]))[:_SIGNATURE_BYTES]


def milliseconds(time: datetime) -> int:
    """A time as a place holds it."""
    return (time - EPOCH) // timedelta(milliseconds=1)


def time_of(count: int) -> datetime:
    """The time in a place."""
    return EPOCH + timedelta(milliseconds=count)
