"""Payouts in MongoDB, and the statements that they pay.

Documents: payouts `{_id: brand|batch, month, guide_ids, state, through, paid_count, refused, due_time}`.
`through` is the guide up to whom the batch has been gone through, in order of ids; `due_time` stands there
while there is more to do: when somebody else should go on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from chassis.errors import NotFound
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Index
from svc_commission.order.documents import month_text
from svc_commission.rules.attribution import guide_of, guide_payee

RUNNING: Final = "RUNNING"
DONE: Final = "DONE"

INDEXES = (
    Index("payouts", "by_time", [("brand_id", 1), ("record_time", -1), ("_id", -1)]),
    Index("payouts", "due", [("due_time", 1)], {"sparse": True}),
)
_PAID: Final = {"payee": 1, "closing_payable_minor": 1, "currency_code": 1}
_LISTED: Final = {"refused": 0, "guide_ids": 0}


class PayoutStore:
    """Reads and writes payouts; reads statements."""

    def __init__(self, database: Database) -> None:
        self._payouts = database["payouts"]
        self._statements = database["statements"]

    async def insert(self, payout: Document) -> Document:
        """Writes a new payout; the one that stands if its batch is there already."""
        try:
            await self._payouts.insert_one(payout)
        except DuplicateKeyError:
            return await self.find(payout["brand_id"], payout["batch_id"])
        return payout

    async def standing(self, brand_id: str, batch_id: str) -> Document | None:
        """A payout, or None."""
        return await self._payouts.find_one({"_id": f"{brand_id}|{batch_id}"})

    async def find(self, brand_id: str, batch_id: str) -> Document:
        """Raises: NotFound PAYOUT_UNKNOWN."""
        found = await self.standing(brand_id, batch_id)
        if found is None:
            raise _unknown()
        return found

    async def advance(
        self,
        payout: Document,
        *,
        through: str,
        paid: Sequence[int],
        currency_code: str,
        refused: Sequence[Document],
        done: bool,
    ) -> None:
        """Notes what became of the next guides, `through` the last of them, unless somebody else has.

        `paid`: what each of those was paid who were. `done`: there are no more.
        """
        counted = {
            "paid_count": len(paid),
            "paid_minor": sum(paid),
            "refused_count": len(refused),
        }
        update: dict[str, Any] = {
            "$set": {"through": through} | ({"currency_code": currency_code} if currency_code else {}),
            "$inc": counted,
            "$push": {"refused": {"$each": list(refused)}},
        }
        if done:
            update["$set"]["state"] = DONE
            update["$unset"] = {"due_time": 1}
        await self._payouts.update_one(
            {"_id": payout["_id"], "through": payout["through"], "state": RUNNING}, update
        )

    async def progress(self, payout: Document) -> Document:
        """How far a payout has come by now, without the guides whom it names or refuses: they may be many."""
        found = await self._payouts.find_one({"_id": payout["_id"]}, {"state": 1, "through": 1})
        if found is None:
            raise _unknown()
        return found

    async def due(self, now: datetime, most: int) -> list[Document]:
        """Some payouts that nobody goes on with, longest due first."""
        found = self._payouts.find({"due_time": {"$lte": now}}).sort("due_time", 1).limit(most)
        return [payout async for payout in found]

    async def put_off(self, payout: Document, until: datetime) -> None:
        """Keeps others from going on with it for a while."""
        await self._payouts.update_one(
            {"_id": payout["_id"], "due_time": {"$exists": True}}, {"$max": {"due_time": until}}
        )

    async def page(self, brand_id: str, after: tuple[datetime, str] | None, size: int) -> list[Document]:
        """Up to `size` payouts, the last recorded first, then by id; without guides."""
        query: Document = {"brand_id": brand_id}
        if after is not None:
            time, key = after
            query["record_time"] = {"$lte": time}
            query["$or"] = [{"record_time": {"$lt": time}}, {"_id": {"$lt": key}}]
        found = self._payouts.find(query, _LISTED).sort([("record_time", -1), ("_id", -1)]).limit(size)
        return [payout async for payout in found]

    async def payable(self, brand_id: str, month: date, after: str, most: int) -> dict[str, Document]:
        """The next statements of guides, after one, that end with something payable, by guide and in order.

        Of each `{payee, closing_payable_minor, currency_code}`.
        """
        between = {"$gt": _statement_key(brand_id, month, after), "$lt": _statement_key(brand_id, month, "~")}
        query = {"_id": between, "closing_payable_minor": {"$gt": 0}}
        found = self._statements.find(query, _PAID).sort("_id", 1).limit(most)
        return {guide_of(one["payee"]): one async for one in found}

    async def statements(self, brand_id: str, month: date, guide_ids: Sequence[str]) -> dict[str, Document]:
        """The statements of some guides, as above."""
        ids = [_statement_key(brand_id, month, guide_id) for guide_id in guide_ids]
        found = self._statements.find({"_id": {"$in": ids}}, _PAID)
        return {guide_of(one["payee"]): one async for one in found}


def _unknown() -> NotFound:
    return NotFound("PAYOUT_UNKNOWN", "the brand has no payout of this batch id")


def _statement_key(brand_id: str, month: date, guide_id: str) -> str:
    return f"{brand_id}|{month_text(month)}|{guide_payee(guide_id)}"
