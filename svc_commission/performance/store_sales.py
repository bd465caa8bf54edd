"""What is counted for whom, summed by the database. `sales` is written in `order/store_order.py` alone.

A document of `sales` is what one revision of an order changed on one day, with all for whom it is counted:
most orders need one for their payment and one for each refund. A document for each of them would be read
twice as fast for a ranking, and was measured to be written at three times the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chassis.mongo.connection import Database, Document, aggregated
from chassis.mongo.schema import Index
from svc_commission.order import sales
from svc_commission.rules.period import Period
from svc_commission.rules.sales_credit import NOTHING, Amounts, Role

_BY_DAY: Final = "by_day"
"""Rankings name it: the server may take another with days in it, with an entry for each store or guide."""

INDEXES = (
    Index("sales", "by_store", [("brand_id", 1), ("stores", 1), ("date", 1)]),
    Index("sales", "by_guide", [("brand_id", 1), ("guides", 1), ("date", 1)]),
    # Holds all that the sums of a brand need, so that no document is read for them.
    Index(
        "sales",
        _BY_DAY,
        [(name, 1) for name in ("brand_id", "date", "whole", *Amounts._fields)],
    ),
)

_MONTH_LENGTH: Final = len("2026-11")
_SUMS: Final[Document] = {name: {"$sum": f"${name}"} for name in Amounts._fields}
_RANKED: Final[Sequence[Document]] = (
    # Where all was moved to somebody else, nothing is counted any more.
    {"$match": {"$or": [{name: {"$ne": 0}} for name in Amounts._fields]}},
    {"$set": {"net_minor": {"$subtract": ["$sold_minor", "$refunded_minor"]}}},
    {"$setWindowFields": {"sortBy": {"net_minor": -1}, "output": {"rank": {"$rank": {}}}}},
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A store's or a guide's place among all, and what was counted for it."""

    rank: int
    subject_id: str
    amounts: Amounts


