"""Adjustments and payouts in the database, cut off between any two steps: posted once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from chassis.errors import Conflict, NotFound, Unavailable
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_commission.month import store_month
from svc_commission.month.leases import Leases
from svc_commission.month.store_month import MonthStore
from svc_commission.payout import payouts, store_adjustment, store_payout
from svc_commission.payout.adjustments import RETRY_AFTER, Adjustments, entry_id_of
from svc_commission.payout.payouts import HELD, Payouts
from svc_commission.payout.store_adjustment import AdjustmentStore
from svc_commission.payout.store_entry import EntryStore
from svc_commission.payout.store_payout import PayoutStore

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 4, 10, 4, tzinfo=UTC)
FEBRUARY, MARCH, APRIL = date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)
INDEXES = [*store_adjustment.INDEXES, *store_payout.INDEXES, *store_month.INDEXES]
RECORD = {"begin_time": NOON}


class Money:
    """The service's own parts that post what is no order's, and their clock."""

    def __init__(self, database: Database) -> None:
        self.now = NOON
        self.database = database
        self.months, self.entries = MonthStore(database), EntryStore(database)
        self.adjustments, self.payouts = AdjustmentStore(database), PayoutStore(database)
        self.posting = Adjustments(self.adjustments, self.entries, self.leases(), self.time)
        self.paying = self.another()

    def leases(self) -> Leases:
        """Those of a process that has just started."""
        return Leases(self.months, lease_s=10.0)

    def another(self) -> Payouts:
        """Another process that goes on with payouts."""
        return Payouts(self.payouts, self.entries, self.months, self.leases(), self.time)

    def time(self) -> datetime:
        return self.now

    async def journal(self) -> list[Document]:
        return [entry async for entry in self.database["journal"].find({}).sort("_id", 1)]

    async def close(self, month: date) -> None:
        """Closes a month, as far as payouts look at it."""
        await self.months.begin(BRAND, month, RECORD)
        await self.months.note(BRAND, month, {"waited_time": self.now})
        await self.months.finish(BRAND, month, {})


@pytest.fixture
async def money(database: Database) -> Money:
    await schema.migrate(database, Schema(1, INDEXES))
    return Money(database)


def adjustment(number: int = 1, brand_id: str = BRAND, **more: object) -> Document:
    """One that was approved a moment ago and is not posted yet."""
    return {
        "_id": f"{brand_id}|{number}",
        "brand_id": brand_id,
        "adjustment_id": str(number),
        "rev": 1,
        "state": "APPROVED",
        "payee": "guide:ann",
        "amount_minor": 100 * number,
        "currency_code": "CNY",
        "time_zone": "Asia/Shanghai",
        "bearer": "",
        "month": "",
        "propose_time": NOON + timedelta(minutes=number),
        "decide_time": NOON,
        "post_time": NOON,
        **more,
    }


async def test_an_approval_that_was_cut_off_before_its_entry_is_posted_by_the_next_round(
    money: Money,
) -> None:
    """Of several brands too; the round says when there is no more."""
    for brand_id in (BRAND, OTHER):
        await money.adjustments.insert(adjustment(1, brand_id))
    assert not await money.posting.round()
    assert [entry["_id"] for entry in await money.journal()] == [f"{BRAND}|ADJUSTED|1", f"{OTHER}|ADJUSTED|1"]
    assert await money.adjustments.to_post(money.now + timedelta(days=1), 10) == []


async def test_one_that_was_cut_off_between_entry_and_mark_is_not_posted_again(money: Money) -> None:
    """Although the month has been closed in between: its entry stays where it is."""
    one = adjustment()
    await money.adjustments.insert(one)
    await money.posting.post(BRAND, [one])
    await money.database["adjustments"].update_one({"_id": one["_id"]}, {"$set": {"post_time": NOON}})
    [before] = await money.journal()
    assert before["posting_month"] == "2026-04"
    await money.close(APRIL)
    other = Adjustments(money.adjustments, money.entries, money.leases(), money.time)
    assert not await other.round()
    assert await money.journal() == [before]
    assert await money.adjustments.to_post(money.now, 10) == []


async def test_many_who_post_the_same_at_once_post_it_once(money: Money) -> None:
    approved = [adjustment(number) for number in range(1, 6)]
    for one in approved:
        await money.adjustments.insert(one)
    await asyncio.gather(*(money.posting.post(BRAND, approved) for _ in range(5)))
    posted = {entry["_id"]: entry["postings"] for entry in await money.journal()}
    assert posted.keys() == {entry_id_of(one) for one in approved}
    assert all(sum(one["amount_minor"] for one in postings) == 0 for postings in posted.values())


async def test_what_is_tried_is_not_due_for_a_while(money: Money) -> None:
    """So that one that cannot be posted holds up no other."""
    one = adjustment()
    await money.adjustments.insert(one)
    await money.adjustments.put_off([one], NOON + RETRY_AFTER)
    assert await money.adjustments.to_post(NOON, 10) == []
    assert len(await money.adjustments.to_post(NOON + RETRY_AFTER, 10)) == 1


@pytest.mark.both_drivers
async def test_of_two_who_decide_at_once_one_must_look_again(money: Money) -> None:
    one = adjustment(state="PROPOSED")
    await money.adjustments.insert(one)
    rivals = [money.adjustments.change(one, {"state": state}) for state in ("APPROVED", "REJECTED")]
    [conflict] = [found for found in await asyncio.gather(*rivals, return_exceptions=True) if found]
    assert isinstance(conflict, Conflict)
    assert conflict.reason == "ADJUSTMENT_CHANGED"


async def test_an_adjustment_is_found_by_its_own_brand_and_written_once(money: Money) -> None:
    one = adjustment()
    assert await money.adjustments.insert(one) == one
    assert (await money.adjustments.insert(adjustment(amount_minor=7)))["amount_minor"] == 100
    assert await money.adjustments.standing(OTHER, "1") is None
    with pytest.raises(NotFound) as unknown:
        await money.adjustments.find(OTHER, "1")
    assert unknown.value.reason == "ADJUSTMENT_UNKNOWN"


# ---- payouts ----------------------------------------------------------------------------------------


async def stated(money: Money, amounts: dict[str, int], month: str = "2026-03") -> None:
    """Statements of payees, with what they end with as payable."""
    documents = [
        {
            "_id": f"{BRAND}|{month}|{payee}",
            "payee": payee,
            "closing_payable_minor": amount,
            "currency_code": "CNY",
        }
        for payee, amount in amounts.items()
    ]
    await money.database["statements"].insert_many(documents)


async def recorded(money: Money, guide_ids: Sequence[str] = (), batch_id: str = "run") -> Document:
    """A payout of March of which nothing is paid yet."""
    return await money.payouts.insert(
        {
            "_id": f"{BRAND}|{batch_id}",
            "brand_id": BRAND,
            "batch_id": batch_id,
            "month": "2026-03",
            "guide_ids": sorted(guide_ids),
            "state": store_payout.RUNNING,
            "through": "",
            "paid_count": 0,
            "paid_minor": 0,
            "currency_code": "",
            "refused_count": 0,
            "refused": [],
            "record_time": NOON,
            "due_time": NOON + HELD,
        }
    )


async def test_a_payout_goes_through_the_statements_of_its_month_alone(
    money: Money, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of guides with something payable, however many steps it takes; pools are shared out, not paid."""
    monkeypatch.setattr(payouts, "CHUNK", 2)
    await money.close(MARCH)
    await stated(money, {f"guide:{number}": 100 * number for number in range(6)} | {"pool:east": 50})
    await stated(money, {"guide:february": 70}, "2026-02")
    await stated(money, {"guide:april": 80}, "2026-04")
    done = await money.paying.go_on(await recorded(money))
    assert (done["state"], done["paid_count"], done["paid_minor"]) == (store_payout.DONE, 5, 1500)
    assert "due_time" not in done
    entries = await money.journal()
    assert [entry["_id"] for entry in entries] == [
        f"{BRAND}|PAID_OUT|2026-03|guide:{number}" for number in range(1, 6)
    ]
    assert {entry["posting_month"] for entry in entries} == {"2026-04"}


