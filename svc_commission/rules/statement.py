"""A payee's statement of one month: what was owed before, what the month did to it, what is owed now.

Amounts are minor units from the payee's side: positive is owed to her. In the ledger these are credits, and
negative. A statement is made from the month's postings, and `problems` tells whether it adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from svc_commission.rules.order import Account
from svc_commission.rules.posting import PostingKind

ACCOUNTS = (Account.HELD, Account.PAYABLE)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a month did to what one payee is owed in one currency. `month` is its first day.

    Every amount but `confirmed_minor` is of both accounts together; `held_minor` tells how much of each was
    posted on HELD, kinds of which nothing was being absent. `confirmed_minor` moved from HELD to PAYABLE.
    What was clawed back or paid out is negative; positive only where more of it was undone, as by a payment
    that became known after the refund of it.

    Two identities hold of every statement, and `problems` looks at both:
    opening_payable + opening_held + earned + clawed_back + adjusted + pool_shared + opening_balance
    + written_off + paid_out = closing_payable + closing_held, and
    opening_held + Σ held - confirmed = closing_held.
    """

    brand_id: str
    statement_number: str
    payee: str
    month: date
    currency_code: str
    opening_payable_minor: int
    opening_held_minor: int
    earned_minor: int
    clawed_back_minor: int
    confirmed_minor: int
    adjusted_minor: int
    pool_shared_minor: int
    opening_balance_minor: int
    written_off_minor: int
    paid_out_minor: int
    closing_payable_minor: int
    closing_held_minor: int
    entry_count: int
    held_minor: Mapping[PostingKind, int]

    def changes(self) -> dict[PostingKind, int]:
        """What each kind changed of what is owed in sum. CONFIRMED changes nothing of it, and is absent."""
        return {
            PostingKind.EARNED: self.earned_minor,
            PostingKind.CLAWED_BACK: self.clawed_back_minor,
            PostingKind.ADJUSTED: self.adjusted_minor,
            PostingKind.POOL_SHARED: self.pool_shared_minor,
            PostingKind.OPENING_BALANCE: self.opening_balance_minor,
            PostingKind.WRITTEN_OFF: self.written_off_minor,
            PostingKind.PAID_OUT: self.paid_out_minor,
        }

    def on(self, account: Account) -> dict[PostingKind, int]:
        """What each kind, CONFIRMED too, changed of HELD or of PAYABLE."""
        changes, confirmed = self.changes(), self.confirmed_minor
        held = {kind: self.held_minor.get(kind, 0) for kind in changes}
        if account is Account.HELD:
            return {**held, PostingKind.CONFIRMED: -confirmed}
        return {**{kind: changes[kind] - held[kind] for kind in changes}, PostingKind.CONFIRMED: confirmed}

    def opening_minor(self) -> int:
        """What was owed when the month began."""
        return self.opening_payable_minor + self.opening_held_minor

    def closing_minor(self) -> int:
        """What is owed when it is closed."""
        return self.closing_payable_minor + self.closing_held_minor

    def problems(self) -> list[str]:
        """Why it cannot be right, in words; empty: it adds up."""
        said = []
        comes_to = self.opening_minor() + sum(self.changes().values())
        if comes_to != self.closing_minor():
            said.append(f"opening and changes come to {comes_to}, closing is {self.closing_minor()}")
        held = self.opening_held_minor + sum(self.held_minor.values()) - self.confirmed_minor
        if held != self.closing_held_minor:
            said.append(f"held comes to {held}, closing held is {self.closing_held_minor}")
        if PostingKind.CONFIRMED in self.held_minor:
            said.append("what was confirmed is counted twice")
        if self.held_minor.get(PostingKind.PAID_OUT, 0):
            said.append("was paid out of what is held")
        if self.month.day != 1:
            said.append(f"{self.month} is not the first day of a month")
        if self.entry_count < 0:
            said.append(f"is made of {self.entry_count} entries")
        return said


def statement_of(
    previous: Statement | None,
    sums: Mapping[tuple[Account, PostingKind], int],
    *,
    brand_id: str,
    statement_number: str,
    payee: str,
    month: date,
    currency_code: str,
    entry_count: int,
) -> Statement:
    """The statement of a month from the sums of its postings, as the ledger signs them: credits negative.

    `previous`: the payee's last statement in the currency; None: the first. The closing amounts come from
    all that was posted, whatever its kind, so that `problems` finds what no kind accounts for.

    Raises: ValueError when the previous one is not an earlier one of the same payee, or a sum is of an
    account that nobody is owed on.
    """
    if previous is not None:
        whose = previous.brand_id, previous.payee, previous.currency_code
        if whose != (brand_id, payee, currency_code) or previous.month >= month:
            raise ValueError(f"{previous.statement_number} does not come before {statement_number}")
    owed = dict.fromkeys(ACCOUNTS, 0)
    for (account, _), amount in sums.items():
        if account not in owed:
            raise ValueError(f"{account} is not owed to anybody")
        owed[account] -= amount
    opening_payable = previous.closing_payable_minor if previous else 0
    opening_held = previous.closing_held_minor if previous else 0

    def changed(kind: PostingKind) -> int:
        return -sum(sums.get((account, kind), 0) for account in ACCOUNTS)

    return Statement(
        brand_id=brand_id,
        statement_number=statement_number,
        payee=payee,
        month=month,
        currency_code=currency_code,
        opening_payable_minor=opening_payable,
        opening_held_minor=opening_held,
        earned_minor=changed(PostingKind.EARNED),
        clawed_back_minor=changed(PostingKind.CLAWED_BACK),
        confirmed_minor=-sums.get((Account.PAYABLE, PostingKind.CONFIRMED), 0),
        adjusted_minor=changed(PostingKind.ADJUSTED),
        pool_shared_minor=changed(PostingKind.POOL_SHARED),
        opening_balance_minor=changed(PostingKind.OPENING_BALANCE),
        written_off_minor=changed(PostingKind.WRITTEN_OFF),
        paid_out_minor=changed(PostingKind.PAID_OUT),
        closing_payable_minor=opening_payable + owed[Account.PAYABLE],
        closing_held_minor=opening_held + owed[Account.HELD],
        entry_count=entry_count,
        held_minor={
            kind: -amount
            for (account, kind), amount in sorted(sums.items())
            if account is Account.HELD and kind is not PostingKind.CONFIRMED and amount
        },
    )
