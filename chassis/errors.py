"""The one family of errors that rules, stores and servicers raise, and that crosses the wire.

`chassis.rpc.status` turns them into google.rpc.Status; nothing else of an exception reaches a caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One offending field of a request: its path and what is wrong with it."""

    field: str
    description: str


class DaogouError(Exception):
    """An error with a reason that callers may act on.

    `reason` is UPPER_SNAKE_CASE and documented in the proto; `message` is for a person and holds no
    personal data; `retry_after_s` is set when the same call may succeed later.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        violations: Iterable[Violation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class Invalid(DaogouError):
    """The request is wrong whatever the state (INVALID_ARGUMENT)."""


class Unauthenticated(DaogouError):
    """Nobody knows who calls (UNAUTHENTICATED)."""


class Denied(DaogouError):
    """The caller may not do this (PERMISSION_DENIED)."""


class NotFound(DaogouError):
    """What the request names does not exist (NOT_FOUND)."""


class Refused(DaogouError):
    """The request is wrong now (FAILED_PRECONDITION)."""


class AlreadyExists(DaogouError):
    """The name is taken by something else (ALREADY_EXISTS)."""


class Conflict(DaogouError):
    """Somebody else wrote in between: read again and retry (ABORTED)."""


class Overloaded(DaogouError):
    """Too much at once: slow down (RESOURCE_EXHAUSTED)."""


class Unavailable(DaogouError):
    """Something this service needs does not answer (UNAVAILABLE). What was written is unknown."""


class DeadlineExceeded(DaogouError):
    """The time for the call ran out (DEADLINE_EXCEEDED). What was written is unknown."""


def invalid_fields(violations: Iterable[Violation]) -> Invalid:
    """The error that names every offending field at once."""
    found = tuple(violations)
    fields = ", ".join(violation.field for violation in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return Invalid("INVALID_FIELDS", f"invalid: {fields}{more}", violations=found)
