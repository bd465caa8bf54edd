"""Journal entries of what is no order's: how they are named, what they post, and into which month.

An entry's id follows from what it is for, never from the month: however often its posting is tried, by
whomever, and whichever months were closed in between, the journal takes it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from chassis.mongo.connection import Document
from svc_commission.order.documents import month_text
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind


class Amount(NamedTuple):
    """One posting; a debit is positive, a credit negative."""

    account: Account
    payee: str
    minor: int


def entry_id(brand_id: str, kind: PostingKind, *what: str) -> str:
    """The id of the one entry for something."""
    return "|".join([brand_id, kind.value, *what])


def entry_document(
    entry_id: str,
    cause: str,
    kind: PostingKind,
    amounts: Iterable[Amount],
    *,
    brand_id: str,
    currency_code: str,
    posting_month: date,
    origin_month: date,
    now: datetime,
) -> Document:
    """An entry of one kind. Amounts of nothing are left out. Raises: ValueError unless they sum to zero."""
    posted = [amount for amount in amounts if amount.minor]
    total = sum(amount.minor for amount in posted)
    if not posted or total:
        raise ValueError(f"{entry_id}: its amounts do not sum to zero, or there are none")
    return {
        "_id": entry_id,
        "brand_id": brand_id,
        "cause": cause,
        "posting_month": month_text(posting_month),
        "recorded_time": now,
        "currency_code": currency_code,
        "postings": [
            {
                "account": amount.account.value,
                "payee": amount.payee,
                "line_id": "",
                "kind": kind.value,
                "origin_month": month_text(origin_month),
                "amount_minor": amount.minor,
            }
            for amount in posted
        ],
    }
