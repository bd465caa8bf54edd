"""Opening balances: what another system owed, taken over once for each payee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from chassis import crash
from chassis.clock import Now
from chassis.errors import DaogouError, NotFound, Refused, Violation, invalid_fields
from chassis.mongo.connection import Document
from chassis.rpc import limits
from daogou.commission.v1.adjustment_pb2 import OpeningBalance, OpeningBalanceOutcome
from svc_commission.members_client import MembersClient
from svc_commission.month.leases import Leases
from svc_commission.payout.entries import Amount, entry_document, entry_id
from svc_commission.payout.messages import payee_of
from svc_commission.payout.store_entry import EntryStore
from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind

CAUSE = "OPENING_BALANCE"
_IMPORTED = OpeningBalanceOutcome.OPENING_BALANCE_OUTCOME_IMPORTED
_DUPLICATE = OpeningBalanceOutcome.OPENING_BALANCE_OUTCOME_DUPLICATE

_TAKEN_OVER = crash.point("payout_balances_taken_over")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one balance. With an error: nothing."""

    outcome: OpeningBalanceOutcome.ValueType = OpeningBalanceOutcome.OPENING_BALANCE_OUTCOME_UNSPECIFIED
    entry_id: str = ""
    error: DaogouError | None = None


class OpeningBalances:
    """Takes them over. The entry in the journal is the only record of one: what it says was imported."""

    def __init__(self, entries: EntryStore, leases: Leases, members: MembersClient, now: Now) -> None:
        self._entries = entries
        self._leases = leases
        self._members = members
        self._now = now

    async def take_over(
        self, brand_id: str, currency_code: str, month: date, balances: Sequence[OpeningBalance]
    ) -> list[Verdict]:
        """Posts balances in a month; what became of each, in order. Raises: Unavailable."""
        errors = await self._errors(brand_id, balances)
        wanted = {
            place: _entry(brand_id, currency_code, month, balance, self._now())
            for place, balance in enumerate(balances)
            if place not in errors
        }
        standing = await self._entries.find([entry["_id"] for entry in wanted.values()])
        new: dict[str, int] = {}
        for place, entry in wanted.items():
            if entry["_id"] not in standing:
                new.setdefault(entry["_id"], place)
        lease = await self._leases.held(brand_id)
        is_open = lease.first_open is None or month >= lease.first_open
        if new and is_open:
            with lease.writing():
                raced = await self._entries.insert([wanted[place] for place in new.values()])
            _TAKEN_OVER.reached()
            standing |= raced
            new = {key: place for key, place in new.items() if key not in raced}
        # Of several of one payee the first decides, as if it had come in a call before.
        standing |= {key: wanted[place] for key, place in new.items()} if is_open else {}
        verdicts = []
        for place in range(len(balances)):
            if place in errors:
                verdicts.append(Verdict(error=errors[place]))
                continue
            entry = wanted[place]
            verdicts.append(
                _verdict(entry, standing.get(entry["_id"]), is_new=new.get(entry["_id"]) == place)
            )
        return verdicts

    async def _errors(self, brand_id: str, balances: Sequence[OpeningBalance]) -> dict[int, DaogouError]:
        """What is wrong with balances whatever is in the journal, by their place."""
        errors: dict[int, DaogouError] = {}
        for place, balance in enumerate(balances):
            found = limits.violations(balance)
            if not found and not (balance.payable_minor or balance.held_minor):
                found = [Violation("payable_minor", "and held_minor must not both be 0")]
            if found:
                errors[place] = invalid_fields(found)
        good = [balance for place, balance in enumerate(balances) if place not in errors]
        guides = await self._members.find_guides(brand_id, [one.guide_id for one in good if one.guide_id])
        named = [one.pool_store_id for one in good if one.pool_store_id]
        stores, _ = await self._members.find_stores(brand_id, named, [])
        for place, balance in enumerate(balances):
            if place in errors:
                continue
            if balance.guide_id and balance.guide_id not in guides:
                errors[place] = NotFound("GUIDE_UNKNOWN", "no guide of this brand has that id")
            if balance.pool_store_id and balance.pool_store_id not in stores:
                errors[place] = NotFound("STORE_UNKNOWN", "no store of this brand has that id")
        return errors


def _verdict(entry: Document, standing: Document | None, *, is_new: bool) -> Verdict:
    if standing is None:
        return Verdict(error=Refused("MONTH_CLOSED", "the month is closed: name one that is open"))
    if is_new:
        return Verdict(_IMPORTED, entry["_id"])
    if (standing["posting_month"], standing["postings"]) == (entry["posting_month"], entry["postings"]):
        return Verdict(_DUPLICATE, entry["_id"])
    changed = Refused("OPENING_BALANCE_CHANGED", "the payee has an opening balance of other amounts")
    return Verdict(error=changed)


def _entry(
    brand_id: str, currency_code: str, month: date, balance: OpeningBalance, now: datetime
) -> Document:
    payee = payee_of(balance)
    return entry_document(
        entry_id(brand_id, PostingKind.OPENING_BALANCE, payee),
        CAUSE,
        PostingKind.OPENING_BALANCE,
        [
            Amount(Account.PAYABLE, payee, -balance.payable_minor),
            Amount(Account.HELD, payee, -balance.held_minor),
            Amount(Account.CLEARING, "", balance.payable_minor + balance.held_minor),
        ],
        brand_id=brand_id,
        currency_code=currency_code,
        posting_month=month,
        origin_month=month,
        now=now,
    )
