"""What is counted for stores, guides and the brand: told once by orders, summed by the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest

from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_commission.order import sales, store_order
from svc_commission.order.store_order import OrderStore, order_key
from svc_commission.performance import store_sales
from svc_commission.performance.store_sales import SalesStore
from svc_commission.rules.period import Period
from svc_commission.rules.sales_credit import BRAND, NOTHING, Amounts, Role, SalesCredits, Subject

MINE, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
TENTH: Final = Period(date(2026, 3, 10), whole_month=False)
ELEVENTH: Final = Period(date(2026, 3, 11), whole_month=False)
MARCH, APRIL = (Period(date(2026, month, 1), whole_month=True) for month in (3, 4))


def subject(text: str) -> Subject:
    """`STORE east`, `OWNER ann`."""
    role, _, subject_id = text.partition(" ")
    return Subject(Role(role), subject_id)


def credited(days: dict[Period, Amounts], *subjects: str) -> SalesCredits:
    """What an order counts for some, and always for the brand."""
    return SalesCredits(
        frozenset({BRAND, *map(subject, subjects)}), {period.day: amounts for period, amounts in days.items()}
    )


class Orders:
    """Orders that tell what they count, as ingest has them do."""

    def __init__(self, database: Database) -> None:
        self.store = OrderStore(database)
        self._documents: dict[str, Document] = {}

    async def tell(self, number: int, counted: SalesCredits, brand_id: str = MINE) -> Document:
        """An order comes to count this; the document that was written, which is relayed."""
        key = order_key(brand_id, "POS", str(number))
        document = self._documents.setdefault(
            key, {"_id": key, "brand_id": brand_id, "rev": 0, "currency_code": "CNY"}
        )
        document["rev"] += 1
        document["relay"] = {
            "batch": f"{number}-{document['rev']}",
            "recorded_time": NOON,
            "entries": [],
            "credits": sales.tell(document, counted, NOON),
        }
        written = dict(document)
        assert await self.store.replace_many([written]) == set()
        await self.store.relay([written])
        return written


@pytest.fixture
async def orders(database: Database) -> Orders:
    """Nothing has been sold yet."""
    await schema.migrate(database, Schema(1, [*store_order.INDEXES, *store_sales.INDEXES]))
    return Orders(database)


@pytest.fixture
def store(orders: Orders, database: Database) -> SalesStore:
    return SalesStore(database)


@pytest.fixture
async def sold(orders: Orders) -> None:
    """Four orders of two days in March and one in April, and one of another brand."""
    first = {TENTH: Amounts(1000, 0, 1), ELEVENTH: Amounts(0, 300, 0)}
    april = Period(date(2026, 4, 1), whole_month=False)
    await orders.tell(1, credited(first, "STORE east", "STORE west", "OWNER ann", "SERVING bea"))
    await orders.tell(2, credited({TENTH: Amounts(700, 0, 1)}, "STORE west", "OWNER_AND_SERVING bea"))
    await orders.tell(3, credited({ELEVENTH: Amounts(500, 0, 1)}, "STORE east", "OWNER cat"))
    await orders.tell(4, credited({april: Amounts(90, 0, 1)}, "STORE north", "OWNER ann"))
    await orders.tell(5, credited({TENTH: Amounts(8000, 0, 1)}, "STORE east", "OWNER ann"), OTHER)


async def ranking(store: SalesStore, of: str, period: Period, most: int = 1000) -> list[tuple[Any, ...]]:
    """Rank, id, net and orders."""
    found = await (store.stores_ranked if of == "stores" else store.guides_ranked)(MINE, period, most)
    return [(one.rank, one.subject_id, one.amounts.net_minor, one.amounts.order_count) for one in found]


@pytest.mark.both_drivers
async def test_what_an_order_tells_is_counted_once_however_often_it_is_relayed(
    orders: Orders, store: SalesStore, database: Database
) -> None:
    """The call that wrote it, a round that finishes it, and another: all at once, and after a crash."""
    everybody = credited({TENTH: Amounts(1000, 0, 1)}, "STORE east", "OWNER ann")
    written = await orders.tell(1, everybody)
    await asyncio.gather(*(orders.store.relay([written]) for _ in range(4)))
    assert await store.of_brand(MINE, [TENTH]) == {TENTH: Amounts(1000, 0, 1)}
    assert await database["sales"].count_documents({}) == 1
    told = await orders.store.credits_of(written["_id"], written["rev"])
    assert sales.counted(told) == everybody.each()


async def test_an_order_that_was_cut_off_after_it_was_written_is_counted_by_the_round(
    orders: Orders, store: SalesStore, database: Database
) -> None:
    """It has nothing for the journal, and is found all the same."""
    written = await orders.tell(1, credited({TENTH: Amounts(1000, 0, 1)}, "STORE east"))
    await database["sales"].delete_many({})
    await database["orders"].update_one({"_id": written["_id"]}, {"$set": {"relay": written["relay"]}})
    waiting = await orders.store.unrelayed(datetime(2026, 3, 11, tzinfo=UTC), 10)
    await orders.store.relay(waiting)
    assert await store.of_brand(MINE, [TENTH]) == {TENTH: Amounts(1000, 0, 1)}
    assert await orders.store.unrelayed(datetime(2026, 3, 11, tzinfo=UTC), 10) == []


@pytest.mark.both_drivers
@pytest.mark.usefixtures("sold")
async def test_figures_of_a_store_are_its_own_by_day_and_by_month(store: SalesStore) -> None:
    """Days without sales have figures of 0; another brand's store of that name is another."""
    days = [Period(date(2026, 3, day), whole_month=False) for day in (9, 10, 11, 12)]
    found = await store.of_store(MINE, "east", days)
    assert list(found.values()) == [NOTHING, Amounts(1000, 0, 1), Amounts(500, 300, 1), NOTHING]
    assert await store.of_store(MINE, "west", [MARCH, APRIL]) == {
        MARCH: Amounts(1700, 300, 2),
        APRIL: NOTHING,
    }
    assert await store.of_store(OTHER, "east", [MARCH]) == {MARCH: Amounts(8000, 0, 1)}
    assert await store.of_store(MINE, "nowhere", [MARCH]) == {MARCH: NOTHING}


