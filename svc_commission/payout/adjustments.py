"""Approved adjustments on their way into the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from chassis import crash
from chassis.clock import Now
from chassis.mongo.connection import Document
from svc_commission.month.leases import Leases
from svc_commission.order.documents import month_of
from svc_commission.payout.entries import Amount, entry_document, entry_id
from svc_commission.payout.store_adjustment import AdjustmentStore
from svc_commission.payout.store_entry import EntryStore
from svc_commission.rules import month
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind

_APPROVED = crash.point("payout_adjustment_approved")
_POSTED = crash.point("payout_adjustment_posted")

MOST: Final = 200
"""Adjustments of one round."""
RETRY_AFTER: Final = timedelta(seconds=5)


class Adjustments:
    """Posts what was approved."""

    def __init__(self, store: AdjustmentStore, entries: EntryStore, leases: Leases, now: Now) -> None:
        self._store = store
        self._entries = entries
        self._leases = leases
        self._now = now

    async def post(self, brand_id: str, approved: Sequence[Document]) -> None:
        """Posts adjustments of one brand, each once, however often it is tried."""
        _APPROVED.reached()
        now = self._now()
        lease = await self._leases.held(brand_id)
        with lease.writing():
            await self._entries.insert([_entry(one, lease.first_open, now) for one in approved])
        _POSTED.reached()
        await self._store.posted(approved)

    async def round(self) -> bool:
        """Posts what a crash, or a database that was away, left between approval and journal."""
        now = self._now()
        due = await self._store.to_post(now, MOST)
        if due:
            await self._store.put_off(due, now + RETRY_AFTER)
        by_brand = sorted(due, key=lambda one: one["brand_id"])
        for brand_id, approved in groupby(by_brand, key=lambda one: one["brand_id"]):
            await self.post(brand_id, list(approved))
        return len(due) == MOST


def entry_id_of(adjustment: Document) -> str:
    """The id of the entry that posts an adjustment."""
    return entry_id(adjustment["brand_id"], PostingKind.ADJUSTED, adjustment["adjustment_id"])


def _entry(adjustment: Document, first_open: date | None, now: datetime) -> Document:
    """Its entry, in the month that it was proposed for; without one, in that of the approval."""
    named, zone = adjustment["month"], ZoneInfo(adjustment["time_zone"])
    origin = month_of(named) if named else month.month_of(adjustment["decide_time"], zone)
    amount = adjustment["amount_minor"]
    return entry_document(
        entry_id_of(adjustment),
        f"ADJUSTMENT:{adjustment['adjustment_id']}",
        PostingKind.ADJUSTED,
        [
            Amount(Account.PAYABLE, adjustment["payee"], -amount),
            Amount(Account.EXPENSE, adjustment["bearer"], amount),
        ],
        brand_id=adjustment["brand_id"],
        currency_code=adjustment["currency_code"],
        posting_month=month.posting_month(origin, first_open),
        origin_month=origin,
        now=now,
    )
