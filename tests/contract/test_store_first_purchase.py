"""Which purchase is a member's first: in any order of arrival, at once, and wherever a writer was cut off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from chassis.ids import new_id
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from chassis.sealing import KeyRing, Sealer
from svc_commission.background import Rounds
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.members_client import MembersClient
from svc_commission.month.leases import Leases
from svc_commission.month.store_month import MonthStore
from svc_commission.order import store_first_purchase, store_order
from svc_commission.order.attributor import RETRY_AFTER
from svc_commission.order.booking import Booking
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.plan import plans
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules.attribution import Attribution, OwnerBasis
from svc_commission.rules.plan import Match, PayeeRole, Plan, Purchase, Rule, Share

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
NOW = NOON + timedelta(days=30)
SEALER = Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32)


@pytest.fixture
async def firsts(database: Database) -> FirstPurchaseStore:
    indexes = [*store_first_purchase.INDEXES, *store_order.INDEXES]
    await schema.migrate(database, Schema(1, indexes))
    return FirstPurchaseStore(database)


def placed(minutes: float, order_id: str = "", channel: str = "POS", brand_id: str = BRAND) -> Document:
    """What is compared of an order that was placed some minutes after noon."""
    order_id = order_id or f"at-{minutes:g}"
    return {
        "_id": order_key(brand_id, channel, order_id),
        "placed_time": NOON + timedelta(minutes=minutes),
        "channel": channel,
        "order_id": order_id,
    }


async def note(firsts: FirstPurchaseStore, *orders: Document, member: str = "ben", brand: str = BRAND) -> str:
    """The key of a member's first order after these were noted."""
    return (await firsts.note(brand, {member: orders}, NOW))[member]


async def displaced(firsts: FirstPurchaseStore, now: datetime = NOW) -> list[str]:
    """The keys of all displaced orders that are due."""
    return [key for record in await firsts.displaced(now, 100) for key in record["displaced"]]


@pytest.mark.both_drivers
async def test_the_least_order_is_the_first_whatever_comes_when(firsts: FirstPurchaseStore) -> None:
    """A later one changes nothing; an earlier one takes its place, and the other is to be looked at."""
    two, three, one = placed(2), placed(3), placed(1)
    assert await note(firsts, two) == two["_id"]
    assert await note(firsts, three) == two["_id"]
    assert await displaced(firsts) == []
    assert await note(firsts, one) == one["_id"]
    assert await displaced(firsts) == [two["_id"]]
    assert await note(firsts, three, two) == one["_id"]
    assert await displaced(firsts) == [two["_id"]]


@pytest.mark.both_drivers
async def test_orders_of_one_moment_are_told_apart_by_channel_and_number(firsts: FirstPurchaseStore) -> None:
    """Not by their keys, which a hash has shuffled."""
    orders = [
        placed(0, order_id, channel)
        for channel in ("CLOUD_STORE", "POS", "TMALL")
        for order_id in ("1", "10", "9", "Z", "a")
    ]
    for member in map(str, range(10)):
        shuffled = random.sample(orders, len(orders))
        for order in shuffled:
            await note(firsts, order, member=member)
        assert await note(firsts, orders[-1], member=member) == orders[0]["_id"], shuffled


async def test_a_repeat_changes_nothing(firsts: FirstPurchaseStore, database: Database) -> None:
    """Neither of the first nor of one that was displaced."""
    for order in (placed(2), placed(1)):
        await note(firsts, order)
    before = await database["first_purchases"].find_one({})
    for order in (placed(1), placed(2), placed(1)):
        assert await note(firsts, order) == placed(1)["_id"]
    assert await database["first_purchases"].find_one({}) == before


async def test_members_and_brands_have_firsts_of_their_own(firsts: FirstPurchaseStore) -> None:
    """Many members in one call, several orders of one of them; the same id in another brand is another."""
    found = await firsts.note(BRAND, {"ben": [placed(3), placed(1), placed(2)], "col": [placed(9)]}, NOW)
    assert found == {"ben": placed(1)["_id"], "col": placed(9)["_id"]}
    theirs = placed(5, brand_id=OTHER)
    assert await note(firsts, theirs, brand=OTHER) == theirs["_id"]
    assert await firsts.note(BRAND, {}, NOW) == {}
    assert await displaced(firsts) == [], "of those that come together none was ever first"


