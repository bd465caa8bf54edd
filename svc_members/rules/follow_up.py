"""Tasks of guides: open until they are done or cancelled, and then for good."""

from __future__ import annotations

import enum

from chassis.errors import Refused


class TaskState(enum.StrEnum):
    """How far a task has come."""

    OPEN = "OPEN"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


def check_open(state: TaskState) -> None:
    """Raises: Refused TASK_ENDED for a task that is to be changed and has ended."""
    if state is not TaskState.OPEN:
        raise Refused("TASK_ENDED", f"the task is {state.lower()} already")


def ends(state: TaskState, wanted: TaskState) -> bool:
    """Whether a task that is to end in a state has yet to; False: it has ended so.

    Raises: Refused TASK_ENDED when it has ended otherwise.
    """
    if state is wanted:
        return False
    check_open(state)
    return True
