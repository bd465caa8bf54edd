"""Plans: which rule decides a line, which plan an order falls under, what may be published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_commission.rules import plan as rules
from svc_commission.rules.plan import Match, PayeeRole, Plan, Purchase, Rule, Sale, Share

MARCH = datetime(2026, 2, 28, 16, tzinfo=UTC)
DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
OWNER = (Share(PayeeRole.OWNER, 10_000),)
Interval = tuple[int, int | None]


def plan(start: int = 0, end: int | None = None, *with_rules: Rule, plan_id: str = "plan") -> Plan:
    """A plan in force from one day to another, counted from March."""
    ends = None if end is None else MARCH + end * DAY
    return Plan(plan_id, MARCH + start * DAY, ends, with_rules or (Rule("all", Match(), 300, OWNER),))


def rule(rule_id: str, **match: set[str]) -> Rule:
    """A rule that decides lines with these properties."""
    conditions: dict[str, Any] = {name: frozenset(values) for name, values in match.items()}
    return Rule(rule_id, Match(**conditions), 300, OWNER)


def decides(
    line_plan: Plan, *, channel: str = "POS", store: str = "east", category: str = "", sku: str = "s"
) -> str:
    """The id of the rule that decides a line; empty: none."""
    found = line_plan.rule_for(Sale(channel, store), category, sku)
    return found.rule_id if found else ""


def test_the_first_rule_that_matches_decides() -> None:
    """A general rule before a special one leaves the special one nothing."""
    special, general = rule("shoes", category_ids={"shoes"}), rule("all")
    assert decides(plan(0, None, special, general), category="shoes") == "shoes"
    assert decides(plan(0, None, special, general), category="hats") == "all"
    assert decides(plan(0, None, general, special), category="shoes") == "all"


def test_all_conditions_of_a_rule_must_hold() -> None:
    """One that does not hold is enough to pass a line on."""
    strict = plan(
        0, None, rule("one", channels={"TMALL"}, category_ids={"shoes"}, sku_ids={"s1"}, store_ids={"east"})
    )
    wanted = {"channel": "TMALL", "category": "shoes", "sku": "s1", "store": "east"}
    assert decides(strict, **wanted) == "one"
    for name in wanted:
        assert decides(strict, **{**wanted, name: "other"}) == "", name


def test_a_line_that_no_rule_matches_is_decided_by_none() -> None:
    """It earns nothing; that is no error."""
    assert decides(plan(0, None, rule("shoes", category_ids={"shoes"})), category="") == ""


@pytest.mark.parametrize(("first", "expected"), [(True, "first"), (False, "repeat")])
def test_a_members_purchase_is_his_first_or_a_repeat(first: bool, expected: str) -> None:
    """Never both, never neither; who is no member repeats. A rule without a condition takes both."""
    conditions = {
        purchase: Rule(purchase.lower(), Match(purchase=purchase), 300, OWNER) for purchase in Purchase
    }
    made = Sale("POS", "east", first_purchase=first)
    for rules_of in permutations([Purchase.FIRST, Purchase.REPEAT]):
        found = plan(0, None, *[conditions[one] for one in rules_of]).rule_for(made, "", "s")
        assert found is conditions[Purchase(expected.upper())]
    assert plan(0, None, conditions[Purchase.ANY]).rule_for(made, "", "s")


@pytest.mark.parametrize("condition", ["member_tiers", "campaign_ids"])
def test_who_has_no_tier_or_campaign_meets_no_condition_on_it(condition: str) -> None:
    """Nothing is not one of the values."""
    strict = plan(0, None, rule("one", **{condition: {"gold", "spring"}}))
    for tier, campaign, meets in [("gold", "spring", True), ("", "", False), ("lead", "autumn", False)]:
        found = strict.rule_for(Sale("POS", "east", tier, campaign), "", "s")
        assert (found is not None) is meets


def test_a_condition_admits_each_of_its_values() -> None:
    """Shoes or hats."""
    both = plan(0, None, rule("both", category_ids={"shoes", "hats"}))
    assert [decides(both, category=one) for one in ("shoes", "hats", "bags")] == ["both", "both", ""]


def test_a_plan_is_in_force_from_its_first_moment_until_before_its_last() -> None:
    """An order placed as one plan ends and the next begins falls under the next alone."""
    march, april = plan(0, 31, plan_id="march"), plan(31, None, plan_id="april")

    def in_force(moment: datetime) -> str:
        found = rules.in_force([march, april], moment)
        return found.plan_id if found else ""

    assert in_force(MARCH - MILLISECOND) == ""
    assert in_force(MARCH) == "march"
    assert in_force(MARCH + 31 * DAY - MILLISECOND) == "march"
    assert in_force(MARCH + 31 * DAY) == "april"
    assert in_force(MARCH + 10_000 * DAY) == "april"


def refusal(new: Plan, *published: Plan, now: datetime = MARCH) -> str:
    """Why a plan may not be published; empty: it may."""
    try:
        rules.check_publishable(new, published, now)
    except Refused as error:
        return error.reason
    return ""


def test_a_plan_may_begin_now_and_not_before() -> None:
    """What was sold yesterday was sold under yesterday's plan."""
    assert refusal(plan(0), now=MARCH) == ""
    assert refusal(plan(0), now=MARCH + MILLISECOND) == "PLAN_STARTS_IN_PAST"


