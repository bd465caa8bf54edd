"""Repeats of a request: its receipt lives in the document that the request wrote.

One write then holds the change and the proof of it; no second document, no transaction. A receipt keeps the
request's id, a hash of its body and the reply's bytes for `KEPT`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from google.protobuf.message import Message

from chassis.errors import AlreadyExists, Overloaded
from chassis.mongo.connection import Document

M = TypeVar("M", bound=Message)

KEPT: Final = timedelta(hours=48)
RECEIPTS_MAX: Final = 1000
"""More changes of one document within `KEPT` are refused: its size has a limit."""


def body_hash(request: Message, digest: Callable[[bytes], bytes]) -> bytes:
    """A keyed hash of all of the request but its `request_id`.

    Keyed (`Sealer.digest`), because a plain hash of a known form would tell a phone number to whoever
    tries them all.
    """
    body = type(request)()
    body.CopyFrom(request)
    if "request_id" in body.DESCRIPTOR.fields_by_name:
        body.ClearField("request_id")
    return digest(body.SerializeToString(deterministic=True))


def receipt(key: str, body: bytes, reply: Message, now: datetime) -> Document:
    """What a document keeps of a request. `key` names the request among those that write the document."""
    return {"key": key, "body_hash": body, "reply": reply.SerializeToString(), "recorded_time": now}


def first_reply(receipts: Sequence[Document], key: str, body: bytes, reply_type: type[M]) -> M | None:
    """The reply that the request had the first time, or None if this is the first time.

    Raises: AlreadyExists REQUEST_ID_REUSED when the id was used with another body.
    """
    for kept in receipts:
        if kept["key"] == key:
            if bytes(kept["body_hash"]) != body:
                raise AlreadyExists("REQUEST_ID_REUSED", "this request_id was used with another body")
            return reply_type.FromString(bytes(kept["reply"]))
    return None


def with_receipt(receipts: Sequence[Document], new: Document) -> list[Document]:
    """The receipts to store: the new one and those not older than `KEPT`.

    Raises: Overloaded TOO_MANY_CHANGES.
    """
    kept = [old for old in receipts if old["recorded_time"] > new["recorded_time"] - KEPT]
    if len(kept) >= RECEIPTS_MAX:
        raise Overloaded("TOO_MANY_CHANGES", "too many changes within two days", retry_after_s=3600)
    return [*kept, new]
