"""Adjustments, payouts and their entries: who may decide, who is paid, and what never fails to balance."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_commission.payout.entries import Amount, entry_document, entry_id
from svc_commission.rules.adjustment import AdjustmentState, check_decidable
from svc_commission.rules.order import Account
from svc_commission.rules.payout import Refusal, check_payable, judged
from svc_commission.rules.posting import PostingKind

BRAND = "a" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)


def test_only_another_person_decides_and_only_once() -> None:
    check_decidable(AdjustmentState.PROPOSED, "ann", "bob")
    for state, decider, reason in (
        (AdjustmentState.PROPOSED, "ann", "SAME_PERSON"),
        (AdjustmentState.APPROVED, "bob", "ADJUSTMENT_DECIDED"),
        (AdjustmentState.REJECTED, "ann", "ADJUSTMENT_DECIDED"),
    ):
        with pytest.raises(Refused) as refused:
            check_decidable(state, "ann", decider)
        assert refused.value.reason == reason


def test_statements_are_paid_while_theirs_is_the_last_closed_month() -> None:
    check_payable(closed=True, carried_on=False)
    for closed, carried_on, reason in (
        (False, False, "MONTH_NOT_CLOSED"),
        (False, True, "MONTH_NOT_CLOSED"),
        (True, True, "MONTH_CARRIED_ON"),
    ):
        with pytest.raises(Refused) as refused:
            check_payable(closed=closed, carried_on=carried_on)
        assert refused.value.reason == reason


def test_a_batch_says_of_everybody_whom_it_does_not_pay_why() -> None:
    """Whom it has paid before a crash it has paid."""
    guides = ["has none", "owes", "new", "mine", "another's"]
    stated, payable = guides[1:], {"new": 5, "mine": 6, "another's": 7}
    paid_by = {"mine": "run", "another's": "before"}
    refused = judged(guides, stated, payable, paid_by, "run", is_open=True)
    expected = {
        "has none": Refusal.NO_STATEMENT,
        "owes": Refusal.NOTHING_PAYABLE,
        "another's": Refusal.ALREADY_PAID,
    }
    assert refused == expected
    late = judged(guides, stated, payable, paid_by, "run", is_open=False)
    assert late == {**expected, "new": Refusal.CARRIED_ON}


def entry(*amounts: Amount) -> dict[str, object]:
    return entry_document(
        entry_id(BRAND, PostingKind.ADJUSTED, "one"),
        "ADJUSTMENT:one",
        PostingKind.ADJUSTED,
        amounts,
        brand_id=BRAND,
        currency_code="CNY",
        posting_month=APRIL,
        origin_month=MARCH,
        now=NOON,
    )


def test_an_entry_says_what_it_is_for_and_where_it_belongs() -> None:
    """Its id is the same in whatever month it is posted, so that it is posted once."""
    made = entry(
        Amount(Account.PAYABLE, "guide:ann", -7), Amount(Account.HELD, "x", 0), Amount(Account.EXPENSE, "", 7)
    )
    assert made["_id"] == f"{BRAND}|ADJUSTED|one"
    assert (made["posting_month"], made["cause"]) == ("2026-04", "ADJUSTMENT:one")
    postings = made["postings"]
    assert isinstance(postings, list)
    assert [(one["account"], one["payee"], one["amount_minor"]) for one in postings] == [
        ("PAYABLE", "guide:ann", -7),
        ("EXPENSE", "", 7),
    ]
    assert {(one["kind"], one["origin_month"]) for one in postings} == {("ADJUSTED", "2026-03")}


@given(st.lists(st.integers(-3, 3), max_size=4))
def test_no_entry_is_made_that_does_not_balance(minors: list[int]) -> None:
    """Or that posts nothing at all."""
    amounts = [Amount(Account.PAYABLE, "guide:ann", minor) for minor in minors]
    if sum(minors) or not any(minors):
        with pytest.raises(ValueError, match="sum to zero"):
            entry(*amounts)
    else:
        postings = entry(*amounts)["postings"]
        assert isinstance(postings, list)
        assert [one["amount_minor"] for one in postings] == [minor for minor in minors if minor]
