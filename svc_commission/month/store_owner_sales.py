"""What owners sold in closed months, in MongoDB.

Documents: owner_sales `{_id: brand|month|owner, sales_minor, latest_minor}`.

`sales_minor` as the close found it, for ever; `latest_minor` with what became known later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from chassis.mongo.connection import Database, Document, aggregated, within
from chassis.mongo.schema import Index
from svc_commission.month.owner_sales import LATE_DUE
from svc_commission.month.store_statement import SUMS_S_MAX

INDEXES = (
    Index("orders", "owner_sales", [("brand_id", 1), ("owner_sales.month", 1), ("attribution.owner", 1)]),
    Index(
        "orders",
        "tier_due",
        [("brand_id", 1), ("tier_due", 1)],
        {"partialFilterExpression": {"tier_due": {"$exists": True}}},
    ),
    Index("orders", "late_sales", [(LATE_DUE, 1)], {"sparse": True}),
)


class OwnerSalesStore:
    """Sums owners' sales and keeps the sums."""

    def __init__(self, database: Database) -> None:
        self._sales = database["owner_sales"]
        self._orders = database["orders"]

    async def fix(self, brand_id: str, month: str) -> None:
        """Sums a month's sales by owner; each sum stays as it is first found. Safe to repeat."""
        kept = {
            "$merge": {"into": self._sales.name, "on": "_id", "whenMatched": "keepExisting"},
        }
        fields = {
            "_id": {"$concat": [brand_id, "|", month, "|", "$_id"]},
            "sales_minor": "$amount_minor",
            "latest_minor": "$amount_minor",
        }
        # Of a million orders it takes longer than a call may.
        with within(SUMS_S_MAX):
            await aggregated(self._orders, [*_sums(brand_id, month, None), {"$project": fields}, kept])

    async def find_many(self, brand_id: str, month: str, owners: Sequence[str]) -> dict[str, Document]:
        """The sums of a closed month by owner; of those who have one."""
        prefix = f"{brand_id}|{month}|"
        keys = [f"{prefix}{owner}" for owner in sorted(set(owners))]
        found = await self._sales.find({"_id": {"$in": keys}}).to_list(None)
        return {str(one["_id"]).removeprefix(prefix): one for one in found}

    async def refresh(self, brand_id: str, month: str, owner: str) -> Document:
        """Sums an owner's sales of a closed month anew; the sum of the close beside it."""
        found = await aggregated(self._orders, _sums(brand_id, month, owner))
        latest = found[0]["amount_minor"] if found else 0
        key = {"_id": f"{brand_id}|{month}|{owner}"}
        update = {"$set": {"latest_minor": latest}, "$setOnInsert": {"sales_minor": 0}}
        try:
            await self._sales.update_one(key, update, upsert=True)
        except DuplicateKeyError:
            await self._sales.update_one(key, update)
        return {**(await self._sales.find_one(key) or {})}

    async def tier_due(self, brand_id: str, month: str, after: str, most: int) -> list[Document]:
        """Orders with lines under tiers that were paid in a month and are not rated yet, by key."""
        query = {"brand_id": brand_id, "tier_due": month, "_id": {"$gt": after}}
        return await self._orders.find(query).sort("_id", 1).limit(most).to_list(None)

    async def tier_due_count(self, brand_id: str, month: str) -> int:
        """How many there are."""
        return int(await self._orders.count_documents({"brand_id": brand_id, "tier_due": month}))

    async def late(self, now: datetime, most: int) -> list[Document]:
        """Orders that became known, or changed, after the close of a month, longest due first."""
        return await self._orders.find({LATE_DUE: {"$lte": now}}).sort(LATE_DUE, 1).limit(most).to_list(None)

    async def rated(self, brand_id: str, month: str, owner: str, latest_minor: int) -> list[Document]:
        """An owner's orders that were rated by other sales of a closed month than these."""
        other = {"month": month, "latest_minor": {"$ne": latest_minor}}
        query = {
            "brand_id": brand_id,
            "owner_sales.month": month,
            "attribution.owner": owner,
            "closed_sales": {"$elemMatch": other},
        }
        return await self._orders.find(query).to_list(None)


def _sums(brand_id: str, month: str, owner: str | None) -> list[Mapping[str, object]]:
    criteria = {"brand_id": brand_id, "owner_sales.month": month}
    return [
        {"$match": criteria if owner is None else criteria | {"attribution.owner": owner}},
        {"$project": {"attribution.owner": 1, "owner_sales": 1}},
        {"$unwind": "$owner_sales"},
        {"$match": {"owner_sales.month": month}},
        {"$group": {"_id": "$attribution.owner", "amount_minor": {"$sum": "$owner_sales.amount_minor"}}},
    ]
