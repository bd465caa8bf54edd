"""A month's close, step by step. Each can be done again: whoever is cut off, another goes on from the start.

Nothing is computed from what a step before it left in memory. What is posted has an id that follows from what
it is for; statements are made from a journal in which nothing of the month is written any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from chassis import crash, logs
from chassis.clock import Now
from chassis.errors import Conflict, DaogouError, Refused
from chassis.ids import new_id
from chassis.mongo import failures
from chassis.mongo.connection import Document
from daogou.commission.v1 import month_pb2 as pb
from svc_commission.members_client import BrandFacts, MembersClient
from svc_commission.month import owner_sales
from svc_commission.month.leases import WAITED_FOR, Lease, Leases
from svc_commission.month.moving import Moving
from svc_commission.month.statements import Statements
from svc_commission.month.store_month import MonthStore
from svc_commission.month.store_owner_sales import OwnerSalesStore
from svc_commission.month.store_statement import StatementStore
from svc_commission.order.booking import Booking
from svc_commission.order.documents import month_text
from svc_commission.order.store_order import OrderStore
from svc_commission.payout.store_entry import EntryStore
from svc_commission.plan.store_plan import PlanStore
from svc_commission.rules.month import month_end
from svc_commission.rules.plan import in_force

CONFIRMED: Final = "CONFIRMED"
TIER_RATED: Final = "TIER_RATED"
MOST: Final = 200
"""Orders written at once."""
_PASSES: Final = 50
"""How often orders that others write meanwhile are looked for again."""
_MOMENT: Final = timedelta(milliseconds=1)

_RELAYED = crash.point("close_relayed")
_CONFIRMED = crash.point("close_confirmed")
_RATED = crash.point("close_rated")
_MOVED = crash.point("close_moved")
_STATED = crash.point("close_stated")
_FINISHED = crash.point("close_finished")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is."""

    step: pb.CloseStep.ValueType
    done: int
    total: int


Steps = AsyncIterator[Progress]


@dataclass(frozen=True, slots=True)
class Parts:
    """What closing a month needs."""

    months: MonthStore
    statements: StatementStore
    sales: OwnerSalesStore
    orders: OrderStore
    entries: EntryStore
    plans: PlanStore
    booking: Booking
    members: MembersClient
    leases: Leases
    now: Now


