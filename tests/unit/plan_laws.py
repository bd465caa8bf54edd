"""What must hold for the books of every order because its plan says so: rules, roles, bearers, holds.

Each law as in order_laws.py, where the laws of amounts and refunds stand.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

from svc_commission.rules.event import Kind, Line
from svc_commission.rules.order import Account
from svc_commission.rules.plan import Absent, CostBearer, PayeeRole, Purchase, Rule
from tests.strategies import History
from tests.unit import order_laws as laws


def the_first_matching_rule_decides(history: History) -> None:
    """Of the rules whose conditions all hold for a line, the earliest; none where none holds."""
    for line in laws.books_of(history).lines:
        details, _, _ = laws.details_of(history, line.line_id)
        rules = history.plan.rules if history.plan else ()
        assert line.rule == next((rule for rule in rules if _matches(rule, details, history)), None)


def _matches(rule: Rule, line: Line, history: History) -> bool:
    match, sale = rule.match, history.attribution
    conditions = [
        (match.channels, history.channel),
        (match.category_ids, line.category_id),
        (match.sku_ids, line.sku_id),
        (match.store_ids, sale.selling_store_id),
        (match.member_tiers, sale.member_tier),
        (match.campaign_ids, sale.campaign_id),
    ]
    wanted = {Purchase.FIRST: [True], Purchase.REPEAT: [False], Purchase.ANY: [True, False]}
    return history.around.first_purchase in wanted[match.purchase] and all(
        not accepted or value in accepted for accepted, value in conditions
    )


def shares_go_to_those_who_fill_the_roles(history: History) -> None:
    """Who fills two roles has both shares, once; one that nobody fills goes where the plan says, or nowhere.

    The parts are as near to the shares as whole fen can be (Webster: of no two could one fen be moved to
    make them more equal), of what was earned and of what was taken back.
    """
    sale = history.attribution
    filled = {
        PayeeRole.OWNER: sale.owner,
        PayeeRole.SERVING: sale.serving,
        PayeeRole.REFERRER_1: sale.referrer_1,
        PayeeRole.REFERRER_2: sale.referrer_2,
        PayeeRole.STORE_MANAGER: sale.store_manager,
    }
    instead = {
        Absent.KEEP: "",
        Absent.OWNER: sale.owner,
        Absent.STORE_POOL: f"pool:{sale.selling_store_id}",
    }
    for line in laws.books_of(history).lines:
        expected: Counter[str] = Counter()
        for share in line.rule.shares if line.rule else ():
            expected[filled[share.role] or instead[share.absent]] += share.share_bp
        del expected[""]
        assert {part.payee: part.share_bp for part in line.parts} == expected
        assert len(line.parts) == len(expected)
        for one in line.parts:
            for other in line.parts:
                assert _is_near(one.earned_minor, one.share_bp, other.earned_minor, other.share_bp)
                assert _is_near(one.reversed_minor, one.share_bp, other.reversed_minor, other.share_bp)


def _is_near(most: int, its_weight: int, least: int, other_weight: int) -> bool:
    return (2 * most - 1) * other_weight <= (2 * least + 1) * its_weight


def each_cost_is_borne_by_whom_the_plan_says(history: History) -> None:
    """In each month, for each line: by the brand, the store that sold, or the store of the binding."""
    sale = history.attribution
    books = laws.books_of(history)
    bearers = {
        CostBearer.BRAND: "",
        CostBearer.SELLING_STORE: f"store:{sale.selling_store_id}",
        CostBearer.RECRUITING_STORE: f"store:{sale.owner_store_id or sale.selling_store_id}",
    }
    bearer = {line.line_id: bearers[line.rule.cost_bearer] for line in books.lines if line.rule}
    costs: Counter[tuple[str, date]] = Counter()
    debts: Counter[tuple[str, date]] = Counter()
    for target, amount in books.targets.items():
        if target.account is Account.EXPENSE:
            assert target.payee == bearer[target.line_id]
            costs[target.line_id, target.month] += amount
        else:
            debts[target.line_id, target.month] -= amount
    assert +costs == +debts
    assert -costs == -debts


def it_is_confirmed_when_the_hold_is_over(history: History) -> None:
    """N days after receipt, or N and 15 after the last parcel, whichever is earlier; or after payment."""
    hold = history.plan.holds.get(history.channel) if history.plan else None
    books = laws.books_of(history)
    times = {kind: [event.happened_time for event in history.events if event.kind is kind] for kind in Kind}
    kept = times[Kind.RECEIVED] + [time + timedelta(days=15) for time in sorted(times[Kind.SHIPPED])[-1:]]
    if hold and hold.from_payment:
        kept = sorted(times[Kind.PAID])[-1:]
    waits = hold and times[Kind.PAID] and kept
    expected = min(kept) + timedelta(days=hold.days) if hold and waits else None
    assert books.confirm_time == expected
    looked = history.around.confirmed_through
    assert books.confirms_later == (expected is not None and (looked is None or looked < expected))


def what_is_held_becomes_payable_once(history: History) -> None:
    """Until it is confirmed all that is owed is held, from then on all is payable: at the end of any month.

    What came back before is then taken from what is held, and what comes back later from what is payable.
    """
    books = laws.books_of(history)
    hold = history.plan.holds.get(history.channel) if history.plan else None
    confirmed = books.confirm_time if not books.confirms_later else None
    end_of_all = (datetime(2028, 1, 1, tzinfo=UTC), date(2028, 1, 1))
    for ends, first_day in [*laws.months_of(history), end_of_all]:
        open_ = laws.owed_of(history.of([event for event in history.events if event.happened_time < ends]))
        held: Counter[tuple[str, str]] = Counter()
        for target, amount in books.targets.items():
            if target.account is Account.HELD and target.month < first_day:
                held[target.line_id, target.payee] -= amount
        is_held = hold is not None and (confirmed is None or confirmed >= ends)
        assert {key: amount for key, amount in held.items() if amount} == (open_ if is_held else {})


def who_waits_in_vain_is_looked_at(history: History) -> None:
    """Of a paid order nothing was sent or received, and something is held: from 60 days after payment on."""
    hold = history.plan.holds.get(history.channel) if history.plan else None
    kinds = {event.kind for event in history.events}
    paid = [event.happened_time for event in history.events if event.kind is Kind.PAID]
    waits = hold and not hold.from_payment and kinds.isdisjoint({Kind.SHIPPED, Kind.RECEIVED, Kind.CLOSED})
    expected = max(paid) + timedelta(days=60) if paid and waits and laws.owed_of(history) else None
    assert laws.books_of(history).stuck_time == expected


LAWS = (
    the_first_matching_rule_decides,
    shares_go_to_those_who_fill_the_roles,
    each_cost_is_borne_by_whom_the_plan_says,
    it_is_confirmed_when_the_hold_is_over,
    what_is_held_becomes_payable_once,
    who_waits_in_vain_is_looked_at,
)
"""Those that need nothing but a history."""
