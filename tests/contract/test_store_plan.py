"""Plans in the database: none that overlap, however many publish at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import Conflict, Refused
from chassis.mongo.connection import Database
from svc_commission.plan import plans
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import plan as rules
from svc_commission.rules.plan import (
    Absent,
    Base,
    CostBearer,
    Hold,
    Match,
    PayeeRole,
    Plan,
    Purchase,
    Rule,
    Share,
)

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> PlanStore:
    return PlanStore(database)


def plan(number: int, days: int, until: int | None) -> Plan:
    """A plan with every kind of condition, and all else that a plan may say."""
    rule = Rule(
        "shoes",
        Match(
            channels=frozenset({"TMALL", "POS"}),
            category_ids=frozenset({"shoes"}),
            sku_ids=frozenset({"s2", "s1"}),
            store_ids=frozenset({"east"}),
            member_tiers=frozenset({"gold", "silver"}),
            campaign_ids=frozenset({"spring"}),
            purchase=Purchase.REPEAT,
        ),
        300,
        (
            Share(PayeeRole.OWNER, 5000, Absent.KEEP),
            Share(PayeeRole.SERVING, 2000, Absent.OWNER),
            Share(PayeeRole.STORE_MANAGER, 1000, Absent.STORE_POOL),
        ),
        base=Base.PAID_PLUS_SUBSIDY,
        floor_minor=1,
        cap_minor=10**12,
        cost_bearer=CostBearer.RECRUITING_STORE,
    )
    rest = Rule("rest", Match(), 0, (Share(PayeeRole.OWNER, 10_000),), per_unit_minor=50)
    ends = None if until is None else NOON + timedelta(days=until)
    holds = {"TMALL": Hold(7), "POS": Hold(0, from_payment=True)}
    return Plan(f"plan-{number}", NOON + timedelta(days=days), ends, (rule, rest), holds, 24)


async def published(store: PlanStore, new: Plan, brand_id: str = BRAND) -> None:
    """Publishes a plan as the service does: read, decide, write."""
    standing = await store.find(brand_id)
    rules.check_publishable(new, [plans.plan_of(one) for one in standing["plans"]], NOON)
    await store.replace({**standing, "plans": [*standing["plans"], plans.plan_document(new)]})


async def test_a_plan_read_back_is_the_plan_that_was_published(store: PlanStore) -> None:
    """Every condition, rate, share and time of it; a brand without plans has none."""
    assert list(await store.plans(BRAND)) == []
    await published(store, plan(1, 0, 31))
    await published(store, plan(2, 31, None))
    assert list(await store.plans(BRAND)) == [plan(1, 0, 31), plan(2, 31, None)]
    assert list(await store.plans(OTHER)) == []


async def test_a_plan_of_the_first_release_is_the_plan_that_was_published(
    store: PlanStore, database: Database
) -> None:
    """It was written before there were purchases, holds, caps and bearers, and is never edited."""
    match = {"channels": ["TMALL"], "category_ids": [], "sku_ids": [], "store_ids": []}
    shares = [{"role": "OWNER", "share_bp": 5000}]
    rule = {"rule_id": "shoes", "match": match, "rate_bp": 300, "shares": shares}
    document = {
        "plan_id": "old",
        "effective_from_time": NOON,
        "effective_to_time": None,
        "rules": [rule],
        "display_name": "3 %",
        "publish_time": NOON,
    }
    await database["plans"].insert_one({"_id": BRAND, "rev": 1, "plans": [document], "receipts": []})
    match_of = Match(channels=frozenset({"TMALL"}))
    expected = Plan("old", NOON, None, (Rule("shoes", match_of, 300, (Share(PayeeRole.OWNER, 5000),)),))
    assert list(await store.plans(BRAND)) == [expected]
    assert (expected.share_link_hours, expected.holds) == (72, {})
    assert plans.plan_message(document).rules[0].shares[0].share_bp == 5000


@pytest.mark.both_drivers
async def test_of_two_who_publish_at_once_one_must_look_again(store: PlanStore) -> None:
    """The first plan of a brand, and a later one: two that overlap are never both in force."""
    for number, (start, end) in enumerate([(0, 10), (10, 20)]):
        rivals = [published(store, plan(2 * number + rival, start, end)) for rival in range(2)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        [conflict] = [outcome for outcome in outcomes if outcome is not None]
        assert isinstance(conflict, Conflict)
        assert conflict.reason == "PLANS_CHANGED"
        assert conflict.retry_after_s
        assert len(await store.plans(BRAND)) == number + 1
        with pytest.raises(Refused):
            await published(store, plan(99, start, end))


async def test_who_read_before_somebody_published_must_look_again(store: PlanStore) -> None:
    """Though much time has passed between."""
    await published(store, plan(1, 0, 10))
    stale = await store.find(BRAND)
    await published(store, plan(2, 10, 20))
    with pytest.raises(Conflict):
        await store.replace({**stale, "plans": []})
    assert len(await store.plans(BRAND)) == 2


async def test_brands_publish_without_waiting_for_each_other(store: PlanStore) -> None:
    """Each has a document of its own."""
    await asyncio.gather(*(published(store, plan(1, 0, None), brand_id) for brand_id in (BRAND, OTHER)))
    assert [len(await store.plans(brand_id)) for brand_id in (BRAND, OTHER)] == [1, 1]


async def test_a_thousand_plans_of_many_rules_fit(store: PlanStore) -> None:
    """The limits that the contract states together stay below what the database takes of one document."""
    most = [plans.plan_document(plan(number, number, number + 1)) for number in range(rules.PLANS_MAX)]
    await store.replace({**await store.find(BRAND), "plans": most})
    assert len(await store.plans(BRAND)) == rules.PLANS_MAX
