"""The journal read: sums by the database, pages, single entries. What writes it is `store_order.py` alone."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from chassis.errors import NotFound
from chassis.mongo.connection import Database, Document, aggregated
from svc_commission.order.documents import month_text


class JournalStore:
    """Reads the journal's sums."""

    def __init__(self, database: Database) -> None:
        self._journal = database["journal"]

    async def account_sums(
        self, brand_id: str, as_of: datetime | None, payee: str | None = None
    ) -> list[Document]:
        """`{account, currency_code, amount_minor}` per account, of all entries recorded up to a moment.

        With a payee: of that payee's postings alone.
        """
        criteria: Document = {"brand_id": brand_id, **_until(as_of)}
        postings: list[Document] = [{"$unwind": "$postings"}]
        if payee is not None:
            criteria["postings.payee"] = payee
            postings.append({"$match": {"postings.payee": payee}})
        group = {
            "_id": {"account": "$postings.account", "currency_code": "$currency_code"},
            "amount_minor": {"$sum": "$postings.amount_minor"},
        }
        sums = await aggregated(self._journal, [{"$match": criteria}, *postings, {"$group": group}])
        found = [{**one["_id"], "amount_minor": one["amount_minor"]} for one in sums]
        return sorted(found, key=lambda one: one["account"])

    async def entry_count(self, brand_id: str, as_of: datetime | None) -> int:
        """How many entries were recorded up to a moment."""
        return int(await self._journal.count_documents({"brand_id": brand_id, **_until(as_of)}))

    async def of_no_order(self, brand_id: str, most: int) -> tuple[int, int, list[str]]:
        """Of the entries that are of no order: how many, their sum, and up to `most` that do not balance."""
        criteria = {"brand_id": brand_id, "order_key": None}
        sum_of_each = {"amount_minor": {"$sum": "$postings.amount_minor"}}
        unbalanced: list[Document] = [{"$match": {"amount_minor": {"$ne": 0}}}, {"$limit": most}]
        group = {"_id": None, "count": {"$sum": 1}, "amount_minor": {"$sum": "$amount_minor"}}
        found = await aggregated(
            self._journal,
            [
                {"$match": criteria},
                {"$project": sum_of_each},
                {"$facet": {"all": [{"$group": group}], "unbalanced": unbalanced}},
            ],
        )
        [sums] = found[0]["all"] or [{"count": 0, "amount_minor": 0}]
        return sums["count"], sums["amount_minor"], [entry["_id"] for entry in found[0]["unbalanced"]]

    async def entry(self, brand_id: str, entry_id: str) -> Document:
        """An entry of the brand. Raises: NotFound ENTRY_UNKNOWN, also where it is another's."""
        found = await self._journal.find_one({"_id": entry_id, "brand_id": brand_id})
        if found is None:
            raise NotFound("ENTRY_UNKNOWN", "the brand has no entry of this id")
        return found

    async def page(
        self,
        brand_id: str,
        payee: str,
        month: date | None,
        after: tuple[datetime, str] | None,
        size: int,
    ) -> list[Document]:
        """Up to `size` entries with postings of a payee, the last recorded first, then by id.

        `month`: those that are posted in it; None: all. `after`: those that come after one.
        """
        query: Document = {"brand_id": brand_id, "postings.payee": payee}
        if month is not None:
            query["posting_month"] = month_text(month)
        if after is not None:
            time, entry_id = after
            query["recorded_time"] = {"$lte": time}
            query["$or"] = [{"recorded_time": {"$lt": time}}, {"_id": {"$lt": entry_id}}]
        found = self._journal.find(query).sort([("recorded_time", -1), ("_id", -1)]).limit(size)
        return [entry async for entry in found]


def _until(as_of: datetime | None) -> dict[str, Any]:
    return {} if as_of is None else {"recorded_time": {"$lte": as_of}}