@pytest.mark.usefixtures("sold")
async def test_figures_of_a_guide_are_told_by_role(store: SalesStore) -> None:
    """Bea served one order and owns and served another."""
    found = await store.of_guide(MINE, "bea", [MARCH, APRIL])
    assert {key: amounts for key, amounts in found.items() if amounts != NOTHING} == {
        (MARCH, Role.SERVING): Amounts(1000, 300, 1),
        (MARCH, Role.OWNER_AND_SERVING): Amounts(700, 0, 1),
    }
    assert await store.of_guide(MINE, "ann", [ELEVENTH]) == {
        (ELEVENTH, Role.OWNER): Amounts(0, 300, 0),
        (ELEVENTH, Role.SERVING): NOTHING,
        (ELEVENTH, Role.OWNER_AND_SERVING): NOTHING,
    }


@pytest.mark.both_drivers
@pytest.mark.usefixtures("sold")
async def test_the_brand_counts_each_order_once(store: SalesStore) -> None:
    """Less than its stores together, two of which were credited with one sale."""
    assert await store.of_brand(MINE, [MARCH, APRIL]) == {
        MARCH: Amounts(2200, 300, 3),
        APRIL: Amounts(90, 0, 1),
    }


@pytest.mark.both_drivers
@pytest.mark.usefixtures("sold")
async def test_a_leaderboard_has_the_greatest_net_first(store: SalesStore) -> None:
    """West: 1,000 - 300 + 700. East: 1,000 - 300 + 500. Bea's two orders count once each."""
    assert await ranking(store, "stores", MARCH) == [(1, "west", 1400, 2), (2, "east", 1200, 2)]
    assert await ranking(store, "stores", ELEVENTH) == [(1, "east", 200, 1), (2, "west", -300, 0)]
    assert await ranking(store, "guides", MARCH) == [
        (1, "bea", 1400, 2),
        (2, "ann", 700, 1),
        (3, "cat", 500, 1),
    ]
    assert await ranking(store, "guides", MARCH, 1) == [(1, "bea", 1400, 2)]
    assert await ranking(store, "guides", Period(date(2026, 5, 1), whole_month=True)) == []


async def test_equals_share_a_rank_and_stand_by_their_ids(orders: Orders, store: SalesStore) -> None:
    """1, 2, 2, 4."""
    nets = {"dee": 100, "bea": 200, "ann": 100, "cat": 50}
    for number, (guide, net) in enumerate(nets.items()):
        await orders.tell(number, credited({TENTH: Amounts(net + 7, 7, 1)}, f"OWNER {guide}"))
    found = await ranking(store, "guides", TENTH)
    assert [(rank, guide) for rank, guide, *_ in found] == [(1, "bea"), (2, "ann"), (2, "dee"), (4, "cat")]


