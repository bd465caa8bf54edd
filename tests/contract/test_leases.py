"""Posting leases on the real database: who holds one writes in its month, and never after it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime

import pytest
from pymongo.errors import PyMongoError

from chassis.errors import Conflict, Unavailable
from chassis.mongo.connection import Database
from svc_commission.month.leases import Lease, Leases
from svc_commission.month.store_month import MonthStore
from tests.contract.conftest import Failing

BRAND = "a" * 16
MARCH, APRIL, MAY = date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1)
RECORD = {"begin_time": datetime(2026, 4, 2, tzinfo=UTC), "feeds_behind": [], "override_reason": ""}


@pytest.fixture
def months(database: Database) -> MonthStore:
    return MonthStore(database)


class Ticking:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.both_drivers
async def test_a_lease_is_asked_for_again_when_less_than_three_quarters_are_left(months: MonthStore) -> None:
    """Until then the month may have been closed; whoever asks again is told."""
    ticking = Ticking()
    leases = Leases(months, 10.0, ticking)
    assert (await leases.held(BRAND)).first_open is None
    await months.begin(BRAND, MARCH, RECORD)
    ticking.s += 2.5
    assert (await leases.held(BRAND)).first_open is None, "the lease says so for as long as it holds"
    ticking.s += 0.1
    renewed = await leases.held(BRAND)
    assert (renewed.first_open, renewed.until_s) == (APRIL, ticking.s + 10.0)


async def test_a_lease_counts_from_before_it_was_asked_for(months: MonthStore, failing: Failing) -> None:
    """However long the answer took: what it says may have changed right after it was read."""
    before_s = time.monotonic()
    async with failing("find", times=1, blockConnection=True, blockTimeMS=300):
        lease = await Leases(months, 10.0).held(BRAND)
    assert lease.until_s - before_s < 10.1
    assert time.monotonic() - before_s >= 0.3


async def test_nothing_is_written_after_a_lease(database: Database) -> None:
    """Not even begun."""
    with (
        pytest.raises(Unavailable, match="closed meanwhile"),
        Lease(MARCH, time.monotonic() - 0.001).writing(),
    ):
        raise AssertionError("the block is not entered")


@pytest.mark.both_drivers
async def test_a_write_that_hangs_ends_before_its_lease_does(database: Database, failing: Failing) -> None:
    """The database is slow for longer than the lease lasts: the write fails, and is not there later."""
    lease = Lease(MARCH, time.monotonic() + 0.5)
    async with failing("insert", times=1, blockConnection=True, blockTimeMS=1500):
        with pytest.raises(PyMongoError), lease.writing():
            await database["orders"].insert_one({"_id": "late"})
        assert time.monotonic() < lease.until_s + 0.4
    await asyncio.sleep(1.5)
    assert await database["orders"].find_one({"_id": "late"}) is None


async def test_months_are_begun_in_order_and_each_once(months: MonthStore) -> None:
    """A second beginning of the same changes nothing; another month is refused until it is finished."""
    await months.begin(BRAND, MARCH, RECORD)
    await months.begin(BRAND, MARCH, RECORD)
    assert await months.first_open(BRAND) == APRIL
    with pytest.raises(Conflict, match="2026-03 is being closed"):
        await months.begin(BRAND, APRIL, RECORD)
    await months.finish(BRAND, MARCH, {"statement_count": 0})
    await months.begin(BRAND, APRIL, RECORD)
    assert await months.first_open(BRAND) == MAY
    with pytest.raises(Conflict, match="2026-04 is being closed"):
        await months.begin(BRAND, MARCH, RECORD)


async def test_of_many_who_would_close_one_holds_it_until_he_lets_it_go(months: MonthStore) -> None:
    """He keeps it as often as he asks; another gets it when he has not asked for a lease's time."""
    await months.begin(BRAND, MARCH, RECORD)
    got = await asyncio.gather(*(months.claim(BRAND, MARCH, f"holder-{n}", 0.4) for n in range(8)))
    assert got.count(True) == 1
    holder = f"holder-{got.index(True)}"
    assert await months.claim(BRAND, MARCH, holder, 0.4)
    assert not await months.claim(BRAND, MARCH, "another", 0.4)
    assert await months.abandoned() == []
    await asyncio.sleep(0.5)
    assert await months.abandoned() == [(BRAND, MARCH)]
    assert await months.claim(BRAND, MARCH, "another", 0.4)
    assert not await months.claim(BRAND, MARCH, holder, 0.4)
    await months.finish(BRAND, MARCH, {"statement_count": 0})
    assert not await months.claim(BRAND, MARCH, "another", 0.4)
    assert await months.abandoned() == []
