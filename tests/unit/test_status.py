"""Errors on the wire: what is said arrives whole, and never so large that it is dropped on the way."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from chassis import errors
from chassis.errors import DaogouError, Invalid, Overloaded, Violation, invalid_fields
from chassis.rpc import status
from chassis.rpc.items import to_item_error

KINDS = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Denied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}
violations = st.builds(Violation, field=st.text(max_size=300), description=st.text(max_size=300))


def received(error: DaogouError) -> DaogouError | None:
    """The error as another service has it from the failed call."""
    raised = grpc.aio.AioRpcError(
        status.code_of(error),
        grpc.aio.Metadata(),
        grpc.aio.Metadata(("grpc-status-details-bin", status.to_status(error).SerializeToString())),
        error.message,
    )
    return status.from_rpc_error(raised)


def bad_request(error: DaogouError) -> error_details_pb2.BadRequest:
    """The detail that names the offending fields."""
    found = error_details_pb2.BadRequest()
    assert any(detail.Unpack(found) for detail in status.to_status(error).details)
    return found


@pytest.mark.parametrize(("kind", "code"), KINDS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_kind_of_error_has_its_code(kind: type[DaogouError], code: grpc.StatusCode) -> None:
    """The table of the contract, which callers retry by."""
    assert status.code_of(kind("SOME_REASON", "why")) is code


def test_every_kind_of_error_that_can_be_raised_can_be_answered() -> None:
    """A kind without a code would reach the caller as an internal error."""
    assert set(KINDS) == set(DaogouError.__subclasses__())


@given(
    st.sampled_from(sorted(KINDS, key=lambda kind: kind.__name__)),
    st.text(max_size=100),
    st.lists(violations, max_size=3),
    st.one_of(st.none(), st.integers(0, 10**6)),
)
def test_an_error_arrives_as_it_was_raised(
    kind: type[DaogouError], message: str, named: list[Violation], retry_after_ms: int | None
) -> None:
    """Kind, reason, message, fields and when to try again."""
    retry_after_s = None if retry_after_ms is None else retry_after_ms / 1000
    found = received(kind("SOME_REASON", message, violations=named, retry_after_s=retry_after_s))
    assert found is not None
    assert type(found) is kind
    assert (found.reason, found.message, found.retry_after_s) == ("SOME_REASON", message, retry_after_s)
    assert [(one.field, one.description) for one in found.violations] == [
        (one.field[:200], one.description[:200]) for one in named
    ]


def test_a_reason_names_our_domain() -> None:
    """Which is how a caller tells it from the reasons of a proxy in between."""
    info = error_details_pb2.ErrorInfo()
    assert status.to_status(Invalid("SOME_REASON", "why")).details[0].Unpack(info)
    assert (info.domain, info.reason) == ("daogou", "SOME_REASON")


def test_fifty_offending_fields_are_all_named() -> None:
    """And nothing is added."""
    found = bad_request(invalid_fields(Violation(f"f{number}", "is required") for number in range(50)))
    assert [one.field for one in found.field_violations] == [f"f{number}" for number in range(50)]


@pytest.mark.parametrize("count", [51, 52, 100, 5000])
def test_of_more_than_fifty_the_rest_is_counted(count: int) -> None:
    """The first fifty, and how many more there are."""
    found = bad_request(invalid_fields(Violation(f"f{number}", "is required") for number in range(count)))
    assert len(found.field_violations) == 51
    assert found.field_violations[-1].description == f"and {count - 50} more"


@given(st.lists(violations, min_size=1, max_size=120))
def test_the_named_fields_take_at_most_four_kib(named: list[Violation]) -> None:
    """Whatever the fields are called: more metadata than that is dropped, and the error with it."""
    found = bad_request(Invalid("INVALID_FIELDS", "why", violations=named))
    assert found.ByteSize() <= 4096
    shown = [one for one in found.field_violations if not one.description.startswith("and ")]
    last = found.field_violations[-1].description
    if last.startswith("and ") and last.endswith(" more") and len(found.field_violations) <= len(named):
        assert int(last.split()[1]) + len(found.field_violations) - 1 == len(named)
    else:
        assert len(found.field_violations) == len(named)
    assert shown, "at least one field is named"


def test_an_error_of_a_thousand_long_fields_still_fits_into_a_header() -> None:
    """8 KiB is what servers and proxies accept of metadata, and gRPC writes bytes as base64."""
    path = "a_rather_long_field_name.inside_another_one[1234].within_a_third_one_of_the_contract"
    error = invalid_fields(Violation(f"{path}{number}", "店" * 200) for number in range(1000))
    whole = status.to_status(error).SerializeToString()
    assert len(whole) * 4 / 3 + len(error.message.encode()) * 3 < 8192


def test_a_failed_call_that_says_nothing_of_ours_is_not_ours() -> None:
    """A proxy's 502, another domain's reason, a code that we never send."""
    bare = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "502")
    assert status.from_rpc_error(bare) is None
    for domain, code in [("googleapis.com", 3), ("daogou", 2)]:
        foreign = status_pb2.Status(code=code, message="why")
        foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="SOME_REASON", domain=domain))
        metadata = grpc.aio.Metadata(("grpc-status-details-bin", foreign.SerializeToString()))
        raised = grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), metadata, "why")
        assert status.from_rpc_error(raised) is None


def test_an_item_of_a_batch_is_told_the_same_as_a_call() -> None:
    """Reason, message and every field."""
    error = Overloaded("TOO_MANY", "slow down", violations=[Violation("lines[2].paid_minor", "is required")])
    item = to_item_error(error)
    assert (item.reason, item.message) == ("TOO_MANY", "slow down")
    assert [(one.field, one.description) for one in item.violations] == [
        ("lines[2].paid_minor", "is required")
    ]


def test_the_message_of_many_offending_fields_names_some_and_counts_the_rest() -> None:
    """For the person who sees the message alone."""
    error = invalid_fields(Violation(f"f{number}", "is required") for number in range(7))
    assert error.message == "invalid: f0, f1, f2, f3, f4 and 2 more"
    assert error.reason == "INVALID_FIELDS"
