"""Payouts: which guides of a batch are paid, and why the others are not."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence

from chassis.errors import Refused


class Refusal(enum.StrEnum):
    """Why a guide is not paid by a batch."""

    ALREADY_PAID = "ALREADY_PAID"
    NO_STATEMENT = "NO_STATEMENT"
    NOTHING_PAYABLE = "NOTHING_PAYABLE"
    CARRIED_ON = "CARRIED_ON"


def judged(
    guide_ids: Sequence[str],
    stated: Collection[str],
    payable: Mapping[str, int],
    paid_by: Mapping[str, str],
    batch: str,
    *,
    is_open: bool,
) -> dict[str, Refusal]:
    """The guides that a batch does not pay, and why.

    `stated`: those who have a statement; `payable`: what it ends with, where more than 0; `paid_by`: which
    batch has paid it already, this one too. `is_open`: whether the month after is, for payments to count in.
    """
    refused = {}
    for guide_id in guide_ids:
        if guide_id not in stated:
            refused[guide_id] = Refusal.NO_STATEMENT
        elif guide_id not in payable:
            refused[guide_id] = Refusal.NOTHING_PAYABLE
        elif paid_by.get(guide_id, batch) != batch:
            refused[guide_id] = Refusal.ALREADY_PAID
        elif not is_open and guide_id not in paid_by:
            refused[guide_id] = Refusal.CARRIED_ON
    return refused


def check_payable(*, closed: bool, carried_on: bool) -> None:
    """Whether a month's statements may be paid now: it is closed, and the month after is not.

    Later statements begin with what earlier ones end with; were both paid, something would be paid twice.
    Raises: Refused MONTH_NOT_CLOSED, MONTH_CARRIED_ON.
    """
    if not closed:
        raise Refused("MONTH_NOT_CLOSED", "its statements are not there yet")
    if carried_on:
        raise Refused("MONTH_CARRIED_ON", "a later month is closed: its statements hold what was not paid")
