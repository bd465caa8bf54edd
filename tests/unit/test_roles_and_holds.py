"""What a plan promises of an order: the rule that decides, who shares, who bears it, when it is payable."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules import hold as holds
from svc_commission.rules import order
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.event import Event, Kind, Line, RefundLine
from svc_commission.rules.line import LineBooks
from svc_commission.rules.order import Account, Books, Circumstances, Target
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
from svc_commission.rules.posting import PostingKind
from tests.strategies import LONG_AFTER, History, held_histories, paid_histories
from tests.unit import plan_laws as laws


@given(paid_histories())
def test_the_first_matching_rule_decides(history: History) -> None:
    """By line, by sale, by who the member is and by which of his purchases it is."""
    laws.the_first_matching_rule_decides(history)


@given(paid_histories())
def test_shares_go_to_those_who_fill_the_roles(history: History) -> None:
    """Whoever had a part in the sale is paid for it, for each part once."""
    laws.shares_go_to_those_who_fill_the_roles(history)


@given(paid_histories())
def test_each_cost_is_borne_by_whom_the_plan_says(history: History) -> None:
    """A franchised store that did not sell must find nothing on its bill."""
    laws.each_cost_is_borne_by_whom_the_plan_says(history)


@given(st.one_of(paid_histories(), held_histories()))
def test_it_is_confirmed_when_the_hold_is_over(history: History) -> None:
    """As early as one of the two tells that the goods are kept."""
    laws.it_is_confirmed_when_the_hold_is_over(history)


@given(st.one_of(paid_histories(), held_histories()))
def test_what_is_held_becomes_payable_once(history: History) -> None:
    """And what the customer sent back before is never paid out, whatever order the news came in."""
    laws.what_is_held_becomes_payable_once(history)


@given(paid_histories())
def test_who_waits_in_vain_is_looked_at(history: History) -> None:
    """Commission that nothing will ever confirm is somebody's wage."""
    laws.who_waits_in_vain_is_looked_at(history)


# Worked by hand. Ann owns the buyer and stands in East; the flagship sold; Cat served. Shanghai.

NOON: Final = datetime(2026, 3, 10, 4, tzinfo=UTC)
DAY: Final = timedelta(days=1)
MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
OWNER: Final = (Share(PayeeRole.OWNER, 10_000),)


def paid(paid_minor: int, *, quantity: int = 1, subsidy_minor: int = 0) -> Event:
    """One line, A, was paid at noon of 10 March."""
    line = Line("A", "sku-A", "shoes", quantity, paid_minor, paid_minor, subsidy_minor)
    return Event("PAID:1", Kind.PAID, NOON, lines=(line,))


def refund(number: int, days: float, refunded_minor: int, pieces: int = 0) -> Event:
    """So much was paid back for A, and so many pieces came back, some days after the payment."""
    back = (RefundLine("A", refunded_minor, pieces),)
    return Event(f"REFUND:{number}", Kind.REFUNDED, NOON + days * DAY, refund_lines=back)


def shipped(days: float, number: int = 1) -> Event:
    return Event(f"SHIPPED:{number}", Kind.SHIPPED, NOON + days * DAY)


def received(days: float) -> Event:
    return Event("RECEIVED", Kind.RECEIVED, NOON + days * DAY)


def sale(**more: Any) -> Attribution:
    """Whose sale the worked order is."""
    return Attribution(
        **{
            "member_id": "member",
            "binding_id": "member.1",
            "owner": "guide:ann",
            "owner_basis": OwnerBasis.BINDING,
            "selling_store_id": "flagship",
            "owner_store_id": "east",
            "flagship_store_id": "flagship",
            "as_of_time": NOON,
            "known_at_time": NOON,
            "plan_id": "plan",
            "time_zone": "Asia/Shanghai",
            "serving": "guide:cat",
            **more,
        }
    )


