"""Makes the statements of a month from its postings, whose sums the database makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import date, timedelta
from typing import Any, Final

from svc_commission.month.leases import Lease
from svc_commission.month.store_statement import StatementStore, sums_of
from svc_commission.order.documents import month_text
from svc_commission.rules.statement import Statement, statement_of

AT_ONCE: Final = 1000
"""Statements written at once."""
_NOTHING: Final[Mapping[str, Any]] = {"sums": [], "entry_count": 0}


class Statements:
    """The statements of one month of one brand."""

    def __init__(self, store: StatementStore, brand_id: str, month: date, currency_code: str) -> None:
        self._store = store
        self._brand_id = brand_id
        self._month = month
        self._currency_code = currency_code
        self.posted_minor = 0

    async def write(self, kept: Callable[[], Awaitable[Lease]]) -> AsyncIterator[tuple[int, int]]:
        """Writes them, telling how many of how many. `kept` keeps the right to.

        Raises: AssertionError when the month's entries or a statement do not add up.
        """
        made = await self.made()
        for begin in range(0, len(made), AT_ONCE):
            part = made[begin : begin + AT_ONCE]
            with (await kept()).writing():
                await self._store.add(part)
            yield begin + len(part), len(made)

    async def made(self) -> list[Statement]:
        """All of them, from the journal and the month before.

        Numbers follow the order of payees. Whoever has neither a posting nor a balance has no statement.
        Raises: AssertionError when the month's entries or a statement do not add up.
        """
        found = {one["_id"]: one for one in await self._store.month_sums(self._brand_id, self._month)}
        others = found.pop("", _NOTHING)
        posted = sum(one["amount_minor"] for of_payee in found.values() for one in of_payee["sums"])
        unowed = sum(one["amount_minor"] for one in others["sums"])
        assert posted + unowed == 0, f"the entries of {self._month:%Y-%m} sum to {posted + unowed}"
        self.posted_minor = -posted
        before = self._month - timedelta(days=1)
        previous = await self._store.balances(self._brand_id, before.replace(day=1))
        made = []
        for place, payee in enumerate(sorted(found.keys() | previous.keys()), start=1):
            made.append(self._statement(place, payee, previous.get(payee), found.get(payee, _NOTHING)))
            if place % AT_ONCE == 0:
                await asyncio.sleep(0)
        return made

    def _statement(
        self, place: int, payee: str, previous: Statement | None, sums: Mapping[str, Any]
    ) -> Statement:
        made = statement_of(
            previous,
            sums_of(sums),
            brand_id=self._brand_id,
            statement_number=f"{month_text(self._month)}-{place:06}",
            payee=payee,
            month=self._month,
            currency_code=self._currency_code,
            entry_count=sums["entry_count"],
        )
        if problems := made.problems():
            raise AssertionError(f"statement {made.statement_number}: {'; '.join(problems)}")
        return made