@pytest.mark.parametrize(
    ("new", "standing", "refused"),
    [
        ((10, 20), (20, 30), False),
        ((20, 30), (10, 20), False),
        ((10, 21), (20, 30), True),
        ((29, 40), (20, 30), True),
        ((20, 30), (20, 30), True),
        ((22, 23), (20, 30), True),
        ((10, 40), (20, 30), True),
        ((10, None), (20, 30), True),
        ((30, None), (20, 30), False),
        ((10, 20), (20, None), False),
        ((10, 21), (20, None), True),
        ((40, 50), (20, None), True),
        ((30, None), (20, None), True),
    ],
)
def test_plans_may_touch_and_not_overlap(new: Interval, standing: Interval, refused: bool) -> None:
    """Else one order would fall under two."""
    assert refusal(plan(*new), plan(*standing)) == ("PLAN_OVERLAPS" if refused else "")


intervals = st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(1, 12))).map(
    lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
)


@given(st.lists(intervals, max_size=6), st.integers(0, 30))
def test_of_all_that_could_be_published_one_at_most_is_in_force(offered: list[Interval], day: int) -> None:
    """Whatever is offered in whatever order, no moment has two plans, and what was refused had to be."""
    published: list[Plan] = []
    for number, interval in enumerate(offered):
        new = plan(*interval, plan_id=str(number))
        if refusal(new, *published):
            days = [MARCH + one * DAY for one in range(40)]
            assert any(
                rules.in_force([new], moment) and rules.in_force(published, moment) for moment in days
            ), "refused without need"
        else:
            published.append(new)
    assert sum(rules.in_force([one], MARCH + day * DAY) is not None for one in published) <= 1


def test_a_brand_has_at_most_a_thousand_plans() -> None:
    """They live in one document."""
    published = [plan(number, number + 1) for number in range(rules.PLANS_MAX)]
    assert refusal(plan(rules.PLANS_MAX), *published[:-1]) == ""
    assert refusal(plan(rules.PLANS_MAX), *published) == "TOO_MANY_PLANS"


def fields(one: Plan) -> set[str]:
    """The offending fields of a plan."""
    return {problem.field for problem in rules.problems(one)}


def test_shares_of_more_than_the_whole_are_an_offence() -> None:
    """10,000 basis points can be shared out, and not one more."""

    def sharing(*shares: int) -> Plan:
        split = tuple(Share(PayeeRole.OWNER, share) for share in shares)
        return plan(0, None, Rule("one", Match(), 300, split))

    assert fields(sharing(10_000)) == set()
    assert fields(sharing(10_001)) == {"rules[0].shares"}
    assert "rules[0].shares" in fields(sharing(5000, 5001))


def test_a_role_named_twice_is_an_offence() -> None:
    """Who shares twice should be given the sum."""
    twice = Rule("one", Match(), 300, (Share(PayeeRole.OWNER, 100), Share(PayeeRole.OWNER, 100)))
    assert fields(plan(0, None, twice)) == {"rules[0].shares"}


def test_a_plan_that_ends_before_it_begins_is_an_offence() -> None:
    """Or as it begins: it would never be in force."""
    assert fields(plan(5, 6)) == set()
    assert fields(plan(5, 5)) == {"effective_to_time"}
    assert fields(plan(5, 4)) == {"effective_to_time"}


def test_a_rate_beside_an_amount_per_piece_is_an_offence() -> None:
    """Whether both were to be added nobody can know."""
    by_rate, by_piece = Rule("a", Match(), 300, OWNER), Rule("b", Match(), 0, OWNER, per_unit_minor=50)
    assert fields(plan(0, None, by_rate, by_piece)) == set()
    both = Rule("c", Match(), 1, OWNER, per_unit_minor=1)
    assert fields(plan(0, None, by_rate, both)) == {"rules[1].per_unit_minor"}


@pytest.mark.parametrize(
    ("floor", "cap", "offends"), [(5, 5, False), (0, 0, False), (5, 4, True), (5, None, False)]
)
def test_a_cap_below_the_floor_is_an_offence(floor: int, cap: int | None, offends: bool) -> None:
    """A line cannot earn at least 5 and at most 4."""
    one = Rule("one", Match(), 300, OWNER, floor_minor=floor, cap_minor=cap)
    assert fields(plan(0, None, one)) == ({"rules[0].cap_minor"} if offends else set())


def test_two_rules_of_one_id_are_an_offence() -> None:
    """An explanation could not say which of them it was."""
    assert fields(plan(0, None, rule("a"), rule("b"), rule("a"))) == {"rules[2].rule_id"}


def test_all_offences_are_named_at_once() -> None:
    """Nobody mends a plan field by field."""
    bad = Rule("one", Match(), 300, (Share(PayeeRole.OWNER, 9000), Share(PayeeRole.OWNER, 9000)))
    assert fields(plan(5, 4, bad, bad)) == {
        "effective_to_time",
        "rules[0].shares",
        "rules[1].shares",
        "rules[1].rule_id",
    }