def books(
    *events: Event,
    rules: tuple[Rule, ...] = (),
    hold: Hold | None = None,
    around: Circumstances = order.NO_CIRCUMSTANCES,
    of: Attribution | None = None,
    **rule: Any,
) -> Books:
    """The books of the worked order: under these rules, or one of 10 % for the owner that differs so."""
    one = Rule(**{"rule_id": "one", "match": Match(), "rate_bp": 1000, "shares": OWNER, **rule})
    plan = Plan(
        "plan", datetime(2026, 1, 1, tzinfo=UTC), None, rules or (one,), {"TMALL": hold} if hold else {}
    )
    return order.fold(events, "TMALL", of or sale(), plan, around)


def line_of(*events: Event, **how: Any) -> LineBooks:
    [line] = books(*events, **how).lines
    return line


def parts(line: LineBooks) -> dict[str, int]:
    return {part.payee: part.earned_minor for part in line.parts}


def owed(found: Books, account: Account) -> int:
    """What stands on one account of debts, over all payees and months."""
    return -sum(amount for target, amount in found.targets.items() if target.account is account)


# ---- roles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        (Absent.KEEP, {"guide:ann": 166, "guide:cat": 100}),
        (Absent.OWNER, {"guide:ann": 233, "guide:cat": 100}),
        (Absent.STORE_POOL, {"guide:ann": 166, "guide:cat": 100, "pool:flagship": 67}),
    ],
)
def test_roles_of_50_30_and_20_share_3_33_when_nobody_referred(
    absent: Absent, expected: dict[str, int]
) -> None:
    """33.30 at 10 % earn 3.33: Ann owns (50 %), Cat served (30 %), and nobody shared a link (20 %).

    Kept: 80 % of 3.33 are 2.664, so 2.66; in fives and threes 1.6625 and 0.9975, so 1.66 and 1.00. To the
    owner: 70 % and 30 % of 3.33 are 2.331 and 0.999, so 2.33 and 1.00. To the pool of the store that sold:
    1.665, 0.999 and 0.666; each rounded they are a fen too many, which Ann's, the last given out, is.
    """
    split = (
        Share(PayeeRole.OWNER, 5000),
        Share(PayeeRole.SERVING, 3000),
        Share(PayeeRole.REFERRER_1, 2000, absent),
    )
    line = line_of(paid(3330), shares=split)
    assert parts(line) == expected
    assert line.distributable_minor == sum(expected.values())


def test_who_fills_two_roles_has_both_shares_once() -> None:
    """Ann owns the buyer and served him: 50 % and 30 % of 10.00. Nobody else has anything."""
    split = (Share(PayeeRole.OWNER, 5000), Share(PayeeRole.SERVING, 3000))
    line = line_of(paid(10_000), shares=split, of=sale(serving="guide:ann"))
    assert parts(line) == {"guide:ann": 800}
    assert line.parts[0].roles == (PayeeRole.OWNER, PayeeRole.SERVING)


def test_all_five_roles_are_paid_independently() -> None:
    """10.00 in 40, 20, 20, 10 and 10: Ann owns and manages East, Bea shared the link, Dot the one before."""
    shares = (4000, 2000, 2000, 1000, 1000)
    split = tuple(Share(role, share) for role, share in zip(PayeeRole, shares, strict=True))
    of = sale(referrer_1="guide:bea", referrer_2="guide:dot", store_manager="guide:ann")
    assert parts(line_of(paid(10_000), shares=split, of=of)) == {
        "guide:ann": 500,
        "guide:bea": 200,
        "guide:cat": 200,
        "guide:dot": 100,
    }


def test_a_line_all_of_whose_roles_nobody_fills_is_shared_out_to_nobody() -> None:
    """It earned 10.00 and the brand keeps them."""
    line = line_of(paid(10_000), shares=(Share(PayeeRole.REFERRER_2, 10_000),))
    assert (line.earned_minor, line.distributable_minor, line.parts) == (1000, 0, ())


# ---- what a line earns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "earned", "taken"),
    [({"cap_minor": 600}, 600, 300), ({"floor_minor": 1500}, 1500, 750), ({"cap_minor": 0}, 0, 0)],
    ids=["cap", "floor", "nothing"],
)
def test_cap_and_floor_are_of_what_was_sold_not_of_what_was_kept(
    bounds: dict[str, int], earned: int, taken: int
) -> None:
    """100.00 at 10 % earn 10.00: at most 6.00, or at least 15.00. Half of it back takes half of that back.

    Were the cap applied after the refund, 5.00 of 6.00 would stay; were the floor, all of 15.00.
    """
    line = line_of(paid(10_000), refund(1, 1, 5000, 1), **bounds)
    assert (line.earned_minor, line.reversed_minor) == (earned, taken)


