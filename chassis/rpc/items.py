"""Errors of single items in batch replies, in the same words as errors of whole calls."""

from __future__ import annotations

from chassis.errors import DaogouError
from daogou.common.v1.item_error_pb2 import FieldViolation, ItemError


def to_item_error(error: DaogouError) -> ItemError:
    """The error as the item of a batch carries it."""
    return ItemError(
        reason=error.reason,
        message=error.message,
        violations=[
            FieldViolation(field=found.field, description=found.description) for found in error.violations
        ],
    )