async def test_a_payout_that_was_cut_off_between_entries_and_mark_counts_them_once(money: Money) -> None:
    """Whoever goes on finds the entries of the last step there, and knows them as its own."""
    await money.close(MARCH)
    await stated(money, {f"guide:{number}": 100 for number in range(4)})
    payout = await recorded(money)
    await money.paying.go_on(payout)
    before = await money.journal()
    cut_off = {**payout, "state": store_payout.RUNNING, "due_time": NOON}
    await money.database["payouts"].replace_one({"_id": payout["_id"]}, cut_off)
    assert await money.another().round()
    again = await money.payouts.find(BRAND, "run")
    assert (again["paid_count"], again["paid_minor"], again["refused"]) == (4, 400, [])
    assert await money.journal() == before


async def test_many_who_go_on_with_one_payout_pay_and_count_everybody_once(
    money: Money, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payouts, "CHUNK", 3)
    await money.close(MARCH)
    guides = [f"{number:02d}" for number in range(20)]
    await stated(money, {f"guide:{guide}": 100 for guide in guides})
    payout = await recorded(money, [*guides, "nobody"])
    done = await asyncio.gather(*(money.another().go_on(payout) for _ in range(4)))
    assert {one["state"] for one in done} == {store_payout.DONE}
    final = await money.payouts.find(BRAND, "run")
    assert (final["paid_count"], final["paid_minor"], final["refused_count"]) == (20, 2000, 1)
    assert final["refused"] == [{"guide_id": "nobody", "reason": "NO_STATEMENT"}]
    assert len(await money.journal()) == 20


async def test_a_payout_that_the_next_close_overtakes_pays_nobody_in_the_closed_month(money: Money) -> None:
    """Until nobody else can have paid, nothing is said; then who was paid, and who is carried on."""
    await money.close(MARCH)
    await stated(money, {"guide:ann": 100, "guide:bob": 200})
    payout = await recorded(money, ["ann", "bob"])
    await money.paying.go_on(await recorded(money, ["ann"], "first"))
    await money.months.begin(BRAND, APRIL, RECORD)
    with pytest.raises(Unavailable) as unavailable:
        await money.another().go_on(payout)
    assert unavailable.value.reason == "MONTH_BEING_CLOSED"
    await money.months.note(BRAND, APRIL, {"waited_time": NOON})
    done = await money.another().go_on(payout)
    assert (done["state"], done["paid_count"]) == (store_payout.DONE, 0)
    assert {one["guide_id"]: one["reason"] for one in done["refused"]} == {
        "ann": "ALREADY_PAID",
        "bob": "CARRIED_ON",
    }
    assert len(await money.journal()) == 1


async def test_a_payout_is_found_by_its_own_brand(money: Money) -> None:
    await recorded(money)
    assert await money.payouts.standing(OTHER, "run") is None
    with pytest.raises(NotFound) as unknown:
        await money.payouts.find(OTHER, "run")
    assert unknown.value.reason == "PAYOUT_UNKNOWN"