@pytest.mark.both_drivers
async def test_of_many_firsts_at_once_each_that_was_told_so_wrongly_is_looked_at(
    firsts: FirstPurchaseStore,
) -> None:
    """Whoever was told that his order is the first wrote it as such: it must be found and made anew."""
    for member in map(str, range(8)):
        orders = [placed(minutes) for minutes in random.sample(range(100), 12)]
        told = await asyncio.gather(*(note(firsts, order, member=member) for order in orders))
        least = min(orders, key=lambda order: order["placed_time"])["_id"]
        assert await note(firsts, orders[0], member=member) == least
        wrongly = {key for key, order in zip(told, orders, strict=True) if key == order["_id"]} - {least}
        assert wrongly <= set(await displaced(firsts))


@pytest.mark.both_drivers
async def test_what_was_made_anew_is_forgotten_and_nothing_else(
    firsts: FirstPurchaseStore, database: Database
) -> None:
    """Also while the next is being displaced."""
    for minutes in (4, 3, 2):
        await note(firsts, placed(minutes))
    [record] = await firsts.displaced(NOW, 10)
    assert record["displaced"] == [placed(4)["_id"], placed(3)["_id"]]
    await note(firsts, placed(1))
    await firsts.settled({record["_id"]: [placed(4)["_id"]]})
    assert await displaced(firsts) == [placed(3)["_id"], placed(2)["_id"]]
    await firsts.settled({record["_id"]: [placed(3)["_id"], placed(2)["_id"]]})
    assert await displaced(firsts, NOW + timedelta(days=99)) == []
    assert (await database["first_purchases"].find_one({}) or {}).keys() == {"_id", "first"}
    await firsts.settled({record["_id"]: [placed(3)["_id"]]})
    await firsts.settled({})
    assert await note(firsts, placed(0)) == placed(0)["_id"]
    assert await displaced(firsts) == [placed(1)["_id"]]


@pytest.mark.both_drivers
async def test_what_cannot_be_made_anew_is_tried_less_and_less_often(firsts: FirstPurchaseStore) -> None:
    """And stands behind the others."""
    for minutes in (2, 1):
        await note(firsts, placed(minutes))
    tried, now = 0, NOW
    for _ in range(24 * 60):
        if records := await firsts.displaced(now, 10):
            await firsts.put_off(records, now, RETRY_AFTER)
            tried += 1
        now += timedelta(minutes=1)
    assert 8 < tried < 16, "it doubles from 6 seconds"


@pytest.mark.both_drivers
async def test_what_was_put_off_is_hastened_and_nothing_is_put_off_by_it(firsts: FirstPurchaseStore) -> None:
    """One that only others came before; one that is settled stays settled."""
    for minutes in (2, 1):
        await note(firsts, placed(minutes))
    tomorrow = NOW + timedelta(days=1)
    records = await firsts.displaced(tomorrow, 10)
    await firsts.put_off(records, tomorrow, RETRY_AFTER)
    assert await displaced(firsts, tomorrow + timedelta(hours=23)) == []
    await firsts.hasten(records, tomorrow + RETRY_AFTER)
    await firsts.hasten(records, tomorrow + timedelta(days=9))
    await firsts.hasten([], tomorrow)
    assert await displaced(firsts, tomorrow + RETRY_AFTER) == [placed(2)["_id"]]
    await firsts.settled({records[0]["_id"]: records[0]["displaced"]})
    await firsts.hasten(records, tomorrow)
    assert await displaced(firsts, tomorrow + timedelta(days=9)) == []


# ---- with the orders --------------------------------------------------------------------------------

LINES = [
    {
        "line_id": "A",
        "sku_id": "A",
        "category_id": "",
        "quantity": 1,
        "list_minor": 10_000,
        "paid_minor": 10_000,
    }
]
OWNER = (Share(PayeeRole.OWNER, 10_000),)
PLAN = Plan(
    "plan",
    NOON - timedelta(days=30),
    None,
    (
        Rule("first", Match(purchase=Purchase.FIRST), 1000, OWNER),
        Rule("repeat", Match(purchase=Purchase.REPEAT), 200, OWNER),
    ),
)


