"""A brand's plans in MongoDB: one document `{_id: brand, rev, plans}`, so that none can overlap unseen."""

from __future__ import annotations

from collections.abc import Sequence

import bson
from pymongo.errors import DuplicateKeyError

from chassis.errors import Conflict, Refused
from chassis.mongo.connection import Database, Document
from svc_commission.order.store_order import BYTES_MAX
from svc_commission.plan.plans import plan_of
from svc_commission.rules.plan import Plan


class PlanStore:
    """Reads and writes plans."""

    def __init__(self, database: Database) -> None:
        self._plans = database["plans"]

    async def find(self, brand_id: str) -> Document:
        """The brand's document; a new one, not written yet, where there is none."""
        found = await self._plans.find_one({"_id": brand_id})
        return found or {"_id": brand_id, "rev": 0, "plans": [], "receipts": []}

    async def plans(self, brand_id: str) -> Sequence[Plan]:
        """All plans of a brand, for the rules."""
        return [plan_of(document) for document in (await self.find(brand_id))["plans"]]

    def check_room(self, plans: Sequence[Document]) -> None:
        """Raises: Refused TOO_MANY_PLANS where the database could not take them in one document."""
        if len(bson.encode({"plans": plans})) > BYTES_MAX:
            raise Refused("TOO_MANY_PLANS", "the brand's plans have too many rules and conditions to be kept")

    async def replace(self, document: Document) -> None:
        """Writes the next state. Raises: Conflict PLANS_CHANGED when somebody else has written."""
        guard = {"_id": document["_id"], "rev": document["rev"]}
        written = {**document, "rev": document["rev"] + 1}
        try:
            await self._plans.replace_one(guard, written, upsert=True)
        except DuplicateKeyError:
            raise Conflict(
                "PLANS_CHANGED", "the brand's plans were changed meanwhile", retry_after_s=0.05
            ) from None
