"""Tiers and months: laws over random histories, worked figures, and planted faults that the laws find."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_commission.order import documents
from svc_commission.rules import line as line_rules
from svc_commission.rules import month as months
from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, Guide, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.line import MonthSales
from svc_commission.rules.order import Account, Books, Circumstances
from svc_commission.rules.plan import (
    AfterClose,
    Base,
    Match,
    PayeeRole,
    Plan,
    PoolSharing,
    Rule,
    Share,
    Tier,
    TierMode,
    Tiers,
    problems,
)
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.sharing import StoreStaff, pool_shares, staff_at, written_off
from tests.strategies import History, arrivals, tiered_histories
from tests.unit import order_laws, tier_laws

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


# ---- laws -------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(tiered_histories())
def test_books_under_tiers_obey_every_law(history: History) -> None:
    """Every law of orders holds under tiers too, and those of tiers themselves."""
    for law in (*tier_laws.LAWS, *order_laws.LAWS):
        law(history)


@settings(max_examples=150)
@given(st.data(), tiered_histories())
def test_closes_change_when_it_is_posted_and_nothing_else(data: st.DataObject, history: History) -> None:
    tier_laws.closes_change_when_it_is_posted_and_nothing_else(history, data.draw(arrivals(history.events)))


# ---- worked figures ---------------------------------------------------------------------------------

SALE = Attribution(
    member_id="member",
    binding_id="member.1",
    owner="guide:ann",
    owner_basis=OwnerBasis.BINDING,
    selling_store_id="east",
    owner_store_id="east",
    flagship_store_id="",
    as_of_time=NOON,
    known_at_time=NOON,
    plan_id="plan",
    time_zone="Asia/Shanghai",
)


def tiered(*steps: tuple[int, int], rate_bp: int = 300, **more: Any) -> Rule:
    tiers = Tiers(tuple(Tier(begin, rate) for begin, rate in steps), **more)
    return Rule("tiered", Match(), rate_bp, (Share(PayeeRole.OWNER, 10_000),), tiers=tiers)


def books(*events: Event, rule: Rule, sales: dict[date, MonthSales] | None = None) -> Books:
    plan = Plan("plan", NOON - timedelta(days=60), None, (rule,))
    return order.fold(events, "POS", SALE, plan, Circumstances(sales=sales or {}))


def paid(number: int = 1, days: int = 0, **lines: int) -> Event:
    listed = tuple(Line(line_id, line_id, "", 1, amount, amount) for line_id, amount in lines.items())
    return Event(f"PAID:{number}", Kind.PAID, NOON + timedelta(days=days), lines=listed)


def refund(number: int, days: int, **lines: int) -> Event:
    back = tuple(RefundLine(line_id, amount, 1) for line_id, amount in lines.items())
    return Event(f"REFUND:{number}", Kind.REFUNDED, NOON + timedelta(days=days), refund_lines=back)


def sold(amount: int, latest: int | None = None) -> MonthSales:
    return MonthSales(amount, amount if latest is None else latest)


def owed(found: Books, month: date | None = None, *, kind: PostingKind | None = None) -> int:
    return -sum(
        amount
        for target, amount in found.targets.items()
        if target.account is not Account.EXPENSE
        and (month is None or target.month == month)
        and (kind is None or target.kind is kind)
    )


def test_a_full_refund_in_the_next_month_takes_the_tier_back_too() -> None:
    """10,000.00 at 3 % are 300.00; by the tier of 5 % 500.00; refunded in April: 500.00 back, not 300.00."""
    rule = tiered((1, 500), mode=TierMode.WHOLE)
    found = books(paid(A=1_000_000), refund(1, 30, A=1_000_000), rule=rule, sales={MARCH: sold(1_000_000)})
    assert (owed(found, MARCH), owed(found, APRIL)) == (50_000, -50_000)


def test_a_tier_that_is_reached_within_an_order_rates_all_of_it_alike() -> None:
    """Two lines of 600.00, 3 % up to 1,000.00, 10 % beyond, MARGINAL: T = 30.00 + 20.00 of S = 1,200.00.

    Each line earns 600.00 × 50.00 ÷ 1,200.00 = 25.00: 7.00 more than its 18.00.
    """
    found = books(paid(A=60_000, B=60_000), rule=tiered((100_000, 1000)), sales={MARCH: sold(120_000)})
    assert [line.earned_minor for line in found.lines] == [2500, 2500]
    before = books(paid(A=60_000, B=60_000), rule=tiered((100_000, 1000)))
    assert sorted(order.differences(found.targets, before.targets).values()) == [-700, -700, 700, 700]


def test_whole_jumps_where_marginal_bends() -> None:
    """Sales of 1,000.00 exactly, 3 % and 10 % from 1,000.00 on: WHOLE earns 100.00, MARGINAL 30.00."""
    for mode, earned in ((TierMode.WHOLE, 10_000), (TierMode.MARGINAL, 3000)):
        found = books(paid(A=100_000), rule=tiered((100_000, 1000), mode=mode), sales={MARCH: sold(100_000)})
        assert owed(found) == earned


def test_thirds_of_a_fen_are_rounded_line_by_line() -> None:
    """Three lines of 0.10, S = 0.30, T = 0.01: each earns 0.0033, which is 0, and nothing is made up."""
    rule = tiered((1, 333), rate_bp=0, mode=TierMode.WHOLE)
    assert owed(books(paid(A=10, B=10, C=10), rule=rule, sales={MARCH: sold(30)})) == 0


def test_a_part_refund_within_the_month_lowers_what_the_tier_sees() -> None:
    """1,000.00 paid, 400.00 of it back in the month: S = 600.00, below the tier of 700.00: 3 %, 18.00."""
    events = paid(A=100_000), refund(1, 1, A=40_000)
    rule = tiered((70_000, 1000), mode=TierMode.WHOLE)
    [sales] = books(*events, rule=rule).owner_sales.values()
    assert sales == 60_000
    assert owed(books(*events, rule=rule, sales={MARCH: sold(sales)})) == 1800


def test_a_presale_earns_by_the_month_of_each_payment() -> None:
    """100.00 in March at the tier's 10 %, 900.00 in April at 3 %: 10.00 and 27.00."""
    events = paid(1, A=10_000), paid(2, days=30, A=90_000)
    rule = tiered((1, 1000), mode=TierMode.WHOLE)
    found = books(*events, rule=rule, sales={MARCH: sold(10_000)})
    assert (owed(found, MARCH), owed(found, APRIL)) == (1000, 2700)


