"""Sums over the journal: of every account, of one payee, up to a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.order import store_order

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)

pytestmark = pytest.mark.both_drivers


def entry(number: int, payee: str, amount: int, *, days: int = 0, brand_id: str = BRAND) -> Document:
    """Owes a payee an amount; two lines, so that one entry posts twice to each account."""
    postings = [
        {"account": account, "payee": owed_to, "line_id": line_id, "amount_minor": sign * part}
        for line_id, part in (("A", amount - 1), ("B", 1))
        for account, owed_to, sign in (("PAYABLE", payee, -1), ("EXPENSE", "", 1))
    ]
    return {
        "_id": f"{brand_id}|{number}",
        "brand_id": brand_id,
        "order_key": f"{brand_id}|00|POS|{number}",
        "recorded_time": NOON + timedelta(days=days),
        "currency_code": "CNY",
        "postings": postings,
    }


@pytest.fixture
async def journal(database: Database) -> JournalStore:
    """What Ann, the pool of the east and another brand's Ann are owed."""
    await schema.migrate(database, Schema(1, store_order.INDEXES))
    await database["journal"].insert_many(
        [
            entry(1, "guide:ann", 1000),
            entry(2, "guide:ann", 300, days=1),
            entry(3, "pool:east", 50, days=1),
            entry(4, "guide:ann", -400, days=2),
            entry(5, "guide:ann", 7777, brand_id=OTHER),
        ]
    )
    return JournalStore(database)


async def sums(journal: JournalStore, as_of: datetime | None, payee: str | None = None) -> dict[str, int]:
    """The sum of each account."""
    found = await journal.account_sums(BRAND, as_of, payee)
    assert all(one["currency_code"] == "CNY" for one in found)
    return {one["account"]: one["amount_minor"] for one in found}


async def test_all_accounts_together_sum_to_nothing(journal: JournalStore) -> None:
    """The trial balance: what was spent is what is owed."""
    found = await sums(journal, None)
    assert found == {"EXPENSE": 950, "PAYABLE": -950}
    assert await journal.entry_count(BRAND, None) == 4


async def test_a_payees_sum_is_of_her_own_postings(journal: JournalStore) -> None:
    """Not of the accounts of the brand in the same entries, and not of another brand's."""
    assert await sums(journal, None, "guide:ann") == {"PAYABLE": -900}
    assert await sums(journal, None, "pool:east") == {"PAYABLE": -50}
    assert await sums(journal, None, "guide:bea") == {}


async def test_sums_can_be_had_as_of_any_moment(journal: JournalStore) -> None:
    """That moment included; before the first entry there is nothing."""
    moments = [(-1, {}, 0), (0, {"PAYABLE": -1000}, 1), (1, {"PAYABLE": -1300}, 3), (9, {"PAYABLE": -900}, 4)]
    for days, wanted, count in moments:
        as_of = NOON + timedelta(days=days)
        assert await sums(journal, as_of, "guide:ann") == wanted
        assert await journal.entry_count(BRAND, as_of) == count


async def test_a_brand_without_entries_has_no_sums(journal: JournalStore) -> None:
    """And no entries."""
    assert await journal.account_sums("c" * 16, None) == []
    assert await journal.entry_count("c" * 16, None) == 0


async def test_sums_beyond_a_float_are_exact(database: Database) -> None:
    """9,007,199,254,740,993 fen: more than a double can count by ones."""
    whole = 2**53 + 1
    await database["journal"].insert_many([entry(1, "guide:ann", whole - 1), entry(2, "guide:ann", 1)])
    assert await sums(JournalStore(database), None) == {"EXPENSE": whole, "PAYABLE": -whole}
