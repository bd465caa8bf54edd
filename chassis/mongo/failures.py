"""What MongoDB's failures mean to a caller. A failure is never a "no": what was written is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from chassis.errors import DaogouError, DeadlineExceeded, Unavailable

DUPLICATE_KEY: Final = 11000

_ABSENT = (
    ConnectionFailure,
    NetworkTimeout,
    NotPrimaryError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)
# Interrupted by shutdown or step-down, primary stepped down, not primary, lock timeouts of an election.
_TRANSIENT_CODES = frozenset(
    {6, 7, 24, 46, 64, 89, 91, 112, 189, 246, 262, 9001, 10107, 11600, 11602, 13435, 13436}
)


def as_error(raised: BaseException) -> DaogouError | None:
    """The failure in our terms; None where it is a mistake of ours, not a failure of the database."""
    if isinstance(raised, ExecutionTimeout):
        return DeadlineExceeded("STORAGE_TOO_SLOW", "the database took too long")
    if isinstance(raised, _ABSENT) or _is_transient(raised):
        return Unavailable("STORAGE_UNAVAILABLE", "the database does not answer", retry_after_s=1.0)
    return None


def duplicates(error: BulkWriteError) -> list[Mapping[str, Any]]:
    """The failures of a bulk write, when all of them are keys that were there already.

    Raises: the error itself when anything else failed, or when what was written is unknown.
    """
    failures: list[Mapping[str, Any]] = error.details["writeErrors"]
    if error.details["writeConcernErrors"] or any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return failures


def _is_transient(raised: BaseException) -> bool:
    if isinstance(raised, BulkWriteError):
        details = raised.details or {}
        return bool(details.get("writeConcernErrors"))
    if isinstance(raised, OperationFailure):
        return raised.code in _TRANSIENT_CODES or raised.has_error_label("TransientTransactionError")
    return False