class Books:
    """The service's own parts that keep a member's orders in the books, without a members service."""

    def __init__(self, database: Database, channel: grpc.aio.Channel) -> None:
        self.orders, self.firsts = OrderStore(database), FirstPurchaseStore(database)
        self.now = NOW
        self._journal = JournalStore(database)
        members = MembersClient(channel)
        self._booking = Booking(
            self.orders,
            PlanStore(database),
            self.firsts,
            members,
            SEALER,
            lambda: self.now,
            new_id,
            Leases(MonthStore(database), lease_s=10.0),
        )
        self.rounds = Rounds(self.orders, self.firsts, self._booking, lambda: self.now)

    async def write(self, *orders: Document) -> set[str]:
        """Notes, books and writes orders; those that others wrote meanwhile."""
        return await self._booking.rebook(orders, "TEST")

    async def stored(self, order: Document) -> Document:
        return (await self.orders.find_many([order["_id"]]))[order["_id"]]

    async def owed(self) -> int:
        """What the guide is owed for all orders, in fen."""
        sums = await self._journal.account_sums(BRAND, None, "guide:ann")
        return -sum(int(one["amount_minor"]) for one in sums)

    async def later(self, **by: float) -> None:
        """Lets time pass, and the rounds run."""
        self.now += timedelta(**by)
        while await self.rounds.displaced():
            pass


@pytest.fixture
async def books(database: Database, firsts: FirstPurchaseStore) -> AsyncIterator[Books]:
    """With a plan of 10 % for a first purchase and 2 % for all others."""
    await database["plans"].insert_one(
        {"_id": BRAND, "rev": 1, "plans": [plans.plan_document(PLAN)], "receipts": []}
    )
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nowhere:
        yield Books(database, nowhere)


def order(minutes: float, *kinds: str, **more: Any) -> Document:
    """An order over 100.00 of Ann's member, of which so much has been heard: a payment, unless said."""
    events = [
        {
            "event_id": kind,
            "kind": kind.partition(":")[0],
            "happened_time": NOON + timedelta(minutes=minutes),
            "recorded_time": NOW,
            "lines": LINES if kind == "PAID:1" else [],
            "refund_lines": [],
            "goodwill_minor": 0,
        }
        for kind in kinds or ("PAID:1",)
    ]
    frozen = Attribution(
        member_id="ben",
        binding_id="ben.1",
        owner="guide:ann",
        owner_basis=OwnerBasis.BINDING,
        selling_store_id="east",
        owner_store_id="east",
        flagship_store_id="",
        as_of_time=NOON,
        known_at_time=NOW,
        plan_id="plan",
        time_zone="Asia/Shanghai",
    )
    return {
        **placed(minutes),
        "brand_id": BRAND,
        "rev": 0,
        "currency_code": "CNY",
        "first_stored_time": NOW,
        "events": events,
        "attribution": asdict(frozen),
        "target": [],
        "refund_excess_minor": 0,
        **more,
    }


async def test_an_earlier_order_that_comes_late_displaces_the_first_and_the_difference_is_posted(
    books: Books,
) -> None:
    """10 % of the first order; then 10 % of the earlier one, and the other is left with 2 %."""
    await books.write(order(5))
    assert await books.owed() == 1000
    await books.write(order(9))
    assert await books.owed() == 1200
    await books.write(order(1))
    assert await books.owed() == 2200, "until the round has come by"
    await books.later(seconds=1)
    assert await books.owed() == 1400
    assert [(await books.stored(order(minutes)))["first_purchase"] for minutes in (1, 5, 9)] == [
        True,
        False,
        False,
    ]
    await books.later(days=1)
    assert await books.owed() == 1400


async def test_first_orders_in_one_call_or_at_once_end_with_one_first(books: Books) -> None:
    """Of four in one call, and of eight in eight."""
    await books.write(*[order(minutes) for minutes in (7, 3, 5, 9)])
    assert await books.owed() == 1000 + 3 * 200
    minutes = random.sample(range(-50, 0), 8)
    await asyncio.gather(*(books.write(order(one)) for one in minutes))
    await books.later(seconds=1)
    assert await books.owed() == 1000 + 11 * 200
    firsts = [one for one in (*minutes, 3) if (await books.stored(order(one)))["first_purchase"]]
    assert firsts == [min(minutes)]


async def test_one_that_was_noted_as_first_and_displaced_before_it_was_written_ends_as_a_repeat(
    books: Books,
) -> None:
    """Its call was slow; in between the earlier one came and the round found nothing to make anew."""
    await note(books.firsts, order(5))
    await books.write(order(1))
    await books.later(seconds=1)
    assert await books.owed() == 1000
    await books.write(order(5, first_purchase=True))
    assert await books.owed() == 2000
    await books.later(seconds=30)
    assert await books.owed() == 1200


