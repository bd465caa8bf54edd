"""Statements: a month's postings, none left out, none counted twice; and amounts as people read them."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_commission.rules.currency import major_text, minor_digits
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import Statement, statement_of
from tests.unit.statement_months import GUIDE, NOVEMBER, Posting, amounts, months, stated

Postings = list[Posting]


@given(months)
def test_a_statement_adds_up_whatever_the_month_brought(postings: Postings) -> None:
    """In sum and on each account: the opening and what each kind changed come to the closing."""
    before = stated(
        [(Account.PAYABLE, PostingKind.OPENING_BALANCE, -700), (Account.HELD, PostingKind.EARNED, -50)]
    )
    month = stated(postings, before)
    assert month.problems() == []
    assert month.opening_held_minor + sum(month.on(Account.HELD).values()) == month.closing_held_minor
    assert (
        month.opening_payable_minor + sum(month.on(Account.PAYABLE).values()) == month.closing_payable_minor
    )


@given(st.lists(months, min_size=1, max_size=5))
def test_months_in_a_row_owe_what_all_their_postings_owe(history: list[Postings]) -> None:
    """What closes one month opens the next, so that nothing is owed that the ledger does not owe."""
    last: Statement | None = None
    for postings in history:
        month = stated(postings, last)
        assert last is None or month.opening_minor() == last.closing_minor()
        last = month
    assert last is not None
    for account, closing in (
        (Account.HELD, last.closing_held_minor),
        (Account.PAYABLE, last.closing_payable_minor),
    ):
        assert closing == -sum(amount for month in history for on, _, amount in month if on is account)


@given(months, amounts.filter(bool))
def test_an_amount_that_was_altered_is_found_out(postings: Postings, more_minor: int) -> None:
    """Whichever it is: a statement that a fault or a hand has changed is not paid from."""
    month = stated(postings)
    altered = [field.name for field in fields(month) if field.type == "int" and field.name.endswith("_minor")]
    assert len(altered) == 12
    for name in altered:
        assert replace(month, **{name: getattr(month, name) + more_minor}).problems(), name
    held = {**month.held_minor, PostingKind.EARNED: month.held_minor.get(PostingKind.EARNED, 0) + more_minor}
    assert replace(month, held_minor=held).problems()


@given(months, amounts.filter(bool))
def test_half_a_confirmation_is_found_out(postings: Postings, amount: int) -> None:
    """What left HELD and arrived nowhere, or arrived in PAYABLE from nowhere, is money lost or made."""
    for account in (Account.HELD, Account.PAYABLE):
        assert stated([*postings, (account, PostingKind.CONFIRMED, amount)]).problems()


def test_amounts_are_the_payees() -> None:
    """She earned 10.00 held and 3.00 payable, 2.00 went back, 5.00 was confirmed, 1.00 paid to her."""
    month = stated(
        [
            *((Account.HELD, PostingKind.EARNED, -1000), (Account.PAYABLE, PostingKind.EARNED, -300)),
            (Account.HELD, PostingKind.CLAWED_BACK, 200),
            *((Account.HELD, PostingKind.CONFIRMED, 500), (Account.PAYABLE, PostingKind.CONFIRMED, -500)),
            (Account.PAYABLE, PostingKind.PAID_OUT, 100),
        ]
    )
    assert (month.earned_minor, month.clawed_back_minor, month.confirmed_minor) == (1300, -200, 500)
    assert (month.paid_out_minor, month.closing_held_minor, month.closing_payable_minor) == (-100, 300, 700)
    assert month.on(Account.HELD)[PostingKind.CONFIRMED] == -500
    assert month.on(Account.PAYABLE)[PostingKind.EARNED] == 300


def test_money_that_is_held_is_not_paid_out() -> None:
    """It may still be clawed back."""
    assert stated([(Account.HELD, PostingKind.PAID_OUT, 5)]).problems() == ["was paid out of what is held"]


def test_a_month_begins_on_its_first_day() -> None:
    """Else two statements could be of one month."""
    assert replace(stated([]), month=date(2026, 11, 2)).problems()


def test_an_expense_is_on_nobodys_statement() -> None:
    """It is borne, not owed."""
    with pytest.raises(ValueError, match="EXPENSE"):
        stated([(Account.EXPENSE, PostingKind.EARNED, 5)])


def test_a_statement_follows_an_earlier_one_of_the_same_payee() -> None:
    """Her opening is her own closing, in the same money, once."""
    november = stated([])
    strangers = [
        stated([], payee="guide:somebodyelse2345"),
        stated([], currency_code="USD"),
        november,
        stated([], november),
    ]
    for previous in strangers:
        with pytest.raises(ValueError, match="does not come before"):
            statement_of(
                previous,
                {},
                brand_id="aaaabbbbccccdddd",
                statement_number="2026-11-000043",
                payee=GUIDE,
                month=NOVEMBER,
                currency_code="CNY",
                entry_count=0,
            )


@given(st.integers(-(10**18), 10**18), st.sampled_from(["CNY", "JPY", "KWD", "CLF"]), st.booleans())
def test_an_amount_is_written_exactly(amount_minor: int, currency_code: str, grouped: bool) -> None:
    """No digit is lost, however large: it is read back as what it was."""
    text = major_text(amount_minor, currency_code, grouped=grouped)
    digits = minor_digits(currency_code)
    assert Decimal(text.replace(",", "")).scaleb(digits) == amount_minor
    assert len(text.partition(".")[2]) == digits


@pytest.mark.parametrize(
    ("amount_minor", "currency_code", "read"),
    [
        *((-123456, "CNY", "-1,234.56"), (5, "CNY", "0.05"), (0, "CNY", "0.00")),
        *((-1234, "JPY", "-1,234"), (1234, "KWD", "1.234")),
    ],
)
def test_an_amount_is_written_as_its_currency_is(amount_minor: int, currency_code: str, read: str) -> None:
    """Fen are two digits, yen have none, fils are three."""
    assert major_text(amount_minor, currency_code, grouped=True) == read
