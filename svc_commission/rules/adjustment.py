"""Adjustments: one person proposes, another decides, once."""

from __future__ import annotations

import enum

from chassis.errors import Refused


class AdjustmentState(enum.StrEnum):
    """How far an adjustment has come."""

    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


def check_decidable(state: AdjustmentState, proposer: str, decider: str) -> None:
    """Whether somebody may decide on it. Raises: Refused ADJUSTMENT_DECIDED, SAME_PERSON."""
    if state is not AdjustmentState.PROPOSED:
        raise Refused("ADJUSTMENT_DECIDED", f"it is {state.value} already")
    if decider == proposer:
        raise Refused("SAME_PERSON", "somebody else than the one who proposed it must decide")
