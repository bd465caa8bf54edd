"""Sums over the journal, by the database. The journal itself is written in `store_order.py` alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chassis.mongo.connection import Database, Document, aggregated


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


def _until(as_of: datetime | None) -> dict[str, Any]:
    return {} if as_of is None else {"recorded_time": {"$lte": as_of}}