class Closing:
    """Closes months that have been begun."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, brand_id: str, month: date) -> AsyncGenerator[Progress, None]:
        """Goes through all steps, to the end.

        Raises: Conflict MONTH_BEING_CLOSED; Refused ORDERS_NOT_WRITABLE; Unavailable.
        """
        parts = self._parts
        facts = await parts.members.brand(brand_id)
        hold = _Hold(parts.months, brand_id, month, parts.leases.lease_s)
        await hold.kept()
        run = _Run(parts, hold.kept, brand_id, month, facts)
        async with hold.renewed():
            for steps in (run.wait, run.relay, run.confirm, run.rate, run.move, run.state, run.check):
                async for progress in steps():
                    yield progress

    async def confirmed(self, brand_id: str, month: date) -> None:
        """Confirms what is due within a month that is open still, as the round that does it may be late."""
        facts = await self._parts.members.brand(brand_id)
        run = _Run(self._parts, lambda: self._parts.leases.held(brand_id), brand_id, month, facts)
        async for _ in run.confirm():
            pass

    async def resume(self) -> bool:
        """Goes on with closes that nobody goes on with."""
        for brand_id, month in await self._parts.months.abandoned():
            try:
                async with contextlib.aclosing(self.run(brand_id, month)) as steps:
                    async for _ in steps:
                        pass
            except DaogouError as error:
                logs.logger("closing").warning(
                    "not closed", brand_id=brand_id, month=month_text(month), reason=error.reason
                )
        return False


class _Hold:
    """The right to close a month, kept while it is asked for; what is posted by it is posted in the month."""

    def __init__(self, months: MonthStore, brand_id: str, month: date, lease_s: float) -> None:
        self._months = months
        self._brand_id = brand_id
        self._month = month
        self._lease_s = lease_s
        self._holder = new_id()
        self._lease = Lease(month, 0.0)

    async def kept(self) -> Lease:
        """A lease of which at least half is left. Raises: Conflict MONTH_BEING_CLOSED."""
        asked_s = time.monotonic()
        if self._lease.until_s - asked_s < self._lease_s / 2:
            if not await self._months.claim(self._brand_id, self._month, self._holder, self._lease_s):
                raise Conflict("MONTH_BEING_CLOSED", "another call is at it", retry_after_s=self._lease_s)
            self._lease = Lease(self._month, asked_s + self._lease_s)
        return self._lease

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Keeps it within the block: the database alone may take longer over a step than a lease lasts."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 5)
            try:
                await self.kept()
            except Conflict:
                return  # Whoever writes next is told.
            except Exception as error:
                if failures.as_error(error) is None:
                    raise
                # The database is away for a moment: the lease lasts longer than that, or is lost.


class _Run:
    """One go through the steps. `kept`: keeps the right to, and gives a lease for what is written."""

    def __init__(
        self,
        parts: Parts,
        kept: Callable[[], Awaitable[Lease]],
        brand_id: str,
        month: date,
        facts: BrandFacts,
    ) -> None:
        self._parts = parts
        self._kept = kept
        self._brand_id = brand_id
        self._month = month
        self._facts = facts
        self._text = month_text(month)
        self._end = month_end(month, ZoneInfo(facts.time_zone))
        self._posting_total = 0

    async def wait(self) -> Steps:
        """Until the last lease has run out that was given before the close began."""
        began_s, whole_s = time.monotonic(), self._parts.leases.lease_s * WAITED_FOR
        while (passed_s := time.monotonic() - began_s) < whole_s:
            yield Progress(pb.CLOSE_STEP_WAIT, int(passed_s * 1000), int(whole_s * 1000))
            await self._kept()
            await asyncio.sleep(min(0.2, whole_s - passed_s))
        # All that was written before it, and by whomever, is then where reads find it.
        await self._parts.months.note(self._brand_id, self._month, {"waited_time": self._parts.now()})

    async def relay(self) -> Steps:
        """What orders still hold for the journal."""
        done = 0
        while orders := await self._parts.orders.unrelayed_of(self._brand_id, MOST):
            await self._parts.orders.relay(orders)
            done += len(orders)
            yield Progress(pb.CLOSE_STEP_RELAY, done, done)
        _RELAYED.reached()

    async def confirm(self) -> Steps:
        """What has been held for long enough when the month ends."""
        last = self._end - _MOMENT

        def confirmed(order: Document) -> Document:
            through = order.get("confirmed_through_time")
            return {**order, "confirmed_through_time": max(through, last) if through else last}

        async def due(after: str) -> list[Document]:
            return await self._parts.orders.confirmable_of(self._brand_id, last, after, MOST)

        total = await self._parts.orders.confirmable_count(self._brand_id, last)
        async for progress in self._rebooked(pb.CLOSE_STEP_CONFIRM, total, due, confirmed, CONFIRMED):
            yield progress

    async def rate(self) -> Steps:
        """Tiers: what every owner sold is fixed first, then every line is rated by it."""
        _CONFIRMED.reached()
        plans = await self._parts.plans.plans(self._brand_id)
        if not owner_sales.has_tiers(plans):
            return
        sales = self._parts.sales
        await sales.fix(self._brand_id, self._text)
        known: dict[str, Document] = {}

        async def due(after: str) -> list[Document]:
            orders = await sales.tier_due(self._brand_id, self._text, after, MOST)
            owners = [order["attribution"]["owner"] for order in orders]
            known.update(await sales.find_many(self._brand_id, self._text, owners))
            return orders

        def rated(order: Document) -> Document:
            sold = known.get(order["attribution"]["owner"])
            amounts = (sold["sales_minor"], sold["latest_minor"]) if sold else (0, 0)
            return owner_sales.add_closed(order, self._text, *amounts)

        total = await sales.tier_due_count(self._brand_id, self._text)
        async for progress in self._rebooked(pb.CLOSE_STEP_RATE, total, due, rated, TIER_RATED):
            yield progress
        _RATED.reached()

    async def _rebooked(
        self,
        step: pb.CloseStep.ValueType,
        total: int,
        due: Callable[[str], Awaitable[list[Document]]],
        changed: Callable[[Document], Document],
        cause: str,
    ) -> Steps:
        """Books orders anew, page by page, again for those that others write meanwhile."""
        done, left = 0, set[str]()
        for _ in range(_PASSES):
            after, left = "", set()
            while orders := await due(after):
                lease = await self._kept()
                left |= await self._parts.booking.rebook([changed(one) for one in orders], cause, lease)
                after = orders[-1]["_id"]
                done += len(orders)
                yield Progress(step, min(done, total), total)
            if not left:
                return
        raise Refused("ORDERS_NOT_WRITABLE", f"{len(left)} orders, among them {min(left)}")

    async def move(self) -> Steps:
        """Pools are shared out, debts of guides who left written off, as the plan at the end says."""
        plans = await self._parts.plans.plans(self._brand_id)
        plan = in_force(plans, self._end - _MOMENT)
        if plan is None:
            return
        moving = Moving(self._parts.statements, self._parts.members)
        for step, entries in (
            (pb.CLOSE_STEP_SHARE_POOLS, moving.pools_shared),
            (pb.CLOSE_STEP_WRITE_OFF, moving.written_off),
        ):
            found = await entries(self._brand_id, self._month, self._facts, plan, self._parts.now())
            for begin in range(0, len(found), MOST):
                part = found[begin : begin + MOST]
                with (await self._kept()).writing():
                    await self._parts.entries.insert(part)
                yield Progress(step, begin + len(part), len(found))
        _MOVED.reached()

    async def state(self) -> Steps:
        """A statement for everybody."""
        made = Statements(self._parts.statements, self._brand_id, self._month, self._facts.currency_code)
        async for done, total in made.write(self._kept):
            yield Progress(pb.CLOSE_STEP_STATE, done, total)
        self._posting_total = made.posted_minor
        _STATED.reached()

    async def check(self) -> Steps:
        """What all statements say together is what all entries do; then the month is closed."""
        totals = await self._parts.statements.totals(self._brand_id, self._month)
        changed = (
            totals["closing_payable_minor"]
            + totals["closing_held_minor"]
            - totals["opening_payable_minor"]
            - totals["opening_held_minor"]
        )
        if changed != self._posting_total:
            logs.logger("closing").error(
                "statements differ from entries",
                brand_id=self._brand_id,
                month=self._text,
                statements_minor=changed,
                entries_minor=self._posting_total,
            )
            raise AssertionError("statements differ from entries")
        parked, some = await self._parts.orders.parked_of(self._brand_id, 100)
        report = {
            **{name: amount for name, amount in totals.items() if name != "_id"},
            "entry_count": await self._parts.statements.entry_count(self._brand_id, self._month),
            "currency_code": self._facts.currency_code,
            "parked_count": parked,
            "parked": [
                {"channel": one["channel"], "order_id": one["order_id"], "reason": one["parked"]["reason"]}
                for one in some
            ],
            "close_time": self._parts.now(),
        }
        await self._kept()
        await self._parts.months.finish(self._brand_id, self._month, report)
        _FINISHED.reached()
        yield Progress(pb.CLOSE_STEP_CHECK, 1, 1)
