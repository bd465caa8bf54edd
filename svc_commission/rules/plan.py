"""Commission plans: which rule decides a line, what may be published, which plan is in force when."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chassis.errors import Refused, Violation

BASIS_POINTS: Final = 10_000
PLANS_MAX: Final = 1000
SHARE_LINK_HOURS_DEFAULT: Final = 72


class PayeeRole(enum.StrEnum):
    """What somebody was on a sale."""

    OWNER = "OWNER"
    SERVING = "SERVING"
    REFERRER_1 = "REFERRER_1"
    REFERRER_2 = "REFERRER_2"
    STORE_MANAGER = "STORE_MANAGER"


class Absent(enum.StrEnum):
    """Who gets the share of a role that nobody fills."""

    KEEP = "KEEP"
    OWNER = "OWNER"
    STORE_POOL = "STORE_POOL"


class Base(enum.StrEnum):
    """What a rate is applied to."""

    PAID = "PAID"
    PAID_PLUS_SUBSIDY = "PAID_PLUS_SUBSIDY"


class CostBearer(enum.StrEnum):
    """Who bears the cost of a line's commission."""

    BRAND = "BRAND"
    SELLING_STORE = "SELLING_STORE"
    RECRUITING_STORE = "RECRUITING_STORE"


class Purchase(enum.StrEnum):
    """Which of a member's purchases a rule decides."""

    ANY = "ANY"
    FIRST = "FIRST"
    REPEAT = "REPEAT"


class SelfPurchase(enum.StrEnum):
    """What a guide is paid for a sale of which she is the buyer."""

    NOTHING = "NOTHING"
    PAY = "PAY"


@dataclass(frozen=True, slots=True)
class Sale:
    """What the conditions of rules look at, beside the line."""

    channel: str
    store_id: str
    member_tier: str = ""
    campaign_id: str = ""
    first_purchase: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Which lines a rule decides: an empty set matches all."""

    channels: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    sku_ids: frozenset[str] = frozenset()
    store_ids: frozenset[str] = frozenset()
    member_tiers: frozenset[str] = frozenset()
    campaign_ids: frozenset[str] = frozenset()
    purchase: Purchase = Purchase.ANY

    def admits(self, sale: Sale, category_id: str, sku_id: str) -> bool:
        """Whether a line meets every condition."""
        return (
            (not self.channels or sale.channel in self.channels)
            and (not self.store_ids or sale.store_id in self.store_ids)
            and (not self.category_ids or category_id in self.category_ids)
            and (not self.sku_ids or sku_id in self.sku_ids)
            and (not self.member_tiers or sale.member_tier in self.member_tiers)
            and (not self.campaign_ids or sale.campaign_id in self.campaign_ids)
            and (self.purchase is Purchase.ANY or (self.purchase is Purchase.FIRST) == sale.first_purchase)
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A role's share of a line's commission, in basis points, and who gets it where nobody fills the role."""

    role: PayeeRole
    share_bp: int
    absent: Absent = Absent.KEEP


class PoolSharing(enum.StrEnum):
    """How a store's pool is shared out among its guides when a month closes."""

    KEEP = "KEEP"
    EQUALLY = "EQUALLY"
    BY_HOURS = "BY_HOURS"


class TierMode(enum.StrEnum):
    """Which sales a tier's rate is applied to: those within the tier, or all once it is reached."""

    MARGINAL = "MARGINAL"
    WHOLE = "WHOLE"


class AfterClose(enum.StrEnum):
    """Whether sales of a closed month that become known later change its rate."""

    FROZEN = "FROZEN"
    RERATE = "RERATE"


@dataclass(frozen=True, slots=True)
class Tier:
    """From which sales of the month on which rate holds."""

    from_minor: int
    rate_bp: int