@pytest.mark.parametrize(("after_close", "earned"), [(AfterClose.FROZEN, 300), (AfterClose.RERATE, 1000)])
def test_later_sales_count_only_where_the_plan_rates_again(after_close: AfterClose, earned: int) -> None:
    """100.00 sold at the close, 900.00 more known later; 10 % from 500.00 on."""
    rule = tiered((50_000, 1000), mode=TierMode.WHOLE, after_close=after_close)
    found = books(paid(A=10_000), rule=rule, sales={MARCH: sold(10_000, 100_000)})
    assert owed(found) == earned


def test_an_owner_who_sold_nothing_keeps_the_rules_rate() -> None:
    """All of the month was refunded within it: S = 0, and nothing is divided by it."""
    found = books(paid(A=10_000), rule=tiered((1, 1000)), sales={MARCH: sold(0)})
    assert owed(found) == 300


def test_tiers_ascend_and_come_with_a_rate_of_what_was_paid() -> None:
    """Each mistake by its field."""
    rule = tiered((100, 500), (100, 700))
    wrong = Rule(
        "per piece",
        Match(),
        0,
        (Share(PayeeRole.OWNER, 10_000),),
        per_unit_minor=5,
        tiers=Tiers((Tier(1, 1),)),
    )
    subsidised = Rule(
        "subsidy",
        Match(),
        5,
        (Share(PayeeRole.OWNER, 10_000),),
        base=Base.PAID_PLUS_SUBSIDY,
        tiers=Tiers((Tier(1, 1),)),
    )
    plan = Plan("plan", NOON, None, (rule, wrong, subsidised))
    assert [one.field for one in problems(plan)] == [
        "rules[0].tiers.tiers[1].from_minor",
        "rules[1].tiers",
        "rules[2].tiers",
    ]


# ---- months -----------------------------------------------------------------------------------------


def test_a_month_ends_at_local_midnight() -> None:
    """In Shanghai eight hours before UTC's; in New York by summer time or winter time, as it is then."""
    assert months.month_end(MARCH, SHANGHAI) == datetime(2026, 3, 31, 16, tzinfo=UTC)
    new_york = ZoneInfo("America/New_York")
    assert months.month_end(MARCH, new_york) == datetime(2026, 4, 1, 4, tzinfo=UTC)
    assert months.month_end(date(2026, 12, 1), new_york) == datetime(2027, 1, 1, 5, tzinfo=UTC)