def test_a_line_paid_0_earns_0() -> None:
    """A gift with a floor, by the piece, or paid for by the platform alone; nothing of it has come back."""
    gift = paid(0, quantity=3, subsidy_minor=2000)
    for how in ({"floor_minor": 100}, {"rate_bp": 0, "per_unit_minor": 50}, {"base": Base.PAID_PLUS_SUBSIDY}):
        line = line_of(gift, **how)
        assert (line.earned_minor, line.returned) == (0, 0), how


@pytest.mark.parametrize(("base", "earned"), [(Base.PAID, 800), (Base.PAID_PLUS_SUBSIDY, 1000)])
def test_what_the_platform_pays_counts_where_the_plan_says_so(base: Base, earned: int) -> None:
    """80.00 of the customer and 20.00 of the platform at 10 %. Half of his 80.00 back takes half back."""
    line = line_of(paid(8000, subsidy_minor=2000), refund(1, 1, 4000), base=base)
    assert (line.earned_minor, line.reversed_minor) == (earned, earned // 2)


@pytest.mark.parametrize(
    ("refunds", "returned", "taken"),
    [
        ([refund(1, 1, 1, 1)], 1, 50),
        ([refund(1, 1, 2999, 0)], 0, 0),
        ([refund(1, 1, 500, 1), refund(2, 2, 500, 1)], 2, 100),
        ([refund(1, 1, 500, 9)], 3, 150),
        ([refund(1, 1, 3000, 0)], 3, 150),
        ([Event("CLOSED", Kind.CLOSED, NOON + DAY)], 3, 150),
    ],
    ids=["one piece", "money alone", "two pieces", "more than were sold", "all the money", "cancelled"],
)
def test_commission_by_the_piece_goes_back_by_the_piece(
    refunds: list[Event], returned: int, taken: int
) -> None:
    """Three pieces for 30.00 earn 0.50 each. What was paid back for a piece matters only when it is all."""
    line = line_of(paid(3000, quantity=3), *refunds, rate_bp=0, per_unit_minor=50)
    assert (line.earned_minor, line.returned, line.reversed_minor) == (150, returned, taken)


def test_pieces_that_do_not_divide_evenly_still_come_out_even() -> None:
    """Three pieces capped at 1.00: 0.33, 0.67, 1.00 have gone back after each."""
    refunds = [refund(number, number, 100, 1) for number in (1, 2, 3)]
    taken = [
        line_of(
            paid(3000, quantity=3), *refunds[:count], rate_bp=0, per_unit_minor=50, cap_minor=100
        ).reversed_minor
        for count in range(4)
    ]
    assert taken == [0, 33, 67, 100]


# ---- which rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "earned"), [("gold", 500), ("bronze", 300), ("", 300)])
def test_a_members_tier_when_he_ordered_decides(tier: str, earned: int) -> None:
    """100.00: 5 % for gold and platinum, 3 % for everybody else."""
    gold = Rule("gold", Match(member_tiers=frozenset({"gold", "platinum"})), 500, OWNER)
    rest = Rule("rest", Match(), 300, OWNER)
    assert line_of(paid(10_000), rules=(gold, rest), of=sale(member_tier=tier)).earned_minor == earned


@pytest.mark.parametrize(("campaign", "earned"), [("spring", 700), ("autumn", 0), ("", 0)])
def test_a_campaign_decides(campaign: str, earned: int) -> None:
    """7 % for what the spring campaign brought, and nothing else is decided."""
    spring = Rule("spring", Match(campaign_ids=frozenset({"spring"})), 700, OWNER)
    assert line_of(paid(10_000), rules=(spring,), of=sale(campaign_id=campaign)).earned_minor == earned


def test_a_purchase_that_turns_out_not_to_be_the_first_gives_the_difference_back() -> None:
    """100.00 earn 10 % as a first purchase, 10.00. An earlier one becomes known: 2 % remain, 8.00 go back.

    They go back in the month of the sale.
    """
    first = Rule("first", Match(purchase=Purchase.FIRST), 1000, OWNER)
    repeat = Rule("repeat", Match(purchase=Purchase.REPEAT), 200, OWNER)
    as_first = books(paid(10_000), rules=(first, repeat), around=Circumstances(first_purchase=True))
    displaced = books(paid(10_000), rules=(first, repeat))
    assert (owed(as_first, Account.PAYABLE), owed(displaced, Account.PAYABLE)) == (1000, 200)
    assert order.differences(displaced.targets, as_first.targets) == {
        Target("A", Account.EXPENSE, "", MARCH, PostingKind.EARNED): -800,
        Target("A", Account.PAYABLE, "guide:ann", MARCH, PostingKind.EARNED): 800,
    }


# ---- who bears it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bearer", "binding_store", "expected"),
    [
        (CostBearer.BRAND, "east", ""),
        (CostBearer.SELLING_STORE, "east", "store:flagship"),
        (CostBearer.RECRUITING_STORE, "east", "store:east"),
        (CostBearer.RECRUITING_STORE, "", "store:flagship"),
    ],
)
def test_the_cost_is_the_brands_the_sellers_or_the_recruiters(
    bearer: CostBearer, binding_store: str, expected: str
) -> None:
    """Who had no binding was recruited by nobody: then the store that sold bears it."""
    found = books(paid(10_000), cost_bearer=bearer, of=sale(owner_store_id=binding_store))
    assert found.targets == {
        Target("A", Account.EXPENSE, expected, MARCH, PostingKind.EARNED): 1000,
        Target("A", Account.PAYABLE, "guide:ann", MARCH, PostingKind.EARNED): -1000,
    }


