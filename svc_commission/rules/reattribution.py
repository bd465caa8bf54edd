"""Reattributions: what two persons must agree on before the books follow what became known later."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from chassis.errors import Refused
from svc_commission.rules.attribution import Attribution
from svc_commission.rules.order import Account, Target


class State(enum.StrEnum):
    """How far one is."""

    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    DONE = "DONE"
    REJECTED = "REJECTED"


def check_undecided(state: State) -> None:
    """Raises: Refused ALREADY_DECIDED."""
    if state is not State.PROPOSED:
        raise Refused("ALREADY_DECIDED", f"the reattribution is {state} already")


def check_second_person(proposer: str, approver: str) -> None:
    """Nobody moves money alone. Raises: Refused SAME_PERSON."""
    if proposer == approver:
        raise Refused("SAME_PERSON", "whoever proposed it cannot approve it")


def changes(before: Attribution, after: Attribution) -> bool:
    """Whether more is different than when it was asked."""
    return replace(after, known_at_time=before.known_at_time) != before


def outdated(standing: Attribution, known_at: datetime) -> bool:
    """Whether the attribution that stands was decided from newer knowledge than that of a proposal."""
    return standing.known_at_time > known_at


def moved(before: Mapping[Target, int], after: Mapping[Target, int]) -> dict[str, int]:
    """What each payee gains, or loses where it is negative: of debts, held or payable."""
    owed: Counter[str] = Counter()
    for targets, sign in ((after, -1), (before, 1)):
        for target, amount in targets.items():
            if target.account is not Account.EXPENSE:
                owed[target.payee] += sign * amount
    return {payee: amount for payee, amount in sorted(owed.items()) if amount}
