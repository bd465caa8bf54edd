"""Payouts on their way: chunk by chunk through the guides, each statement paid once.

What pays a statement is its entry in the journal, whose id is the statement's: a second one cannot be. A
payout only remembers how far it has come, so whoever goes on with it after a crash may do the last chunk
again, and finds its own entries there.
"""

from __future__ import annotations

import bisect
import time
from datetime import date, datetime, timedelta
from typing import Final

from chassis import crash
from chassis.clock import Now
from chassis.errors import Unavailable
from chassis.mongo.connection import Document
from svc_commission.month.leases import Leases
from svc_commission.month.store_month import CLOSED, MonthStore
from svc_commission.order.documents import month_of
from svc_commission.payout.entries import Amount, entry_document, entry_id
from svc_commission.payout.store_entry import EntryStore
from svc_commission.payout.store_payout import RUNNING, PayoutStore
from svc_commission.rules.month import next_month
from svc_commission.rules.order import Account
from svc_commission.rules.payout import judged
from svc_commission.rules.posting import PostingKind

_POSTED = crash.point("payout_posted")

CHUNK: Final = 1000
"""Guides of one step."""
HELD: Final = timedelta(seconds=30)
"""For so long nobody else goes on with a payout that somebody does; longer than any call takes."""
WITHIN_S: Final = 15.0
"""How long one call, or one round, goes on with a payout."""


class Payouts:
    """Goes on with payouts."""

    def __init__(
        self, store: PayoutStore, entries: EntryStore, months: MonthStore, leases: Leases, now: Now
    ) -> None:
        self._store = store
        self._entries = entries
        self._months = months
        self._leases = leases
        self._now = now

    async def go_on(self, payout: Document) -> Document:
        """Pays until all are paid, or for a while; the payout as it stands then."""
        until_s = time.monotonic() + WITHIN_S
        while payout["state"] == RUNNING and time.monotonic() < until_s:
            await self._step(payout)
            payout = payout | await self._store.progress(payout)
        return await self._store.find(payout["brand_id"], payout["batch_id"])

    async def round(self) -> bool:
        """Goes on with a payout that a crash cut off, or that took longer than its call."""
        due = await self._store.due(self._now(), 1)
        for payout in due:
            await self._store.put_off(payout, self._now() + HELD)
            await self.go_on(payout)
        return bool(due)

    async def _step(self, payout: Document) -> None:
        """Pays the next guides of a payout."""
        guide_ids, statements = await self._next(payout)
        amounts = {guide_id: one["closing_payable_minor"] for guide_id, one in statements.items()}
        payable = {guide_id: amount for guide_id, amount in amounts.items() if amount > 0}
        now, paid_in = self._now(), next_month(month_of(payout["month"]))
        entries = [_entry(payout, statements[guide_id], paid_in, now) for guide_id in payable]
        lease = await self._leases.held(payout["brand_id"])
        is_open = lease.first_open == paid_in
        if is_open:
            with lease.writing():
                standing = await self._entries.insert(entries)
        else:
            await self._check_waited_out(payout["brand_id"], paid_in)
            standing = await self._entries.find([entry["_id"] for entry in entries])
        by_guide = zip(payable, entries, strict=True)
        paid_by = {
            guide_id: standing[one["_id"]]["cause"] for guide_id, one in by_guide if one["_id"] in standing
        }
        _POSTED.reached()
        refused = judged(guide_ids, statements, payable, paid_by, _cause(payout), is_open=is_open)
        await self._store.advance(
            payout,
            through=guide_ids[-1] if guide_ids else payout["through"],
            paid=[amount for guide_id, amount in payable.items() if guide_id not in refused],
            currency_code=next((one["currency_code"] for one in statements.values()), ""),
            refused=[{"guide_id": guide_id, "reason": why.value} for guide_id, why in refused.items()],
            done=len(guide_ids) < CHUNK,
        )

    async def _check_waited_out(self, brand_id: str, paid_in: date) -> None:
        """Whether nobody else who goes on with a payout can post in a month any longer.

        Raises: Unavailable MONTH_BEING_CLOSED while somebody might.
        """
        close = await self._months.close_of(brand_id, paid_in)
        if close is None or (close["state"] != CLOSED and "waited_time" not in close):
            raise Unavailable("MONTH_BEING_CLOSED", "payments may still be posted in it", retry_after_s=1)

    async def _next(self, payout: Document) -> tuple[list[str], dict[str, Document]]:
        """The next guides of a payout, and the statements of those who have one."""
        brand_id, month, through = payout["brand_id"], month_of(payout["month"]), payout["through"]
        named = payout["guide_ids"]
        if named:
            place = bisect.bisect_right(named, through)
            guide_ids = named[place : place + CHUNK]
            return guide_ids, await self._store.statements(brand_id, month, guide_ids)
        found = await self._store.payable(brand_id, month, through, CHUNK)
        return list(found), found


def _cause(payout: Document) -> str:
    return f"PAYOUT:{payout['batch_id']}"


def _entry(payout: Document, statement: Document, paid_in: date, now: datetime) -> Document:
    """The entry that pays a statement. What is owed stands first, by which statements count entries."""
    amount, payee = statement["closing_payable_minor"], statement["payee"]
    return entry_document(
        entry_id(payout["brand_id"], PostingKind.PAID_OUT, payout["month"], payee),
        _cause(payout),
        PostingKind.PAID_OUT,
        [Amount(Account.PAYABLE, payee, amount), Amount(Account.PAID, payee, -amount)],
        brand_id=payout["brand_id"],
        currency_code=statement["currency_code"],
        posting_month=paid_in,
        origin_month=paid_in,
        now=now,
    )