# ---- holds ------------------------------------------------------------------------------------------

WEEK: Final = Hold(7)
LOOKED: Final = Circumstances(confirmed_through=LONG_AFTER)


@pytest.mark.parametrize(
    ("hold", "events", "days"),
    [
        (WEEK, [received(10)], 17),
        (WEEK, [shipped(1)], 23),
        (WEEK, [shipped(1), received(10)], 17),
        (WEEK, [shipped(1), received(20)], 23),
        (WEEK, [shipped(1), shipped(3, 2)], 25),
        (WEEK, [], None),
        (Hold(0), [received(10)], 10),
        (Hold(7, from_payment=True), [], 7),
        (Hold(7, from_payment=True), [shipped(1), received(2)], 7),
    ],
    ids=[
        "received",
        "sent",
        "received early",
        "received late",
        "two parcels",
        "no news",
        "no days",
        "paid",
        "paid alone",
    ],
)
def test_it_is_payable_at_the_earlier_of_two_times(
    hold: Hold, events: list[Event], days: float | None
) -> None:
    """7 days after receipt, or 15 and 7 after the last parcel; at a till, 7 after payment."""
    expected = None if days is None else NOON + days * DAY
    assert holds.confirm_time([paid(100), *events], hold) == expected
    assert holds.confirm_time(events, hold) is None, "before anything was paid"


def test_nothing_is_payable_before_somebody_has_looked() -> None:
    """Received on 20 March, payable on the 27th at noon: looked a millisecond before, it is still held."""
    events, noon = [paid(10_000), received(10)], NOON + 17 * DAY
    for looked, held in [(None, 1000), (noon - timedelta(milliseconds=1), 1000), (noon, 0), (noon + DAY, 0)]:
        found = books(*events, hold=WEEK, around=Circumstances(confirmed_through=looked))
        assert (owed(found, Account.HELD), owed(found, Account.PAYABLE)) == (held, 1000 - held)
        assert found.confirms_later is (held > 0)
        assert found.confirm_time == noon


