"""Contacts between messages and documents. What was said is sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from chassis.mongo.connection import Document
from chassis.rpc.cursors import milliseconds
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1.activity_pb2 import ContactKind, RecordContactRequest
from daogou.members.v1.follow_up_pb2 import Contact
from svc_members.care.text_sealer import TextSealer

_NOTE: Final = "contact|note"


class Contacts:
    """Makes documents of reported contacts, and messages of documents."""

    def __init__(self, sealer: TextSealer) -> None:
        self._sealer = sealer

    def document(self, request: RecordContactRequest, member_id: str, now: datetime) -> Document:
        """A contact with the member who answers for the id that was reported."""
        time, reported = from_timestamp(request.contact_time), request.member_id
        kind = ContactKind.Name(request.kind or ContactKind.CONTACT_KIND_OTHER)
        return {
            "_id": f"{request.brand_id}|{reported}|{request.guide_id}|{milliseconds(time)}",
            "brand_id": request.brand_id,
            "member_id": member_id,
            "origin_id": reported,
            "guide_id": request.guide_id,
            "contact_time": time,
            "kind": kind.removeprefix("CONTACT_KIND_"),
            "note": self._sealer.sealed(request.brand_id, _NOTE, request.note),
            "recorded_time": now,
        }

    def message(self, contact: Document) -> Contact:
        """A stored contact."""
        return Contact(
            guide_id=contact["guide_id"],
            contact_time=to_timestamp(contact["contact_time"]),
            kind=ContactKind.Value(f"CONTACT_KIND_{contact['kind']}"),
            note=self._sealer.opened(contact["brand_id"], _NOTE, contact["note"]),
            recorded_time=to_timestamp(contact["recorded_time"]),
        )
