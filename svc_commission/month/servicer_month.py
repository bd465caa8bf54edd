"""Months over gRPC: closed with progress, then read as messages, files and pay slips."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

from chassis.audit import Audit
from chassis.clock import Now
from chassis.errors import NotFound, Refused
from chassis.rpc.call import caller
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT, Cursors
from daogou.commission.v1 import month_pb2 as pb
from svc_commission.feed.store_feed import FeedStore
from svc_commission.ledger.messages import month_message, month_of_message
from svc_commission.month.closing import Closing, Parts
from svc_commission.month.messages import report_message, slip_lines, statement_message
from svc_commission.month.names import Names
from svc_commission.month.statement_csv import NamedStatement, payroll_csv, statement_csv
from svc_commission.month.statement_pdf import SlipNames, pay_slip
from svc_commission.month.store_month import CLOSED, MONTHS_MOST
from svc_commission.rules import attribution
from svc_commission.rules import month as months
from svc_commission.rules.feed import feeds_behind
from svc_commission.rules.statement import Statement

_NAMED_AT_ONCE: Final = 1000


class MonthServicer:
    """Implements daogou.commission.v1.MonthService."""

    def __init__(
        self, parts: Parts, feeds: FeedStore, names: Names, cursors: Cursors, audit: Audit, now: Now
    ) -> None:
        self._parts = parts
        self._closing = Closing(parts)
        self._months = parts.months
        self._statements = parts.statements
        self._feeds = feeds
        self._names = names
        self._cursors = cursors
        self._audit = audit
        self._now = now

    async def CloseMonth(
        self, request: pb.CloseMonthRequest, context: Any
    ) -> AsyncGenerator[pb.CloseMonthResponse, None]:
        brand_id, month = request.brand_id, month_of_message(request.month, "month")
        close = await self._months.close_of(brand_id, month)
        if close is None:
            await self._begin(request, month)
        elif close["state"] != CLOSED:
            await self._months.begin(brand_id, month, close)
        if close is None or close["state"] != CLOSED:
            async with aclosing(self._closing.run(brand_id, month)) as steps:
                async for made in steps:
                    progress = pb.CloseMonthResponse.Progress(
                        step=made.step, done=made.done, total=made.total
                    )
                    yield pb.CloseMonthResponse(progress=progress)
            close = await self._months.close_of(brand_id, month)
        assert close is not None, "it has been closed"
        yield pb.CloseMonthResponse(report=report_message(close))

    async def _begin(self, request: pb.CloseMonthRequest, month: date) -> None:
        """Begins to close a month that may be closed."""
        now, brand_id = self._now(), request.brand_id
        zone = ZoneInfo((await self._parts.members.brand(brand_id)).time_zone)
        first_open = await self._months.first_open(brand_id)
        earliest = await self._statements.earliest_month(brand_id)
        months.check_closable(month, first_open, earliest, now, zone)
        end = months.month_end(month, zone)
        behind = [feed.feed_id for feed in feeds_behind(await self._feeds.feeds(brand_id), end)]
        if behind and not request.override_reason:
            some = ", ".join(behind[:10])
            raise Refused("FEEDS_BEHIND", f"{len(behind)} have not reported that they are through it: {some}")
        reason = request.override_reason if behind else ""
        subject = {"brand_id": brand_id, "month": f"{month:%Y-%m}"}
        await self._audit.record(caller(), "CloseMonth", subject, reason, now)
        await self._closing.confirmed(brand_id, month)
        record = {"begin_time": now, "feeds_behind": behind, "override_reason": reason}
        await self._months.begin(brand_id, month, record)

    async def ListMonths(self, request: pb.ListMonthsRequest, context: Any) -> pb.ListMonthsResponse:
        first_open = await self._months.first_open(request.brand_id)
        closes = await self._months.closes(request.brand_id, MONTHS_MOST)
        return pb.ListMonthsResponse(
            months=[report_message(close) for close in closes],
            first_open_month=month_message(first_open) if first_open else None,
        )

    async def ReportWorkedMinutes(
        self, request: pb.ReportWorkedMinutesRequest, context: Any
    ) -> pb.ReportWorkedMinutesResponse:
        month = month_of_message(request.month, "month")
        first_open = await self._months.first_open(request.brand_id)
        if first_open is not None and month < first_open:
            raise Refused("MONTH_CLOSED", f"the first open month is {first_open:%Y-%m}")
        minutes = {one.guide_id: one.minutes for one in request.worked}
        await self._statements.report_minutes(request.brand_id, month, request.store_id, minutes)
        return pb.ReportWorkedMinutesResponse()

    async def GetStatement(self, request: pb.GetStatementRequest, context: Any) -> pb.GetStatementResponse:
        return pb.GetStatementResponse(statement=statement_message(await self._found(request)))

    async def ListStatements(
        self, request: pb.ListStatementsRequest, context: Any
    ) -> pb.ListStatementsResponse:
        month = month_of_message(request.month, "month")
        place = self._cursors.place(request)
        size = request.page_size or PAGE_SIZE_DEFAULT
        close = await self._months.close_of(request.brand_id, month)
        if close is None or close["state"] != CLOSED:
            return pb.ListStatementsResponse()
        after = place[0] if place else ""
        found = await self._statements.page(request.brand_id, month, after, size + 1)
        token = self._cursors.token(request, found[size - 1].statement_number) if len(found) > size else ""
        return pb.ListStatementsResponse(
            statements=[statement_message(one) for one in found[:size]], next_page_token=token
        )

    async def ExportStatements(
        self, request: pb.ExportStatementsRequest, context: Any
    ) -> AsyncGenerator[pb.ExportStatementsResponse, None]:
        brand_id, month = request.brand_id, month_of_message(request.month, "month")
        close = await self._months.close_of(brand_id, month)
        if close is None or close["state"] != CLOSED:
            raise Refused("MONTH_NOT_CLOSED", "its statements are not made yet")
        subject = {"brand_id": brand_id, "month": close["month"]}
        await self._audit.record(caller(), "ExportStatements", subject, "", self._now())
        payroll = request.file == pb.STATEMENT_FILE_PAYROLL
        pieces = (payroll_csv if payroll else statement_csv)(self._named(brand_id, month))
        async for piece in pieces:
            yield pb.ExportStatementsResponse(content=piece)

    async def RenderStatement(
        self, request: pb.RenderStatementRequest, context: Any
    ) -> pb.RenderStatementResponse:
        brand_id, statement = request.brand_id, await self._found(request)
        close = await self._months.close_of(brand_id, statement.month)
        assert close is not None, "there is a statement"
        zone = ZoneInfo((await self._parts.members.brand(brand_id)).time_zone)
        named = (await self._names.payees(brand_id, [statement.payee]))[statement.payee]
        names = SlipNames(await self._names.brand(brand_id), named.payee, named.store)
        entries = await self._statements.entries_of(brand_id, statement.month, statement.payee)
        lines = [line for entry in entries for line in slip_lines(entry, statement.payee, zone)]
        issued = close["close_time"].astimezone(zone).date()
        pdf = await asyncio.to_thread(pay_slip, statement, names, issued, lines)
        return pb.RenderStatementResponse(pdf=pdf)

    async def _found(self, request: pb.GetStatementRequest | pb.RenderStatementRequest) -> Statement:
        payee = (
            attribution.guide_payee(request.guide_id)
            if request.HasField("guide_id")
            else attribution.pool_payee(request.pool_store_id)
        )
        month = month_of_message(request.month, "month")
        close = await self._months.close_of(request.brand_id, month)
        if close is None or close["state"] != CLOSED:
            raise NotFound("STATEMENT_UNKNOWN", "the month is not closed")
        return await self._statements.find(request.brand_id, month, payee)

    async def _named(self, brand_id: str, month: date) -> AsyncIterator[NamedStatement]:
        """The statements of a month with names, asked for by the thousand."""
        part: list[Statement] = []
        async for statement in self._statements.all_of(brand_id, month):
            part.append(statement)
            if len(part) == _NAMED_AT_ONCE:
                for one in await self._with_names(brand_id, part):
                    yield one
                part = []
        for one in await self._with_names(brand_id, part):
            yield one

    async def _with_names(self, brand_id: str, statements: list[Statement]) -> list[NamedStatement]:
        names = await self._names.payees(brand_id, [one.payee for one in statements])
        return [NamedStatement(one, names[one.payee].payee, names[one.payee].store) for one in statements]