@pytest.mark.both_drivers
@pytest.mark.usefixtures("sold")
async def test_anybody_can_be_told_her_own_place(store: SalesStore) -> None:
    """And how many there are, also who has sold nothing."""
    own, count = await store.guide_rank(MINE, MARCH, "ann")
    assert own is not None
    assert (own.rank, own.subject_id, own.amounts, count) == (2, "ann", Amounts(1000, 300, 1), 3)
    own, count = await store.store_rank(MINE, MARCH, "west")
    assert own is not None
    assert (own.rank, count) == (1, 2)
    assert await store.store_rank(MINE, MARCH, "north") == (None, 2)
    assert await store.store_rank("c" * 16, MARCH, "west") == (None, 0)


async def test_a_sale_that_is_attributed_anew_moves_and_leaves_nothing(
    orders: Orders, store: SalesStore
) -> None:
    """Whoever has nothing left is on no leaderboard; the brand's figures do not move."""
    days = {TENTH: Amounts(1000, 0, 1), ELEVENTH: Amounts(0, 300, 0)}
    await orders.tell(1, credited(days, "STORE east", "STORE west", "OWNER ann", "SERVING bea"))
    before = await store.of_brand(MINE, [TENTH, ELEVENTH])
    await orders.tell(1, credited(days, "STORE west", "OWNER_AND_SERVING bea"))
    assert await store.of_brand(MINE, [TENTH, ELEVENTH]) == before
    assert await ranking(store, "stores", MARCH) == [(1, "west", 700, 1)]
    assert await ranking(store, "guides", MARCH) == [(1, "bea", 700, 1)]
    assert await store.of_store(MINE, "east", [TENTH, ELEVENTH]) == {TENTH: NOTHING, ELEVENTH: NOTHING}
    found = await store.of_guide(MINE, "bea", [MARCH])
    assert found[MARCH, Role.SERVING] == NOTHING
    assert found[MARCH, Role.OWNER_AND_SERVING] == Amounts(1000, 300, 1)


async def test_the_currency_is_that_of_what_was_counted(orders: Orders, store: SalesStore) -> None:
    """Before anything was, nobody can say."""
    assert await store.currency_code(MINE) == ""
    await orders.tell(1, credited({TENTH: Amounts(1, 0, 1)}, "STORE east"))
    assert await store.currency_code(MINE) == "CNY"
    assert await store.currency_code(OTHER) == ""


def stages(plan: Any) -> list[Document]:
    """Every stage of a plan that looks anything up."""
    if isinstance(plan, list):
        return [found for one in plan for found in stages(one)]
    if not isinstance(plan, dict):
        return []
    inner = [found for value in plan.values() for found in stages(value)]
    return [plan, *inner] if plan.get("stage") in {"IXSCAN", "COLLSCAN", "FETCH"} else inner


@pytest.mark.usefixtures("sold")
@pytest.mark.parametrize(
    ("match", "index", "reads_documents"),
    [
        ({"whole": True}, "by_day", False),
        ({"stores": "east"}, "by_store", True),
        ({"guides": {"$in": ["ann|OWNER", "ann|SERVING"]}}, "by_guide", True),
    ],
    ids=["brand", "store", "guide"],
)
async def test_figures_are_found_by_an_index(
    match: Document, index: str, reads_documents: bool, database: Database
) -> None:
    """The brand's without reading a single document: in a month it has tens of thousands."""
    group = {"_id": "$date", **{name: {"$sum": f"${name}"} for name in Amounts._fields}}
    days = {"date": {"$gte": "2026-03-10", "$lte": "2026-03-11"}}
    pipeline: Sequence[Document] = [{"$match": {"brand_id": MINE, **days, **match}}, {"$group": group}]
    explained = await database.command(
        {"explain": {"aggregate": "sales", "pipeline": pipeline, "cursor": {}}, "verbosity": "queryPlanner"}
    )
    winning = stages(_winning(explained))
    assert [one["indexName"] for one in winning if one["stage"] == "IXSCAN"] == [index]
    assert any(one["stage"] == "FETCH" for one in winning) == reads_documents


def _winning(explained: Any) -> list[Any]:
    """Every winning plan in an explanation, however deep."""
    if isinstance(explained, list):
        return [found for one in explained for found in _winning(one)]
    if not isinstance(explained, dict):
        return []
    own = [explained["winningPlan"]] if "winningPlan" in explained else []
    return own + [found for value in explained.values() for found in _winning(value)]
