"""The audit log: who did what to whom and why, chained by hash, written before the act is answered.

Each process start begins a chain; a record holds the hash of the one before it, so that none can be changed
or taken out unseen. Records live in the service's own database and hold no personal data, only ids.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson
from pymongo.errors import DuplicateKeyError

from chassis.errors import Unavailable
from chassis.mongo.connection import Collection, Document
from chassis.rpc.call import Claims
from daogou.common.v1.access_pb2 import Role


def record_hash(record: Document) -> str:
    """SHA-256 over all of the record but its own hash."""
    content = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def broken_at(chain: Sequence[Document]) -> str | None:
    """The id of the first record of a whole chain that does not follow from those before it, or None."""
    before = ""
    for sequence, record in enumerate(chain):
        if (
            record.get("sequence") != sequence
            or record.get("previous_hash") != before
            or record_hash(record) != record.get("hash")
        ):
            return str(record["_id"])
        before = record["hash"]
    return None


class Audit:
    """One process's chain."""

    def __init__(self, collection: Collection, process_id: str) -> None:
        self._collection = collection
        self._process_id = process_id
        self._sequence = 0
        self._hash = ""
        self._lock = asyncio.Lock()

    async def record(
        self, claims: Claims, action: str, subject: Mapping[str, str], purpose: str, now: datetime
    ) -> None:
        """Writes one record. When this raises, the act must not be answered: it may be unrecorded."""
        async with self._lock:
            while True:
                record: Document = {
                    "_id": f"{self._process_id}|{self._sequence:012d}",
                    "process_id": self._process_id,
                    "sequence": self._sequence,
                    "recorded_time": now,
                    "caller": claims.subject,
                    "role": Role.Name(claims.role),
                    "brand_id": subject.get("brand_id", ""),
                    "action": action,
                    "subject": dict(subject),
                    "purpose": purpose,
                    "previous_hash": self._hash,
                }
                record["hash"] = record_hash(record)
                try:
                    await self._collection.insert_one(record)
                except DuplicateKeyError:
                    # A write that seemed to fail was there after all: it stays, and this one follows it.
                    standing = await self._collection.find_one({"_id": record["_id"]})
                    if standing is None:
                        raise Unavailable("STORAGE_UNAVAILABLE", "the audit log cannot be read") from None
                    self._advance(standing)
                else:
                    self._advance(record)
                    return

    def _advance(self, record: Document) -> None:
        self._sequence += 1
        self._hash = record["hash"]
