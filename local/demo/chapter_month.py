"""Chapter 8: the month closes, with a statement for every guide; what comes back later is another month's."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rich.progress import Progress

from daogou.commission.v1 import ledger_pb2, month_pb2
from daogou.commission.v1.month_pb2 import CloseMonthResponse, CloseStep, MonthReport, MonthState
from daogou.commission.v1.month_pb2_grpc import MonthServiceStub
from daogou.common.v1.date_pb2 import Date
from local.demo.books import ledger_of, show_statement
from local.demo.cast import Cast
from local.demo.chapter_order import (
    COMMISSION_MINOR,
    HAT_COMMISSION_MINOR,
    SCARF_COMMISSION_MINOR,
    returns_the_hat,
)
from local.demo.stage import Stage, money

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.month_pb2_grpc import MonthServiceAsyncStub

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")


def begin_of_month(stage: Stage) -> None:
    """Lets the story begin on the third of a month, so that all of it but its end is in that month."""
    local = stage.now().astimezone(SHANGHAI)
    begins = (local.replace(day=1) + timedelta(days=32)).replace(day=3, hour=9, minute=0)
    stage.later(seconds=(begins - local).total_seconds())


async def month_closes(stage: Stage, cast: Cast, folder: Path) -> None:
    """Tells the chapter. `folder`: where Lin Mei's pay slip is put."""
    month = stage.now().astimezone(SHANGHAI).date().replace(day=1)
    _until_the_second_of_the_next(stage, month)
    stage.chapter(8, "The month closes: statements for every guide, and for any line why this amount")
    report = await _closed(stage, cast, month)
    stage.holds("the month is closed", report.state, MonthState.MONTH_STATE_CLOSED)
    hers = COMMISSION_MINOR - SCARF_COMMISSION_MINOR
    stage.holds(
        f"{report.statement_count} statements come to {money(report.closing_minor)}",
        (report.statement_count, report.closing_minor),
        (2, hers + HAT_COMMISSION_MINOR),
    )
    statement = await _statement(stage, cast, "Lin Mei", month)
    show_statement(stage, "Lin Mei", statement)
    stage.holds(f"Lin Mei, who has left, is to be paid {money(hers)}", statement.closing_payable_minor, hers)
    slip = await _pay_slip(stage, cast, month, folder)
    stage.say(f"Her pay slip: {slip}")
    await _explained(stage, cast)
    await returns_the_hat(stage, cast)
    stands = await _statement(stage, cast, "Chen Yu", month)
    stage.holds(
        "the hat comes back in the new month: Chen Yu's statement of the closed one stands",
        stands.closing_payable_minor,
        HAT_COMMISSION_MINOR,
    )
    taken_back = await _newest_entry(stage, cast, "Chen Yu")
    posted = taken_back.posting_month
    stage.holds(
        f"and {money(HAT_COMMISSION_MINOR)} is taken back in the new one",
        ((posted.year, posted.month), -taken_back.postings[0].amount_minor),
        (_year_and_month(stage.now()), -HAT_COMMISSION_MINOR),
    )


def _until_the_second_of_the_next(stage: Stage, month: date) -> None:
    local = stage.now().astimezone(SHANGHAI)
    next_month = datetime(month.year + month.month // 12, month.month % 12 + 1, 2, 9, tzinfo=SHANGHAI)
    stage.later(seconds=(next_month - local).total_seconds())


def _year_and_month(time: datetime) -> tuple[int, int]:
    local = time.astimezone(SHANGHAI)
    return local.year, local.month


def _months(stage: Stage, cast: Cast) -> MonthServiceAsyncStub:
    office = stage.channel("commission", "BRAND_ADMIN", brand=cast.brand_id)
    months: MonthServiceAsyncStub = MonthServiceStub(office)
    return months


async def _closed(stage: Stage, cast: Cast, month: date) -> MonthReport:
    """Closes the month, showing how far it is; what it came to."""
    request = month_pb2.CloseMonthRequest(
        brand_id=cast.brand_id, month=Date(year=month.year, month=month.month)
    )
    with Progress(console=stage.console, transient=True) as shown:
        bar = shown.add_task("  closing", total=None)

        def show(told: CloseMonthResponse) -> None:
            step = CloseStep.Name(told.progress.step).removeprefix("CLOSE_STEP_").replace("_", " ").lower()
            shown.update(
                bar, description=f"  {step}", completed=told.progress.done, total=told.progress.total
            )

        last = await stage.stream(_months(stage, cast).CloseMonth, request, show)
    return last.report


async def _statement(stage: Stage, cast: Cast, guide: str, month: date) -> month_pb2.Statement:
    request = month_pb2.GetStatementRequest(
        brand_id=cast.brand_id,
        guide_id=cast.guides[guide],
        month=Date(year=month.year, month=month.month),
    )
    return (await stage.call(_months(stage, cast).GetStatement, request)).statement


async def _pay_slip(stage: Stage, cast: Cast, month: date, folder: Path) -> Path:
    request = month_pb2.RenderStatementRequest(
        brand_id=cast.brand_id,
        guide_id=cast.guides["Lin Mei"],
        month=Date(year=month.year, month=month.month),
    )
    rendered = await stage.call(_months(stage, cast).RenderStatement, request)
    slip = folder / f"pay-slip-{month:%Y-%m}.pdf"
    slip.write_bytes(rendered.pdf)
    return slip


async def _newest_entry(stage: Stage, cast: Cast, guide: str) -> ledger_pb2.Entry:
    request = ledger_pb2.ListEntriesRequest(brand_id=cast.brand_id, guide_id=cast.guides[guide], page_size=1)
    listed = await stage.call(ledger_of(stage, cast).ListEntries, request)
    return listed.entries[0]


async def _explained(stage: Stage, cast: Cast) -> None:
    """Why the refund of the scarf took that much: the entry, computed afresh."""
    entry = await _newest_entry(stage, cast, "Lin Mei")
    request = ledger_pb2.ExplainEntryRequest(brand_id=cast.brand_id, entry_id=entry.entry_id)
    told = await stage.call(ledger_of(stage, cast).ExplainEntry, request)
    causes = ", ".join(told.entry.cause_event_ids)
    stage.holds(
        f"her last entry, of {causes}, computed afresh: {money(SCARF_COMMISSION_MINOR)}",
        (told.order.agrees, entry.postings[0].amount_minor),
        (True, SCARF_COMMISSION_MINOR),
    )