class SalesStore:
    """Sums what has been counted."""

    def __init__(self, database: Database) -> None:
        self._sales = database["sales"]

    async def currency_code(self, brand_id: str) -> str:
        """The currency of what is counted in a brand; empty: nothing has been counted yet."""
        found = await self._sales.find_one({"brand_id": brand_id}, {"currency_code": 1})
        return str(found["currency_code"]) if found else ""

    async def of_store(
        self, brand_id: str, store_id: str, periods: Sequence[Period]
    ) -> dict[Period, Amounts]:
        """What was counted for a store in each of the periods, which follow each other."""
        criteria = {"brand_id": brand_id, "stores": store_id, **_dates(periods)}
        return await self._by_period(criteria, periods)

    async def of_brand(self, brand_id: str, periods: Sequence[Period]) -> dict[Period, Amounts]:
        """What was counted for the brand in each of the periods, which follow each other."""
        criteria = {"brand_id": brand_id, **_dates(periods), "whole": True}
        return await self._by_period(criteria, periods)

    async def of_guide(
        self, brand_id: str, guide_id: str, periods: Sequence[Period]
    ) -> dict[tuple[Period, Role], Amounts]:
        """What was counted for a guide in each of the periods, which follow each other, by her role."""
        hers = {"guides": {"$in": [sales.guide_text(guide_id, role) for role in sales.GUIDE_ROLES]}}
        criteria = {"brand_id": brand_id, **hers, **_dates(periods)}
        group = {"_id": {"period": _period_text(periods), "guide": "$guides"}, **_SUMS}
        pipeline: list[Document] = [
            {"$match": criteria},
            {"$unwind": "$guides"},
            {"$match": hers},
            {"$group": group},
        ]
        found = {
            (one["_id"]["period"], sales.guide_subject(one["_id"]["guide"]).role): sales.amounts_of(one)
            for one in await aggregated(self._sales, pipeline)
        }
        return {
            (period, role): found.get((_text(period), role), NOTHING)
            for period in periods
            for role in sales.GUIDE_ROLES
        }

    async def stores_ranked(self, brand_id: str, period: Period, most: int) -> list[Ranked]:
        """The stores of a brand by net sales, those that are equal by their ids; so many of them."""
        return await self._first(_stores_ranking(brand_id, period), most)

    async def guides_ranked(self, brand_id: str, period: Period, most: int) -> list[Ranked]:
        """The guides of a brand by net sales, those that are equal by their ids; so many of them."""
        return await self._first(_guides_ranking(brand_id, period), most)

    async def store_rank(self, brand_id: str, period: Period, store_id: str) -> tuple[Ranked | None, int]:
        """A store's place, None where nothing was counted for it; and how many there are."""
        return await self._one(_stores_ranking(brand_id, period), store_id)

    async def guide_rank(self, brand_id: str, period: Period, guide_id: str) -> tuple[Ranked | None, int]:
        """A guide's place, None where nothing was counted for her; and how many there are."""
        return await self._one(_guides_ranking(brand_id, period), guide_id)

    async def _by_period(self, criteria: Document, periods: Sequence[Period]) -> dict[Period, Amounts]:
        pipeline = [{"$match": criteria}, {"$group": {"_id": _period_text(periods), **_SUMS}}]
        found = {one["_id"]: sales.amounts_of(one) for one in await aggregated(self._sales, pipeline)}
        return {period: found.get(_text(period), NOTHING) for period in periods}

    async def _first(self, ranking: Sequence[Document], most: int) -> list[Ranked]:
        order = {"$sort": {"net_minor": -1, "_id": 1}}
        found = await aggregated(self._sales, [*ranking, order, {"$limit": most}], hint=_BY_DAY)
        return [_ranked(one) for one in found]

    async def _one(self, ranking: Sequence[Document], subject_id: str) -> tuple[Ranked | None, int]:
        facets = {"own": [{"$match": {"_id": subject_id}}], "all": [{"$count": "count"}]}
        [found] = await aggregated(self._sales, [*ranking, {"$facet": facets}], hint=_BY_DAY)
        own = [_ranked(one) for one in found["own"]]
        return own[0] if own else None, found["all"][0]["count"] if found["all"] else 0


def _stores_ranking(brand_id: str, period: Period) -> list[Document]:
    """Every store for which anything was counted in a period, with its sums and its rank."""
    return [
        {"$match": {"brand_id": brand_id, **_dates([period])}},
        {"$unwind": "$stores"},
        {"$group": {"_id": "$stores", **_SUMS}},
        *_RANKED,
    ]


def _guides_ranking(brand_id: str, period: Period) -> list[Document]:
    """Every guide for whom anything was counted in a period, with her sums over all roles and her rank."""
    guide_id = {"$arrayElemAt": [{"$split": ["$_id", "|"]}, 0]}
    return [
        {"$match": {"brand_id": brand_id, **_dates([period])}},
        {"$unwind": "$guides"},
        # By guide and role first: there are few of these, and it is they whose text is taken apart.
        {"$group": {"_id": "$guides", **_SUMS}},
        {"$group": {"_id": guide_id, **_SUMS}},
        *_RANKED,
    ]


def _dates(periods: Sequence[Period]) -> Document:
    """Documents of any day from the first of the periods to the last."""
    first, last = periods[0], periods[-1]
    # Compared as texts, so that whatever the length of a month, its days lie between these two.
    return {"date": {"$gte": _text(first), "$lte": f"{_text(last)}{'-31' if last.whole_month else ''}"}}


def _period_text(periods: Sequence[Period]) -> Any:
    """The expression for the period that a document's day is in."""
    return {"$substrBytes": ["$date", 0, _MONTH_LENGTH]} if periods[0].whole_month else "$date"


def _text(period: Period) -> str:
    day = period.day.isoformat()
    return day[:_MONTH_LENGTH] if period.whole_month else day


def _ranked(found: Document) -> Ranked:
    return Ranked(found["rank"], found["_id"], sales.amounts_of(found))