@dataclass(frozen=True, slots=True)
class Tiers:
    """Rates by what the owner sold in a business month. Below the first tier the rule's own rate holds."""

    tiers: tuple[Tier, ...]
    mode: TierMode = TierMode.MARGINAL
    after_close: AfterClose = AfterClose.FROZEN

    def total(self, sales_minor: int, base_rate_bp: int) -> int:
        """What sales of so much earn by the table, in ten-thousandths of a minor unit."""
        table = [Tier(0, base_rate_bp), *self.tiers]
        if self.mode is TierMode.WHOLE:
            return sales_minor * [tier.rate_bp for tier in table if tier.from_minor <= sales_minor][-1]
        ends = [tier.from_minor for tier in table[1:]] + [sales_minor]
        return sum(
            max(0, min(end, sales_minor) - tier.from_minor) * tier.rate_bp
            for tier, end in zip(table, ends, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """What a line earns, and how roles share it.

    `rate_bp` of the base, or `per_unit_minor` for each piece where that is above 0; at least `floor_minor`
    and at most `cap_minor` (None: no cap) for the line. With `tiers` the rate is decided when the month
    closes; until then it is `rate_bp`.
    """

    rule_id: str
    match: Match
    rate_bp: int
    shares: tuple[Share, ...]
    per_unit_minor: int = 0
    base: Base = Base.PAID
    floor_minor: int = 0
    cap_minor: int | None = None
    cost_bearer: CostBearer = CostBearer.BRAND
    tiers: Tiers | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """How long commission is held on a channel, in days: counted from receipt, or 15 days after dispatch.

    `from_payment`: the channel reports neither; counted from payment.
    """

    days: int
    from_payment: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A published plan, in force from `effective_from_time` to `effective_to_time` (None: no end).

    `holds` by channel; on a channel that is not among them commission is payable at once.
    """

    plan_id: str
    effective_from_time: datetime
    effective_to_time: datetime | None
    rules: tuple[Rule, ...]
    holds: Mapping[str, Hold] = field(default_factory=dict)
    share_link_hours: int = SHARE_LINK_HOURS_DEFAULT
    self_purchase: SelfPurchase = SelfPurchase.NOTHING
    pool_sharing: PoolSharing = PoolSharing.KEEP
    write_off_leavers: bool = False

    def rule_for(self, sale: Sale, category_id: str, sku_id: str) -> Rule | None:
        """The first rule that matches a line."""
        for rule in self.rules:
            if rule.match.admits(sale, category_id, sku_id):
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
    """What is wrong with a plan whatever the time and the other plans. Paths begin at the plan."""
    found = []
    if plan.effective_to_time is not None and plan.effective_to_time <= plan.effective_from_time:
        found.append(Violation("effective_to_time", "must be after effective_from_time"))
    ids = [rule.rule_id for rule in plan.rules]
    for index, rule in enumerate(plan.rules):
        path = f"rules[{index}]"
        if rule.rule_id in ids[:index]:
            found.append(Violation(f"{path}.rule_id", "names an earlier rule of the plan"))
        roles = [share.role for share in rule.shares]
        if len(set(roles)) < len(roles):
            found.append(Violation(f"{path}.shares", "must name each role at most once"))
        if (total := sum(share.share_bp for share in rule.shares)) > BASIS_POINTS:
            found.append(Violation(f"{path}.shares", f"must sum to at most 10,000 basis points, not {total}"))
        if rule.per_unit_minor and rule.rate_bp:
            found.append(Violation(f"{path}.per_unit_minor", "and rate_bp exclude each other"))
        if rule.cap_minor is not None and rule.cap_minor < rule.floor_minor:
            found.append(Violation(f"{path}.cap_minor", "must be at least floor_minor"))
        found += _tier_problems(rule, f"{path}.tiers")
    return found


def _tier_problems(rule: Rule, path: str) -> list[Violation]:
    if rule.tiers is None:
        return []
    found = []
    if rule.per_unit_minor or rule.base is not Base.PAID:
        found.append(Violation(path, "come with a rate of what was paid alone"))
    begins = [tier.from_minor for tier in rule.tiers.tiers]
    found += [
        Violation(f"{path}.tiers[{index}].from_minor", "must be above the tier's before it")
        for index, (before, begin) in enumerate(zip([0, *begins], begins, strict=False))
        if begin <= before
    ]
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