def test_a_refund_takes_from_what_is_held_before_the_confirmation_and_from_what_is_payable_after() -> None:
    """10.00 held in March. 40.00 refunded on 25 March take 4.00 of them, and 6.00 become payable on the 27th.

    20.00 refunded on 9 April take 2.00 of what is payable: 4.00 remain.
    """
    events = [paid(10_000), received(10), refund(1, 15, 4000), refund(2, 30, 2000)]
    found = books(*events, hold=WEEK, around=LOOKED)
    earned, back, confirmed = PostingKind.EARNED, PostingKind.CLAWED_BACK, PostingKind.CONFIRMED
    in_march = {
        Target("A", Account.EXPENSE, "", MARCH, earned): 1000,
        Target("A", Account.HELD, "guide:ann", MARCH, earned): -1000,
        Target("A", Account.EXPENSE, "", MARCH, back): -400,
        Target("A", Account.HELD, "guide:ann", MARCH, back): 400,
    }
    assert found.targets == {
        **in_march,
        Target("A", Account.HELD, "guide:ann", MARCH, confirmed): 600,
        Target("A", Account.PAYABLE, "guide:ann", MARCH, confirmed): -600,
        Target("A", Account.EXPENSE, "", APRIL, back): -200,
        Target("A", Account.PAYABLE, "guide:ann", APRIL, back): 200,
    }
    held = books(*events, hold=WEEK)
    assert held.targets == {
        **in_march,
        Target("A", Account.EXPENSE, "", APRIL, back): -200,
        Target("A", Account.HELD, "guide:ann", APRIL, back): 200,
    }


@pytest.mark.parametrize(("early", "month"), [(timedelta(0), APRIL), (timedelta(milliseconds=1), MARCH)])
def test_it_is_payable_in_the_business_month_of_its_confirmation(early: timedelta, month: date) -> None:
    """31 March at 16:00 UTC it is April in Shanghai; whenever it was looked."""
    home = Event("RECEIVED", Kind.RECEIVED, datetime(2026, 3, 24, 16, tzinfo=UTC) - early)
    found = books(paid(10_000), home, hold=WEEK, around=LOOKED)
    [payable] = [target for target in found.targets if target.account is Account.PAYABLE]
    assert payable.month == month


def test_a_parcel_sent_after_the_confirmation_holds_it_again() -> None:
    """One parcel on 11 March, payable on 2 April; then a second is known of 3 April, payable on the 25th."""
    looked = Circumstances(confirmed_through=datetime(2026, 4, 5, tzinfo=UTC))
    once = books(paid(10_000), shipped(1), hold=WEEK, around=looked)
    assert owed(once, Account.PAYABLE) == 1000
    again = books(paid(10_000), shipped(1), shipped(24, 2), hold=WEEK, around=looked)
    assert (owed(again, Account.HELD), owed(again, Account.PAYABLE)) == (1000, 0)
    assert again.confirms_later


def test_what_is_paid_after_the_goods_were_kept_is_payable_at_once() -> None:
    """Received, kept for a week, and then the rest of the price was paid."""
    rest = Event("PAID:2", Kind.PAID, NOON + 20 * DAY, lines=paid(5000).lines)
    found = books(paid(10_000), received(1), rest, hold=WEEK, around=LOOKED)
    assert (owed(found, Account.HELD), owed(found, Account.PAYABLE)) == (0, 1500)


def test_on_a_channel_without_a_hold_it_is_payable_at_once() -> None:
    """And nobody need ever look."""
    found = books(paid(10_000), received(1))
    assert (owed(found, Account.HELD), owed(found, Account.PAYABLE)) == (0, 1000)
    assert (found.confirm_time, found.confirms_later, found.stuck_time) == (None, False, None)


def test_an_order_of_which_nothing_was_heard_for_60_days_is_stuck() -> None:
    """Unless it was sent, received, cancelled or refunded; or the channel would not say."""
    closed = Event("CLOSED", Kind.CLOSED, NOON + DAY)
    rest = Event("PAID:2", Kind.PAID, NOON + 5 * DAY, lines=paid(5000).lines)
    assert books(paid(10_000), hold=WEEK).stuck_time == NOON + 60 * DAY
    assert books(paid(10_000), rest, hold=WEEK).stuck_time == NOON + 65 * DAY
    for news in (shipped(1), received(1), closed, refund(1, 1, 10_000)):
        assert books(paid(10_000), news, hold=WEEK).stuck_time is None, news.event_id
    assert books(paid(10_000), hold=Hold(7, from_payment=True)).stuck_time is None
