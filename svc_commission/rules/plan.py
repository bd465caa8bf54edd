"""Commission plans: which rule decides a line, what may be published, which plan is in force when."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chassis.errors import Refused, Violation

BASIS_POINTS: Final = 10_000
PLANS_MAX: Final = 1000


class PayeeRole(enum.StrEnum):
    """What somebody was on a sale."""

    OWNER = "OWNER"


@dataclass(frozen=True, slots=True)
class Match:
    """Which lines a rule decides: an empty set matches all."""

    channels: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    sku_ids: frozenset[str] = frozenset()
    store_ids: frozenset[str] = frozenset()

    def admits(self, channel: str, store_id: str, category_id: str, sku_id: str) -> bool:
        """Whether a line meets every condition."""
        return (
            (not self.channels or channel in self.channels)
            and (not self.store_ids or store_id in self.store_ids)
            and (not self.category_ids or category_id in self.category_ids)
            and (not self.sku_ids or sku_id in self.sku_ids)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """What a line earns, in basis points of what was paid, and how roles share it, in basis points."""

    rule_id: str
    match: Match
    rate_bp: int
    shares: tuple[tuple[PayeeRole, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A published plan, in force from `effective_from_time` to `effective_to_time` (None: no end)."""

    plan_id: str
    effective_from_time: datetime
    effective_to_time: datetime | None
    rules: tuple[Rule, ...]

    def rule_for(self, channel: str, store_id: str, category_id: str, sku_id: str) -> Rule | None:
        """The first rule that matches a line."""
        for rule in self.rules:
            if rule.match.admits(channel, store_id, category_id, sku_id):
                return rule
        return None


def in_force(plans: Sequence[Plan], placed_time: datetime) -> Plan | None:
    """The plan that an order placed then falls under."""
    for plan in plans:
        ends = plan.effective_to_time
        if plan.effective_from_time <= placed_time and (ends is None or placed_time < ends):
            return plan
    return None


def problems(plan: Plan) -> list[Violation]:
    """What is wrong with a plan whatever the time and the other plans."""
    found = []
    if plan.effective_to_time is not None and plan.effective_to_time <= plan.effective_from_time:
        found.append(Violation("plan.effective_to_time", "must be after effective_from_time"))
    ids = [rule.rule_id for rule in plan.rules]
    for index, rule in enumerate(plan.rules):
        path = f"plan.rules[{index}]"
        if rule.rule_id in ids[:index]:
            found.append(Violation(f"{path}.rule_id", "names an earlier rule of the plan"))
        roles = [role for role, _ in rule.shares]
        if len(set(roles)) < len(roles):
            found.append(Violation(f"{path}.shares", "must name each role at most once"))
        if (total := sum(share for _, share in rule.shares)) > BASIS_POINTS:
            found.append(Violation(f"{path}.shares", f"must sum to at most 10,000 basis points, not {total}"))
    return found


def check_publishable(plan: Plan, published: Sequence[Plan], now: datetime) -> None:
    """Raises: Refused PLAN_STARTS_IN_PAST, PLAN_OVERLAPS, TOO_MANY_PLANS."""
    if plan.effective_from_time < now:
        raise Refused("PLAN_STARTS_IN_PAST", "a plan cannot come into force before it is published")
    if len(published) >= PLANS_MAX:
        raise Refused("TOO_MANY_PLANS", f"a brand has at most {PLANS_MAX} plans")
    for other in published:
        begins_before_end = (
            other.effective_to_time is None or plan.effective_from_time < other.effective_to_time
        )
        ends_after_begin = (
            plan.effective_to_time is None or other.effective_from_time < plan.effective_to_time
        )
        if begins_before_end and ends_after_begin:
            raise Refused("PLAN_OVERLAPS", f"plan {other.plan_id} is in force in part of the interval")
