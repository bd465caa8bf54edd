"""Messages to other services, written in one write with the fact that they tell of: both are there or none.

A document that has something to tell carries `outbox: [{id, kind, body, due_time}]`. A relay finds such
documents, delivers what is due, and takes out what was delivered: each message at least once, so whoever
receives it must know it again by a natural key. What cannot be delivered stays and is tried again, later and
later; nothing else waits for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Counter
from pymongo import UpdateOne

from chassis import crash, logs
from chassis.clock import Now
from chassis.mongo.connection import Collection, Document
from chassis.mongo.schema import Index

MOST: Final = 500
"""Documents of one round."""
LEASE: Final = timedelta(seconds=10)
"""For so long no other relay tries what one has taken up."""
RETRY_AFTER: Final = timedelta(seconds=5)
RETRY_AFTER_MOST: Final = timedelta(minutes=10)

_PUT_OFF = crash.point("outbox_put_off")
_DELIVERED = crash.point("outbox_delivered")

DELIVERIES = Counter(
    "daogou_outbox_deliveries_total", "Messages that a relay tried to deliver.", ["kind", "outcome"]
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `document_id`: of the document that carries it; `attempts` were made before."""

    document_id: str
    message_id: str
    kind: str
    body: Mapping[str, Any]
    attempts: int


Deliver = Callable[[Sequence[Message]], Awaitable[Sequence[bool]]]
"""Delivers messages of one kind; whether each was. Where it raises, none was."""


def message(message_id: str, kind: str, body: Mapping[str, Any], now: datetime) -> Document:
    """A message for a document's `outbox`. Its id names it within the document."""
    return {"id": message_id, "kind": kind, "body": dict(body), "due_time": now, "attempts": 0}


def index_of(collection: str) -> Index:
    """The index by which a relay finds what is due in a collection."""
    return Index(collection, "outbox_due", [("outbox.due_time", 1)], {"sparse": True})


class Relay:
    """Delivers the messages of one collection."""

    def __init__(self, collection: Collection, deliver: Mapping[str, Deliver], now: Now) -> None:
        self._collection = collection
        self._deliver = deliver
        self._now = now

    async def round(self) -> bool:
        """Delivers some of what is due. Whether there may be more."""
        now = self._now()
        found = (
            await self._collection.find({"outbox.due_time": {"$lte": now}}, {"outbox": 1})
            .sort("outbox.due_time", 1)
            .limit(MOST)
            .to_list(None)
        )
        due: dict[str, list[Message]] = defaultdict(list)
        for document in found:
            for one in document["outbox"]:
                if one["due_time"] <= now:
                    due[one["kind"]].append(
                        Message(document["_id"], one["id"], one["kind"], one["body"], one["attempts"])
                    )
        for kind, messages in due.items():
            await self._attempt(kind, messages, now)
        return len(found) == MOST

    async def _attempt(self, kind: str, messages: Sequence[Message], now: datetime) -> None:
        log = logs.logger("outbox")
        await self._put_off(messages, lambda _: now + LEASE)
        _PUT_OFF.reached()
        try:
            outcomes = await self._deliver[kind](messages)
        except Exception as error:
            # Whoever receives it is away, or we are wrong: either way it stays, and others go on.
            log.warning("undelivered", kind=kind, count=len(messages), exc_info=error)
            outcomes = [False] * len(messages)
        done = [one for one, delivered in zip(messages, outcomes, strict=True) if delivered]
        failed = [one for one, delivered in zip(messages, outcomes, strict=True) if not delivered]
        DELIVERIES.labels(kind, "DELIVERED").inc(len(done))
        DELIVERIES.labels(kind, "FAILED").inc(len(failed))
        if done:
            _DELIVERED.reached()
            await self._collection.bulk_write([_taken_out(one) for one in done], ordered=False)
        await self._put_off(failed, lambda one: now + _wait(one.attempts), attempts=1)

    async def _put_off(
        self, messages: Sequence[Message], until: Callable[[Message], datetime], *, attempts: int = 0
    ) -> None:
        if not messages:
            return
        writes = [
            UpdateOne(
                # Another relay may have taken it out meanwhile, and the field with the last: an update that
                # names a part of it would be an error.
                {"_id": one.document_id, "outbox.id": one.message_id},
                {
                    "$set": {"outbox.$[one].due_time": until(one)},
                    "$inc": {"outbox.$[one].attempts": attempts},
                },
                array_filters=[{"one.id": one.message_id}],
            )
            for one in messages
        ]
        await self._collection.bulk_write(writes, ordered=False)


def _taken_out(delivered: Message) -> UpdateOne:
    """Takes a message out, and the field away with the last: the index holds only what is to be told."""
    others = {"$filter": {"input": "$outbox", "cond": {"$ne": ["$$this.id", delivered.message_id]}}}
    left = {"$cond": [{"$eq": [others, []]}, "$$REMOVE", others]}
    return UpdateOne(
        {"_id": delivered.document_id, "outbox.id": delivered.message_id}, [{"$set": {"outbox": left}}]
    )


def _wait(attempts: int) -> timedelta:
    doubled: int = 1 << min(attempts, 10)
    return min(RETRY_AFTER * doubled, RETRY_AFTER_MOST)
