"""What a close moves between payees, as entries: `rules.sharing` decides."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from chassis.mongo.connection import Document
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.month.store_statement import StatementStore
from svc_commission.order.documents import month_text
from svc_commission.payout.entries import Amount, entry_document, entry_id
from svc_commission.rules import sharing
from svc_commission.rules.attribution import guide_payee, pool_payee
from svc_commission.rules.month import month_end
from svc_commission.rules.order import Account
from svc_commission.rules.plan import Plan, PoolSharing
from svc_commission.rules.posting import PostingKind
from svc_commission.rules.sharing import StoreStaff

_MOMENT: Final = timedelta(milliseconds=1)
_POOL: Final = pool_payee("")


class Moving:
    """Makes the entries by which a close moves money between payees."""

    def __init__(self, statements: StatementStore, members: MembersClient) -> None:
        self._statements = statements
        self._members = members

    async def pools_shared(
        self, brand_id: str, month: date, facts: BrandFacts, plan: Plan, now: datetime
    ) -> list[Document]:
        """An entry for each store pool of which something is shared out."""
        if plan.pool_sharing is PoolSharing.KEEP:
            return []
        pools = await self._balances(brand_id, month, {"$regex": f"^{_POOL}"})
        guides = await self._members.all_guides(brand_id)
        stands = sharing.staff_at(guides, month_end(month, ZoneInfo(facts.time_zone)) - _MOMENT)
        minutes = await self._statements.minutes(brand_id, month)
        entries = []
        for payee, (payable, _) in sorted(pools.items()):
            store_id = payee.removeprefix(_POOL)
            staff = StoreStaff(stands.get(store_id, ()), minutes.get(store_id, {}))
            if shares := sharing.pool_shares(payable, staff, plan.pool_sharing):
                amounts = [Amount(Account.PAYABLE, payee, sum(shares.values()))]
                amounts += [Amount(Account.PAYABLE, to, -part) for to, part in sorted(shares.items())]
                entries.append(
                    _entry(PostingKind.POOL_SHARED, amounts, brand_id, facts, month, store_id, now)
                )
        return entries

    async def written_off(
        self, brand_id: str, month: date, facts: BrandFacts, plan: Plan, now: datetime
    ) -> list[Document]:
        """An entry for each guide who has left owing something."""
        if not plan.write_off_leavers:
            return []
        end = month_end(month, ZoneInfo(facts.time_zone))
        guides = await self._members.all_guides(brand_id)
        left = [guide_payee(guide_id) for guide_id, guide in guides.items() if not guide.employed_at(end)]
        entries = []
        for payee, (payable, held) in sorted((await self._balances(brand_id, month, {"$in": left})).items()):
            if amount := sharing.written_off(payable, held):
                amounts = [Amount(Account.PAYABLE, payee, -amount), Amount(Account.EXPENSE, "", amount)]
                entries.append(_entry(PostingKind.WRITTEN_OFF, amounts, brand_id, facts, month, payee, now))
        return entries

    async def _balances(
        self, brand_id: str, month: date, criteria: dict[str, object]
    ) -> dict[str, tuple[int, int]]:
        """Payable and held, at the end of the month, of the payees who meet a condition."""
        before = (month - timedelta(days=1)).replace(day=1)
        previous = await self._statements.balances(brand_id, before, criteria)
        sums = await self._statements.payable_sums(brand_id, month, criteria)
        payees = previous.keys() | {payee for _, payee in sums}
        return {
            payee: (
                sums.get((Account.PAYABLE, payee), 0)
                + (previous[payee].closing_payable_minor if payee in previous else 0),
                sums.get((Account.HELD, payee), 0)
                + (previous[payee].closing_held_minor if payee in previous else 0),
            )
            for payee in payees
        }


def _entry(
    kind: PostingKind,
    amounts: list[Amount],
    brand_id: str,
    facts: BrandFacts,
    month: date,
    whose: str,
    now: datetime,
) -> Document:
    text = month_text(month)
    return entry_document(
        entry_id(brand_id, kind, text, whose),
        f"{kind}:{text}",
        kind,
        amounts,
        brand_id=brand_id,
        currency_code=facts.currency_code,
        posting_month=month,
        origin_month=month,
        now=now,
    )
