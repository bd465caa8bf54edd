"""Months of postings, and the statements that they come to, for tests of statements and their documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Final

from hypothesis import strategies as st

from svc_commission.rules.month import next_month
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.statement import Statement, statement_of

GUIDE: Final = "guide:mfrggzdfmztwq2lk"
NOVEMBER: Final = date(2026, 11, 1)

Posting = tuple[Account, PostingKind, int]
amounts = st.integers(-(10**12), 10**12)
_on_either = st.tuples(
    st.sampled_from([Account.HELD, Account.PAYABLE]),
    st.sampled_from(
        [kind for kind in PostingKind if kind not in {PostingKind.CONFIRMED, PostingKind.PAID_OUT}]
    ),
    amounts,
).map(lambda posting: [posting])
_paid_out = amounts.map(lambda amount: [(Account.PAYABLE, PostingKind.PAID_OUT, amount)])
_confirmed = amounts.map(
    lambda amount: [
        (Account.HELD, PostingKind.CONFIRMED, amount),
        (Account.PAYABLE, PostingKind.CONFIRMED, -amount),
    ]
)
months = st.lists(st.one_of(_on_either, _paid_out, _confirmed), max_size=12).map(
    lambda entries: [posting for entry in entries for posting in entry]
)
"""The postings of a payee's month, as the ledger signs them."""


def sums_of(postings: Iterable[Posting]) -> Mapping[tuple[Account, PostingKind], int]:
    """What they come to by account and kind."""
    sums: Counter[tuple[Account, PostingKind]] = Counter()
    for account, kind, amount in postings:
        sums[account, kind] += amount
    return sums


def stated(
    postings: Iterable[Posting],
    previous: Statement | None = None,
    *,
    payee: str = GUIDE,
    currency_code: str = "CNY",
) -> Statement:
    """The statement of a month: November's, or of the month after a previous one."""
    known = list(postings)
    month = next_month(previous.month) if previous else NOVEMBER
    return statement_of(
        previous,
        sums_of(known),
        brand_id="aaaabbbbccccdddd",
        statement_number=f"{month:%Y-%m}-000042",
        payee=payee,
        month=month,
        currency_code=currency_code,
        entry_count=len(known),
    )
