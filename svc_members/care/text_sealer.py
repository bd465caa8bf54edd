"""Texts about members, sealed for storage: names, birthdays, notes, and the replies in which they stand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue

from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.sealing import Sealer

M = TypeVar("M", bound=Message)


class TextSealer:
    """Seals texts and opens them again, each bound to its brand and to what it is: `profile|remark`."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.digest = sealer.digest

    def sealed(self, brand_id: str, what: str, text: str) -> bytes:
        """The text as the database holds it. Nothing stays nothing."""
        return self._sealer.sealed(text.encode(), f"{brand_id}|{what}") if text else b""

    def opened(self, brand_id: str, what: str, sealed: bytes) -> str:
        """The text that was sealed."""
        return self._sealer.opened(sealed, f"{brand_id}|{what}").decode() if sealed else ""

    def receipt(self, brand_id: str, key: str, body: bytes, reply: Message, now: datetime) -> Document:
        """As idempotency.receipt, with the reply sealed: texts stand in it."""
        sealed = self._sealer.sealed(reply.SerializeToString(), f"{brand_id}|reply|{key}")
        return idempotency.receipt(key, body, BytesValue(value=sealed), now)

    def first_reply(
        self, brand_id: str, receipts: Sequence[Document], key: str, body: bytes, reply_type: type[M]
    ) -> M | None:
        """As idempotency.first_reply, of such receipts. Raises: AlreadyExists REQUEST_ID_REUSED."""
        first = idempotency.first_reply(receipts, key, body, BytesValue)
        if first is None:
            return None
        return reply_type.FromString(self._sealer.opened(first.value, f"{brand_id}|reply|{key}"))