@given(st.integers(0, 15 * 366 * 86_400))
def test_every_moment_is_before_the_end_of_its_month_and_not_before_that_of_the_one_before(
    seconds: int,
) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    for zone in (SHANGHAI, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")):
        month = months.month_of(moment, zone)
        before = (month - timedelta(days=1)).replace(day=1)
        assert months.month_end(before, zone) <= moment < months.month_end(month, zone)


def test_months_are_closed_in_order_from_the_first_with_entries() -> None:
    """Not before they are over, not twice, none left out."""
    over = datetime(2026, 6, 1, tzinfo=UTC)
    months.check_closable(MARCH, None, MARCH, over, SHANGHAI)
    months.check_closable(MARCH, None, None, over, SHANGHAI)
    months.check_closable(APRIL, APRIL, MARCH, over, SHANGHAI)
    for month, first_open, earliest, now, reason in (
        (APRIL, None, MARCH, over, "MONTH_NOT_NEXT"),
        (MARCH, APRIL, MARCH, over, "MONTH_NOT_NEXT"),
        (MARCH, None, MARCH, datetime(2026, 3, 31, 15, 59, tzinfo=UTC), "MONTH_NOT_OVER"),
    ):
        with pytest.raises(Refused) as refused:
            months.check_closable(month, first_open, earliest, now, SHANGHAI)
        assert refused.value.reason == reason


# ---- pools and leavers ------------------------------------------------------------------------------


@given(
    st.integers(-(10**6), 10**9),
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20_000)),
    st.sampled_from([*PoolSharing]),
)
def test_a_pool_is_shared_out_whole_or_not_at_all(
    payable: int, guides: list[str], minutes: dict[str, int], sharing: PoolSharing
) -> None:
    """Equal parts differ by one fen at most; a debt is never shared."""
    shares = pool_shares(payable, StoreStaff(guides, minutes), sharing)
    assert sum(shares.values()) in (0, payable)
    assert bool(shares) == (
        payable > 0
        and (
            (sharing is PoolSharing.EQUALLY and bool(guides))
            or (sharing is PoolSharing.BY_HOURS and any(minutes.values()))
        )
    )
    if shares and sharing is PoolSharing.EQUALLY:
        parts = [shares.get(f"guide:{guide}", 0) for guide in guides]
        assert max(parts) - min(parts) <= 1


def test_who_stands_at_a_store_at_a_moment() -> None:
    """Ann moved to the west before it, Bea has left, Cat begins with it, Dan leaves with it."""
    moment = NOON
    earlier, later = NOON - timedelta(days=5), NOON + timedelta(days=5)
    guides = {
        "ann": Guide(((earlier, "east"), (earlier + timedelta(days=1), "west"), (later, "north")), None),
        "bea": Guide(((earlier, "east"),), NOON - timedelta(days=1)),
        "cat": Guide(((moment, "east"),), None),
        "dan": Guide(((earlier, "east"),), moment),
    }
    assert staff_at(guides, moment) == {"west": ["ann"], "east": ["dan"]}


def test_a_debt_is_written_off_beyond_what_is_held() -> None:
    """3.00 owed by her, 1.00 of hers still held: 2.00."""
    assert [written_off(-300, 100), written_off(-300, 0), written_off(-300, 300), written_off(5, 0)] == [
        200,
        300,
        0,
        0,
    ]


# ---- planted faults ---------------------------------------------------------------------------------

total = Tiers.total
owner_sales = order._Fold.owner_sales


def _marginal_is_whole(self: Tiers, sales_minor: int, base_rate_bp: int) -> int:
    return total(Tiers(self.tiers, TierMode.WHOLE), sales_minor, base_rate_bp)


def _reached_one_later(self: Tiers, sales_minor: int, base_rate_bp: int) -> int:
    return total(self, max(0, sales_minor - 1), base_rate_bp)


def _always_the_latest(self: MonthSales, rule: Rule) -> int:
    return self.latest_minor


def _rated_untouched_by_cap(rule: Rule, earned: int) -> int:
    return max(earned, rule.floor_minor)


def _posted_where_it_belongs(origin: date, first_open: date | None) -> date:
    return origin


def _gross(self: order._Fold) -> dict[date, int]:
    self._back = Counter()
    return owner_sales(self)


def _never_rated(self: order._Fold, month: date, sales: MonthSales) -> None:
    pass


FAULTS: dict[str, tuple[object, str, object]] = {
    "the last tier's rate for all": (Tiers, "total", _marginal_is_whole),
    "a tier begins a fen later": (Tiers, "total", _reached_one_later),
    "frozen sales rated again": (MonthSales, "for_rule", _always_the_latest),
    "caps ignored by tiers": (line_rules, "_within", _rated_untouched_by_cap),
    "posted in a closed month": (documents, "posting_month", _posted_where_it_belongs),
    "sales before refunds": (order._Fold, "owner_sales", _gross),
    "tiers forgotten at the close": (order._Fold, "month_closed", _never_rated),
}


@pytest.fixture(scope="module")
def fixed_histories() -> list[tuple[History, list[list[Event]]]]:
    """The same on every run."""
    found: list[tuple[History, list[list[Event]]]] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=250,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), tiered_histories())
    def collect(data: st.DataObject, history: History) -> None:
        found.append((history, data.draw(arrivals(history.events))))

    collect()
    return found


def broken_law(histories: list[tuple[History, list[list[Event]]]]) -> str | None:
    """The first law for which there is a counterexample."""
    for history, arriving in histories:
        for law in tier_laws.LAWS:
            try:
                law(history)
            except AssertionError:
                return law.__name__
        try:
            tier_laws.closes_change_when_it_is_posted_and_nothing_else(history, arriving)
        except AssertionError:
            return "closes_change_when_it_is_posted_and_nothing_else"
    return None


def test_no_law_is_broken_without_a_fault(fixed_histories: list[tuple[History, list[list[Event]]]]) -> None:
    assert broken_law(fixed_histories) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str,
    fixed_histories: list[tuple[History, list[list[Event]]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    assert broken_law(fixed_histories) is not None, f"nobody notices: {fault}"
