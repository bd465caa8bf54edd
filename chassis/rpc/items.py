"""Errors of single items in batch replies, in the same words as errors of whole calls."""

from __future__ import annotations

from chassis.errors import DaogouError
from chassis.rpc.status import VIOLATIONS_MAX
from daogou.common.v1.item_error_pb2 import FieldViolation, ItemError


def to_item_error(error: DaogouError) -> ItemError:
    """The error as the item of a batch carries it: the first violations, and how many more there are.

    Uncut, the refusals of a thousand bad items could make a reply too large to send, and what became of
    the good ones would be lost with them.
    """
    named = [
        FieldViolation(field=found.field, description=found.description)
        for found in error.violations[:VIOLATIONS_MAX]
    ]
    if rest := len(error.violations) - len(named):
        named.append(FieldViolation(description=f"and {rest} more"))
    return ItemError(reason=error.reason, message=error.message, violations=named)
