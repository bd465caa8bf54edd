"""Consents between messages and documents. The evidence is sealed."""

from __future__ import annotations

from typing import Final

from chassis.ids import derived_id
from chassis.mongo.connection import Document
from chassis.rpc.cursors import milliseconds
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import consent_pb2 as pb
from svc_members.care.text_sealer import TextSealer

_EVIDENCE: Final = "consent|evidence"


class Consents:
    """Makes documents of what members say, and messages of documents."""

    def __init__(self, sealer: TextSealer) -> None:
        self._sealer = sealer

    def document(self, request: pb.RecordConsentRequest, member_id: str) -> Document:
        """A record of the member who answers for the id that was named."""
        time = from_timestamp(request.consent_time)
        state = pb.ConsentState.Name(request.state).removeprefix("CONSENT_STATE_")
        named = (request.purpose, state, request.version, str(milliseconds(time)))
        return {
            "_id": f"{request.brand_id}|{request.member_id}|{derived_id('consent', *named)}",
            "brand_id": request.brand_id,
            "member_id": member_id,
            "origin_id": request.member_id,
            "purpose": request.purpose,
            "state": state,
            "version": request.version,
            "consent_time": time,
            "channel": pb.ConsentChannel.Name(request.channel).removeprefix("CONSENT_CHANNEL_"),
            "evidence": self._sealer.sealed(request.brand_id, _EVIDENCE, request.evidence),
        }

    def message(self, record: Document) -> pb.ConsentRecord:
        """A stored record."""
        return pb.ConsentRecord(
            purpose=record["purpose"],
            state=pb.ConsentState.Value(f"CONSENT_STATE_{record['state']}"),
            version=record["version"],
            consent_time=to_timestamp(record["consent_time"]),
            channel=pb.ConsentChannel.Value(f"CONSENT_CHANNEL_{record['channel']}"),
            evidence=self._sealer.opened(record["brand_id"], _EVIDENCE, record["evidence"]),
            recorded_time=to_timestamp(record["recorded_time"]),
        )
