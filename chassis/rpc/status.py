"""Errors as google.rpc.Status: code, ErrorInfo with the reason, BadRequest with every field, RetryInfo."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from chassis.errors import (
    AlreadyExists,
    Conflict,
    DaogouError,
    DeadlineExceeded,
    Denied,
    Invalid,
    NotFound,
    Overloaded,
    Refused,
    Unauthenticated,
    Unavailable,
    Violation,
)

DOMAIN: Final = "daogou"
VIOLATIONS_MAX: Final = 50
VIOLATION_BYTES_MAX: Final = 4096
"""Larger trailing metadata is dropped on the way, and the error with it."""

_CODES: Final[dict[type[DaogouError], grpc.StatusCode]] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.ABORTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: DaogouError) -> grpc.StatusCode:
    """The status code of an error."""
    return _CODES[type(error)]


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        detail.field_violations.add(field=violation.field[:200], description=violation.description[:200])
        if index >= VIOLATIONS_MAX or detail.ByteSize() > VIOLATION_BYTES_MAX - 64:
            del detail.field_violations[-1]
            rest = len(violations) - index
            detail.field_violations.add(field="", description=f"and {rest} more")
            break
    return detail


def to_status(error: DaogouError) -> status_pb2.Status:
    """The error as a status message with its details."""
    details: list[
        error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
    ] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> DaogouError | None:
    """What a Daogou service meant by a failed call. None where the status says nothing of ours."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _from_status(status_pb2.Status.FromString(value))
    return None


def _from_status(status: status_pb2.Status) -> DaogouError | None:
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for packed in status.details:
        for detail in (info, bad_request, retry):
            if packed.Is(detail.DESCRIPTOR):
                packed.Unpack(detail)
    kind = next((kind for kind, code in _CODES.items() if code.value[0] == status.code), None)
    if info.domain != DOMAIN or kind is None:
        return None
    return kind(
        info.reason,
        status.message,
        violations=[Violation(field.field, field.description) for field in bad_request.field_violations],
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
    )