async def test_one_that_was_noted_and_never_written_is_noted_anew_when_it_is_sent_again(books: Books) -> None:
    """Its call was killed between the note and the write: of the first, and of one that displaces."""
    await note(books.firsts, order(5))
    await books.write(order(5))
    assert await books.owed() == 1000
    await note(books.firsts, order(1))
    await books.later(seconds=1)
    assert await books.owed() == 200, "the other is not there yet"
    await books.write(order(1))
    assert await books.owed() == 1200


async def test_a_call_that_holds_the_order_as_first_cannot_write_it_after_the_round(books: Books) -> None:
    """The order was there unpaid; its payment was noted as first and displaced before it was written."""
    await books.write(order(5, "PLACED"))
    stored = await books.stored(order(5))
    assert "first_purchase" not in stored
    held = {**order(5, "PLACED", "PAID:1"), "rev": stored["rev"], "first_purchase": True}
    await note(books.firsts, held)
    await books.write(order(1))
    await books.later(seconds=1)
    assert await books.write(held) == {held["_id"]}, "it must read the order again"
    again = {**await books.stored(order(5)), "events": held["events"]}
    assert await books.write(again) == set()
    assert await books.owed() == 1200


async def test_refunds_and_cancellations_promote_nothing(books: Books) -> None:
    """What was first stays first, though nothing is left of it."""
    await books.write(order(1))
    await books.write(order(5))
    assert await books.owed() == 1200
    cancelled = order(1, "PAID:1", "CLOSED")["events"]
    await books.write({**await books.stored(order(1)), "events": cancelled})
    await books.later(days=1)
    assert await books.owed() == 200
    await books.write(order(9))
    assert await books.owed() == 400


@pytest.mark.parametrize("kinds", [("PLACED",), ("PLACED", "SHIPPED:1"), ("CLOSED",)])
async def test_an_order_that_nobody_paid_is_nobodys_first(books: Books, kinds: Sequence[str]) -> None:
    """The next that is paid is; when this one is paid after all, it takes that one's place."""
    await books.write(order(1, *kinds))
    await books.write(order(5))
    assert await books.owed() == 1000
    if "CLOSED" not in kinds:
        stored = await books.stored(order(1))
        await books.write({**stored, "events": order(1, *kinds, "PAID:1")["events"]})
        await books.later(seconds=1)
        assert await books.owed() == 1200


async def test_an_order_that_is_too_large_to_be_written_is_nobodys_first(books: Books) -> None:
    """Its event is refused; were it noted, the member would never have a first purchase."""
    huge = order(1)
    filler = {**LINES[0], "sku_id": "x" * 3500}
    huge["events"][0]["lines"] = [{**filler, "line_id": str(number)} for number in range(6000)]
    assert await books.write(huge) == {huge["_id"]}
    await books.write(order(5))
    assert await books.owed() == 1000


# ---- a first that turned out to be somebody else's --------------------------------------------------


async def test_a_first_that_was_anothers_is_followed_by_the_next_to_be_made_anew(
    firsts: FirstPurchaseStore,
) -> None:
    """Once, however often it is told; and only where it is the first still."""
    gone, following = placed(1), placed(2)
    await note(firsts, gone, following)
    for _ in range(2):
        await firsts.left(BRAND, "ben", gone["_id"], following, NOW)
    assert (await firsts.firsts(BRAND, ["ben", "nobody"]))["ben"]["order_key"] == following["_id"]
    [record] = await firsts.displaced(NOW, 10)
    assert record["displaced"] == [following["_id"]]
    assert await note(firsts, placed(3)) == following["_id"]
    assert await note(firsts, placed(0)) == placed(0)["_id"]


async def test_who_has_no_other_has_no_first_until_there_is_one(firsts: FirstPurchaseStore) -> None:
    await note(firsts, placed(1))
    await firsts.left(BRAND, "ben", placed(1)["_id"], None, NOW)
    assert await firsts.firsts(BRAND, ["ben"]) == {}
    assert await firsts.displaced(NOW, 10) == []
    assert await note(firsts, placed(9)) == placed(9)["_id"]


async def test_notes_beside_a_first_that_is_forgotten_all_get_an_answer(firsts: FirstPurchaseStore) -> None:
    """It may be gone between their write and their read."""
    await note(firsts, placed(1))
    notes = [note(firsts, placed(minutes)) for minutes in range(2, 22)]
    gone = [firsts.left(BRAND, "ben", placed(minutes)["_id"], None, NOW) for minutes in range(1, 22)]
    found = await asyncio.gather(*notes, *gone)
    assert all(found[: len(notes)])
