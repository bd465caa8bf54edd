"""Verification over gRPC: every order folded afresh and held against the sum of its entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from prometheus_client import Counter

from chassis import backoff, logs
from chassis.mongo.connection import Document
from daogou.commission.v1 import verification_pb2 as pb
from svc_commission.ledger.messages import compared_message, order_named
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.month.statements import Statements
from svc_commission.month.store_month import CLOSED, MONTHS_MOST, MonthStore
from svc_commission.month.store_statement import StatementStore
from svc_commission.order import documents
from svc_commission.order.replay import Replays, Turns
from svc_commission.order.store_order import OrderStore
from svc_commission.order.store_replay import ReplayStore
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules import order as books
from svc_commission.rules.comparison import Compared, compared
from svc_commission.rules.order import Target
from svc_commission.rules.plan import Plan

DIFFERENCES_LISTED: Final = 1000
AMOUNTS_LISTED: Final = 100
_ATTEMPTS: Final = 5

DIFFER = Counter(
    "daogou_commission_books_differ_orders_total",
    "Orders whose entries were found not to be what their events come to.",
)

Replies = AsyncGenerator[pb.VerifyBooksResponse, None]


class VerificationServicer:
    """Implements daogou.commission.v1.VerificationService."""

    def __init__(
        self,
        orders: OrderStore,
        journal: JournalStore,
        plans: PlanStore,
        store: ReplayStore,
        months: MonthStore,
        statements: StatementStore,
        replays: Replays,
    ) -> None:
        self._parts = orders, journal, plans, store, months, statements
        self._replays = replays

    async def VerifyBooks(self, request: pb.VerifyBooksRequest, context: Any) -> Replies:
        with self._replays.admitted() as turns:
            verification = _Verification(self._parts, request.brand_id, turns)
            async with aclosing(verification.replies()) as replies:
                async for reply in replies:
                    yield reply


class _Verification:
    """One verification, from the first order to the verdict."""

    def __init__(
        self,
        parts: tuple[OrderStore, JournalStore, PlanStore, ReplayStore, MonthStore, StatementStore],
        brand_id: str,
        turns: Turns,
    ) -> None:
        self._orders, self._journal, self._plans, self._store, self._months, self._statements = parts
        self._brand_id = brand_id
        self._turns = turns
        self._verdict = pb.BooksVerdict()
        self._log = logs.logger("verification")

    async def replies(self) -> Replies:
        """Looks at all, and says how far it has come, what differs, and in the end what was found."""
        verdict = self._verdict
        total = await self._store.count_of_brand(self._brand_id)
        async with aclosing(self._store.of_brand(self._brand_id)) as pages:
            async for orders, entries in pages:
                self._count(entries)
                for difference in await self._differences(orders, entries):
                    yield pb.VerifyBooksResponse(difference=difference)
                verdict.order_count += len(orders)
                if self._turns.due() or not orders:
                    progress = pb.VerificationProgress(orders_done=verdict.order_count, orders_total=total)
                    yield pb.VerifyBooksResponse(progress=progress)
        count, amount, unbalanced = await self._journal.of_no_order(self._brand_id, AMOUNTS_LISTED)
        verdict.entry_count += count
        verdict.trial_balance_minor += amount
        self._name_unbalanced(unbalanced)
        await self._compare_statements()
        verdict.agrees = not (
            verdict.differing_order_count
            or verdict.trial_balance_minor
            or verdict.unbalanced_entry_ids
            or verdict.differing_statement_numbers
        )
        if not verdict.agrees:
            self._log.error(
                "books_differ",
                brand_id=self._brand_id,
                orders=verdict.differing_order_count,
                trial_balance_minor=verdict.trial_balance_minor,
                unbalanced=list(verdict.unbalanced_entry_ids),
                statements=list(verdict.differing_statement_numbers),
            )
        yield pb.VerifyBooksResponse(verdict=verdict)

    async def _compare_statements(self) -> None:
        """Makes the statements of every closed month anew and holds them against those given out."""
        for close in reversed(await self._months.closes(self._brand_id, MONTHS_MOST)):
            if close["state"] != CLOSED:
                continue
            month = documents.month_of(close["month"])
            given = {one.payee: one async for one in self._statements.all_of(self._brand_id, month)}
            try:
                made = await Statements(
                    self._statements, self._brand_id, month, close["currency_code"]
                ).made()
            except AssertionError:
                # Entries that do not balance are named already; which statement is wrong is not known.
                made = []
            anew = {one.payee: one for one in made}
            differing = [
                (given.get(payee) or anew[payee]).statement_number
                for payee in given.keys() | anew.keys()
                if given.get(payee) != anew.get(payee)
            ]
            self._verdict.statement_count += len(given)
            named = self._verdict.differing_statement_numbers
            named.extend(sorted(differing)[: AMOUNTS_LISTED - len(named)])

    def _count(self, entries: Sequence[Document]) -> None:
        self._verdict.entry_count += len(entries)
        for entry in entries:
            self._verdict.trial_balance_minor += sum(one["amount_minor"] for one in entry["postings"])
        self._name_unbalanced([entry["_id"] for entry in entries if not documents.balances(entry)])

    def _name_unbalanced(self, entry_ids: Sequence[str]) -> None:
        named = self._verdict.unbalanced_entry_ids
        named.extend(entry_ids[: AMOUNTS_LISTED - len(named)])

    async def _differences(
        self, orders: Sequence[Document], entries: Sequence[Document]
    ) -> list[pb.OrderDifference]:
        """What differs of a page, as far as it is still to be listed."""
        by_key: dict[str, list[Document]] = defaultdict(list)
        for entry in entries:
            if documents.is_of_order(entry):
                by_key[entry["order_key"]].append(entry)
        plans = {plan.plan_id: plan for plan in await self._plans.plans(self._brand_id)}
        doubtful = []
        for order in orders:
            of_order = by_key.pop(order["_id"], [])
            if await self._turns.computed(order, partial(_differing, order, of_order, plans)):
                doubtful.append(order["_id"])
        found = [await self._looked_at_again(key) for key in [*doubtful, *by_key]]
        return [difference for difference in found if difference is not None]

    async def _looked_at_again(self, key: str) -> pb.OrderDifference | None:
        """An order that differs, or is unknown, read again by itself: it may have been written in between."""
        order, entries, plans = await self._read(key)
        for attempt in range(_ATTEMPTS):
            # An order is written before its entries: those that it does not know of are younger than it was.
            if order is not None and all(entry["rev"] <= order["rev"] for entry in entries):
                break
            await backoff.pause(attempt)
            order, entries, plans = await self._read(key)
        found = _differing(order, entries, plans)
        if not found:
            return None
        self._verdict.differing_order_count += 1
        DIFFER.inc()
        if self._verdict.differing_order_count > DIFFERENCES_LISTED:
            return None
        self._log.error("order_differs", order=key, brand_id=self._brand_id, amounts=len(found))
        channel, order_id = order_named(key)
        return pb.OrderDifference(
            channel=channel,
            order_id=order_id,
            amounts=[compared_message(one) for one in found[:AMOUNTS_LISTED]],
            unknown_order=order is None,
        )

    async def _read(self, key: str) -> tuple[Document | None, list[Document], dict[str, Plan]]:
        """An order of the brand, its entries, and the plans by one of which it was decided."""
        order = (await self._orders.find_many([key])).get(key)
        if order is not None and order["brand_id"] != self._brand_id:
            order = None
        plans = {plan.plan_id: plan for plan in await self._plans.plans(self._brand_id)}
        return order, await self._orders.entries_of(self._brand_id, key), plans


def _differing(
    order: Document | None, entries: Sequence[Document], plans: Mapping[str, Plan]
) -> list[Compared]:
    """The amounts of an order that are not what its events come to. `order` None: there is none."""
    computed: Mapping[Target, int] = {}
    if order is not None:
        # What waits for the journal counts as though it were there.
        known = {entry["_id"] for entry in entries}
        waiting = order["relay"]["entries"] if "relay" in order else []
        entries = [*entries, *(entry for entry in waiting if entry["_id"] not in known)]
    if order is not None and order["attribution"] is not None:
        frozen = documents.attribution_of(order["attribution"])
        events = [documents.event_of(event) for event in order["events"]]
        around = documents.circumstances_of(order)
        computed = books.fold(events, order["channel"], frozen, plans.get(frozen.plan_id), around).targets
    return [one for one in compared(computed, {}, documents.posted(entries)) if not one.agrees]
