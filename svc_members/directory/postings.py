"""A guide's postings in her document: `postings [{store_id, from_time}]`, beside the `store_id` of the last.

A guide who was never moved has none stored: she has been at her store since she was created.
"""

from __future__ import annotations

from datetime import datetime

from chassis.mongo.connection import Document
from chassis.times import to_timestamp
from daogou.members.v1.directory_pb2 import GuidePosting
from svc_members.rules import posting
from svc_members.rules.posting import Posting


def postings_of(guide: Document) -> tuple[Posting, ...]:
    """A guide's postings, for the rules."""
    stored = guide.get("postings") or [{"store_id": guide["store_id"], "from_time": guide["create_time"]}]
    return tuple(Posting(one["store_id"], one["from_time"]) for one in stored)


def messages_of(guide: Document) -> list[GuidePosting]:
    """A guide's postings, as messages."""
    return [
        GuidePosting(store_id=one.store_id, from_time=to_timestamp(one.from_time))
        for one in postings_of(guide)
    ]


def moved(guide: Document, store_id: str, time: datetime, now: datetime) -> Document:
    """The guide's document after a move. Raises: as rules.posting.moved."""
    postings = posting.moved(postings_of(guide), store_id, time, now)
    return {
        **guide,
        "store_id": store_id,
        "postings": [{"store_id": one.store_id, "from_time": one.from_time} for one in postings],
        "update_time": now,
    }


def store_at(holder: Document, time: datetime) -> str:
    """The store that the holder of a code belonged to at a time: a guide's, or the store itself."""
    if "guide_id" not in holder:
        return str(holder["store_id"])
    return posting.store_at(postings_of(holder), time)
