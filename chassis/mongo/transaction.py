"""Transactions over several documents, for the few facts that one document cannot hold.

The loop is ours: the drivers' own retries without jitter or a deadline of ours, and on one hot document
burns tens of attempts a commit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import PyMongoError

from chassis import backoff
from chassis.errors import Conflict
from chassis.mongo.connection import Database, Session, begin, session

T = TypeVar("T")

_TRANSIENT = "TransientTransactionError"


async def run(database: Database, body: Callable[[Session], Awaitable[T]], *, timeout_s: float = 10.0) -> T:
    """Runs `body` in a transaction until it commits, and returns what it returned.

    `body` may run several times, so it must have no effect but its writes through the session. What it
    raises ends the transaction unwritten. Raises: Conflict TRANSACTION_CONTENDED when others kept
    writing the same documents until the deadline; the driver's error when a commit's outcome stayed
    unknown.
    """
    deadline_s = time.monotonic() + timeout_s
    async with session(database) as started:
        for attempt in itertools.count():
            try:
                await begin(started)
                result = await body(started)
                await _commit(started, deadline_s)
            except BaseException as error:
                if started.in_transaction:
                    await started.abort_transaction()
                if not (isinstance(error, PyMongoError) and error.has_error_label(_TRANSIENT)):
                    raise
                if time.monotonic() > deadline_s:
                    raise Conflict(
                        "TRANSACTION_CONTENDED", "others write the same documents", retry_after_s=1.0
                    ) from error
            else:
                return result
            await backoff.pause(attempt)
    raise AssertionError("unreachable: the loop returns or raises")


async def _commit(started: Session, deadline_s: float) -> None:
    """Commits, asking again while the outcome is unknown: a commit may be repeated."""
    while True:
        try:
            await started.commit_transaction()
        except PyMongoError as error:
            unknown = error.has_error_label("UnknownTransactionCommitResult")
            if not unknown or time.monotonic() > deadline_s:
                raise
            await backoff.pause(0)
        else:
            return
