"""Months, over the wire: closed once, with tiers, pools and leavers settled and a statement for everybody."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import grpc
import pypdfium2
import pytest

from daogou.commission.v1 import feed_pb2, ledger_pb2, month_pb2, payout_pb2, plan_pb2, verification_pb2
from daogou.commission.v1.feed_pb2_grpc import FeedServiceStub
from daogou.commission.v1.month_pb2_grpc import MonthServiceStub
from daogou.commission.v1.payout_pb2_grpc import PayoutServiceStub
from daogou.commission.v1.verification_pb2_grpc import VerificationServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from daogou.members.v1 import handover_pb2
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from svc_commission.rules.month import next_month
from tests.rpc.running import Running, eventually, refusal
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
POS: Final = Channel.CHANNEL_POS


def mid_month(running: Running) -> date:
    """Lets time pass to the tenth of a month in Shanghai; the first day of that month."""
    local = running.now().astimezone(SHANGHAI)
    begins = (local.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0)
    running.later(seconds=(begins + timedelta(days=9) - local).total_seconds())
    return begins.date()


def after_month(running: Running, month: date) -> None:
    """Lets time pass to the third of the next month."""
    begins = datetime.combine(next_month(month), time(0), SHANGHAI) + timedelta(days=2)
    running.later(seconds=(begins - running.now()).total_seconds())


def message_of(month: date) -> Date:
    return Date(year=month.year, month=month.month)


def months_of(world: World) -> Any:
    return MonthServiceStub(world.admin.channel("commission"))


async def close(world: World, month: date, **more: Any) -> list[month_pb2.CloseMonthResponse]:
    """Closes a month; all that was told."""
    request = month_pb2.CloseMonthRequest(brand_id=world.brand_id, month=message_of(month), **more)
    told = months_of(world).CloseMonth(request, metadata=world.admin.metadata, timeout=30)
    return [one async for one in told]


async def statement(world: World, month: date, guide: int) -> month_pb2.Statement:
    request = month_pb2.GetStatementRequest(
        brand_id=world.brand_id, guide_id=world.guides[guide], month=message_of(month)
    )
    made: month_pb2.Statement = (await months_of(world).GetStatement(request)).statement
    return made


async def sold(world: World, paid_minor: int, guide: int = 0, **more: Any) -> Order:
    """An order of two hours ago at the till by a new member of a guide's, paid."""
    _, identity = await world.bound(guide)
    world.running.later(hours=3)
    order = world.order(POS, identity=identity)
    await world.ingest(order.paid(line_of("coat", paid_minor), **more))
    return order


def tiers(*steps: tuple[int, int], **more: Any) -> plan_pb2.Tiers:
    return plan_pb2.Tiers(
        tiers=[plan_pb2.Tier(from_minor=begin, rate_bp=rate) for begin, rate in steps], **more
    )


async def entries(world: World, order: Order) -> list[tuple[int, int, int]]:
    """Month of posting, month of origin and what was owed more, of each posting to somebody."""
    told = await world.explained(order)
    assert told.books_agree
    return [
        (entry.posting_month.month, one.origin_month.month, -one.amount_minor)
        for entry in told.entries
        for one in entry.postings
        if one.account != ledger_pb2.ACCOUNT_EXPENSE
    ]


async def test_a_tier_is_decided_at_the_close_and_refunds_take_it_back_too(running: Running) -> None:
    """10,000.00 at 3 % are 300.00; the month reaches the tier of 5 %: 200.00 more at its close.

    All is refunded in the next month: 500.00 go back then, not 300.00.
    """
    month = mid_month(running)
    tiered = rule_of(tiers=tiers((500_000, 500), mode=plan_pb2.TIER_MODE_WHOLE))
    world = await a_world(running, plan=plan_of(tiered))
    order = await sold(world, 1_000_000)
    assert await world.owed(0) == 30_000
    after_month(running, month)
    told = await close(world, month)
    assert told[-1].report.state == month_pb2.MONTH_STATE_CLOSED
    assert await world.owed(0) == 50_000
    made = await statement(world, month, 0)
    assert (made.opening_payable_minor, made.earned_minor, made.closing_payable_minor) == (0, 50_000, 50_000)
    refund = order.refunded(refund_of("coat", 1_000_000))
    refund.happened_time.FromDatetime(running.now() - timedelta(minutes=1))
    await world.ingest(refund)
    assert await world.owed(0) == 0
    assert await entries(world, order) == [
        (month.month, month.month, 30_000),
        (month.month, month.month, 20_000),
        (next_month(month).month, next_month(month).month, -50_000),
    ]
    assert (await world.trial_balance()).total_minor == 0


async def test_what_becomes_known_late_is_posted_in_the_open_month_and_says_where_it_belongs(
    running: Running,
) -> None:
    """100.00 paid in a month and 40.00 of it refunded in it; both become known after its close: 1.80."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    first = await sold(world, 5_000)
    _, identity = await world.bound(0)
    running.later(hours=3)
    late = world.order(POS, identity=identity)
    after_month(running, month)
    report = (await close(world, month))[-1].report
    assert (report.statement_count, report.entry_count, report.closing_minor) == (1, 1, 150)
    await world.ingest(late.paid(line_of("coat", 10_000)), late.refunded(refund_of("coat", 4_000)))
    following = next_month(month).month
    expected = [(following, month.month, -120), (following, month.month, 300)]
    assert sorted(await entries(world, late)) == expected
    assert await entries(world, first) == [(month.month, month.month, 150)]
    assert (await statement(world, month, 0)).closing_payable_minor == 150, "a statement stands"
    running.later(days=31)
    await close(world, next_month(month))
    made = await statement(world, next_month(month), 0)
    assert (made.opening_payable_minor, made.earned_minor, made.clawed_back_minor) == (150, 300, -120)
    assert made.closing_payable_minor == 330


async def test_a_month_is_closed_once_in_order_and_when_it_is_over(running: Running) -> None:
    """Before its end, and before the one before it, it is refused; a repeat tells the same report."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    assert (await refusal(close(world, month))).reason == "MONTH_NOT_OVER"
    after_month(running, month)
    running.later(days=31)
    after = next_month(month)
    assert (await refusal(close(world, after))).reason == "MONTH_NOT_NEXT"
    told = await close(world, month)
    steps = [one.progress.step for one in told[:-1]]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 3
    [again] = await close(world, month)
    assert again.report == told[-1].report
    listed = await months_of(world).ListMonths(month_pb2.ListMonthsRequest(brand_id=world.brand_id))
    assert list(listed.months) == [again.report]
    assert listed.first_open_month == message_of(after)
    call = months_of(world).CloseMonth(
        month_pb2.CloseMonthRequest(brand_id=world.brand_id, month=Date(year=2026, month=13)),
        metadata=world.admin.metadata,
    )
    assert (await refusal(call.read())).fields == {"month"}


async def test_two_calls_at_once_close_it_once(running: Running) -> None:
    """One closes it; the other is told that somebody is at it, or what it came to."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    after_month(running, month)
    outcomes = await asyncio.gather(*(close(world, month) for _ in range(3)), return_exceptions=True)
    reports = [told[-1].report for told in outcomes if not isinstance(told, BaseException)]
    assert reports
    assert all(report == reports[0] for report in reports)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, grpc.aio.AioRpcError)
            assert outcome.code() == grpc.StatusCode.ABORTED
    assert reports[0].statement_count == 1


async def test_a_call_that_is_cut_off_is_gone_on_with(running: Running) -> None:
    """The caller leaves after the first message; the month is closed all the same, some seconds later."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    after_month(running, month)
    call = months_of(world).CloseMonth(
        month_pb2.CloseMonthRequest(brand_id=world.brand_id, month=message_of(month)),
        metadata=world.admin.metadata,
    )
    await call.read()
    call.cancel()

    async def is_closed() -> bool:
        listed = await months_of(world).ListMonths(month_pb2.ListMonthsRequest(brand_id=world.brand_id))
        return bool(listed.months[0].state == month_pb2.MONTH_STATE_CLOSED)

    await eventually(is_closed, "the month is closed by a round")
    assert (await statement(world, month, 0)).closing_payable_minor == 300


async def test_a_feed_that_is_behind_keeps_a_month_open_unless_somebody_says_why_not(
    running: Running,
) -> None:
    """Its name is told; the reason for closing all the same stands in the report."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    await FeedServiceStub(world.admin.channel("commission")).RegisterFeed(
        feed_pb2.RegisterFeedRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            feed_id="tmall-sync",
            channel=Channel.CHANNEL_TMALL,
            shop_id=world.shop_id,
        )
    )
    after_month(running, month)
    assert (await refusal(close(world, month))).reason == "FEEDS_BEHIND"
    report = (await close(world, month, override_reason="the shop was shut"))[-1].report
    assert list(report.feeds_behind) == ["tmall-sync"]
    assert report.override_reason == "the shop was shut"


async def test_a_pool_is_shared_out_equally_to_the_fen(running: Running) -> None:
    """3.01 in the pool of two: 1.51 and 1.50; the pool's statement says where it went."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of(pool_sharing=plan_pb2.POOL_SHARING_EQUALLY))
    order = world.order(POS)
    await world.ingest(order.paid(line_of("coat", 10_033)))
    assert await world.owed_to_pool(world.nanjing_road) == 301
    after_month(running, month)
    await close(world, month)
    assert sorted([await world.owed(0), await world.owed(1)]) == [150, 151]
    assert await world.owed_to_pool(world.nanjing_road) == 0
    assert await world.owed(2) == 0, "she stands elsewhere"
    made = await months_of(world).GetStatement(
        month_pb2.GetStatementRequest(
            brand_id=world.brand_id, pool_store_id=world.nanjing_road, month=message_of(month)
        )
    )
    assert (made.statement.earned_minor, made.statement.pool_shared_minor) == (301, -301)


async def test_a_pool_is_shared_out_by_hours(running: Running) -> None:
    """300 minutes against 100: 3.00 are 2.25 and 0.75. What is reported last counts."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of(pool_sharing=plan_pb2.POOL_SHARING_BY_HOURS))
    await world.ingest(world.order(POS).paid(line_of("coat", 10_000)))
    for minutes in (900, 300):
        await months_of(world).ReportWorkedMinutes(
            month_pb2.ReportWorkedMinutesRequest(
                brand_id=world.brand_id,
                store_id=world.nanjing_road,
                month=message_of(month),
                worked=[
                    month_pb2.WorkedMinutes(guide_id=world.guides[0], minutes=minutes),
                    month_pb2.WorkedMinutes(guide_id=world.guides[1], minutes=100),
                ],
            )
        )
    after_month(running, month)
    await close(world, month)
    assert [await world.owed(0), await world.owed(1)] == [225, 75]


async def paid_out(world: World, month: date) -> payout_pb2.Payout:
    """Everybody is paid what the statements of a month end with."""
    payouts = PayoutServiceStub(world.admin.channel("commission"))
    request = payout_pb2.MarkPaidRequest(
        brand_id=world.brand_id, batch_id=f"payroll-{month}", month=message_of(month)
    )
    payout = (await payouts.MarkPaid(request)).payout

    async def is_done() -> bool:
        nonlocal payout
        payout = (await payouts.MarkPaid(request)).payout
        return bool(payout.state == payout_pb2.PAYOUT_STATE_DONE)

    await eventually(is_done, "all are paid")
    return payout


@pytest.mark.parametrize("write_off", [True, False])
async def test_what_a_leaver_owes_is_carried_on_or_written_off_as_the_plan_says(
    running: Running, write_off: bool
) -> None:
    """3.00 paid out; then all of the order is refunded, and she leaves owing 3.00."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of(write_off_leavers=write_off))
    order = await sold(world, 10_000)
    after_month(running, month)
    await close(world, month)
    assert (await paid_out(world, month)).paid_minor == 300
    assert await world.owed(0) == 0
    refund = order.refunded(refund_of("coat", 10_000))
    refund.happened_time.FromDatetime(running.now() - timedelta(minutes=1))
    await world.ingest(refund)
    await HandoverServiceStub(world.admin.channel("members")).ResignGuide(
        handover_pb2.ResignGuideRequest(
            brand_id=world.brand_id, request_id=request_id(), guide_id=world.guides[0]
        )
    )
    assert await world.owed(0) == -300
    after = next_month(month)
    after_month(running, after)
    await close(world, after)
    made = await statement(world, after, 0)
    assert (made.opening_payable_minor, made.paid_out_minor, made.clawed_back_minor) == (300, -300, -300)
    assert made.written_off_minor == (300 if write_off else 0)
    assert made.closing_payable_minor == (0 if write_off else -300) == await world.owed(0)
    assert (await statement(world, month, 0)).closing_payable_minor == 300, "a paid statement stands"
    assert (await world.trial_balance()).total_minor == 0


async def test_what_was_due_within_the_month_is_confirmed_in_it(running: Running) -> None:
    """Paid on the 10th, held for 5 days: confirmed on the 15th, though it is looked at only at the close."""
    month = mid_month(running)
    hold = plan_pb2.Hold(channel=POS, days=5, from_payment=True)
    world = await a_world(running, plan=plan_of(holds=[hold]))
    await sold(world, 10_000)
    after_month(running, month)
    await close(world, month)
    made = await statement(world, month, 0)
    assert (made.earned_minor, made.confirmed_minor) == (300, 300)
    assert (made.closing_payable_minor, made.closing_held_minor) == (300, 0)


async def test_a_tier_on_what_is_held_is_held(running: Running) -> None:
    """100.00 at 3 %, 10 % from 50.00 on, held for a year: the margin of 3.50 is held with the rest."""
    month = mid_month(running)
    hold = plan_pb2.Hold(channel=POS, days=365, from_payment=True)
    rule = rule_of(tiers=tiers((5_000, 1000)))
    world = await a_world(running, plan=plan_of(rule, holds=[hold]))
    await sold(world, 10_000)
    after_month(running, month)
    await close(world, month)
    made = await statement(world, month, 0)
    assert (made.earned_minor, made.closing_held_minor, made.closing_payable_minor) == (650, 650, 0)


@pytest.mark.parametrize(
    ("after_close", "owed"),
    [(plan_pb2.AFTER_CLOSE_FROZEN, 300 + 150), (plan_pb2.AFTER_CLOSE_RERATE, 500 + 250)],
)
async def test_a_sale_that_becomes_known_late_is_rated_as_the_plan_says(
    running: Running, after_close: plan_pb2.AfterClose.ValueType, owed: int
) -> None:
    """100.00 at 3 %, 5 % from 120.00 on. 50.00 more become known after the close: frozen, they earn 3 % too.

    Rated again, both earn 5 %: 7.50 instead of 4.50, the difference in the open month.
    """
    month = mid_month(running)
    table = tiers((12_000, 500), mode=plan_pb2.TIER_MODE_WHOLE, after_close=after_close)
    world = await a_world(running, plan=plan_of(rule_of(tiers=table)))
    first = await sold(world, 10_000)
    _, identity = await world.bound(0)
    running.later(hours=3)
    late = world.order(POS, identity=identity)
    after_month(running, month)
    await close(world, month)
    assert await world.owed(0) == 300
    await world.ingest(late.paid(line_of("coat", 5_000)))

    async def is_rated() -> bool:
        return await world.owed(0) == owed

    await eventually(is_rated, "the late sale is rated")
    for order in (first, late):
        assert (await world.explained(order)).books_agree
    assert (await statement(world, month, 0)).closing_payable_minor == 300


async def test_statements_as_files_and_as_a_pay_slip(running: Running) -> None:
    """CSV of all of them, CSV for payroll, and a PDF on which a person finds name, number and amount."""
    month = mid_month(running)
    world = await a_world(running, names=["极光 Aurora", "王小芳"], plan=plan_of())
    await sold(world, 10_000, 0)
    await sold(world, 20_000, 2)
    after_month(running, month)
    first_file = month_pb2.ExportStatementsRequest(brand_id=world.brand_id, month=message_of(month))
    early = months_of(world).ExportStatements(first_file, metadata=world.admin.metadata)
    assert (await refusal(early.read())).reason == "MONTH_NOT_CLOSED"
    await close(world, month)
    files = []
    for file in (month_pb2.STATEMENT_FILE_STATEMENTS, month_pb2.STATEMENT_FILE_PAYROLL):
        request = month_pb2.ExportStatementsRequest(
            brand_id=world.brand_id, month=message_of(month), file=file
        )
        told = months_of(world).ExportStatements(request, metadata=world.admin.metadata)
        pieces = [piece.content async for piece in told]
        files.append(list(csv.DictReader(io.StringIO(b"".join(pieces).decode("utf-8-sig")))))
    made = {row["payee_name"]: (row["earned"], row["closing_payable"], row["store_name"]) for row in files[0]}
    assert made == {
        "王小芳 0": ("3.00", "3.00", "极光 Aurora Nanjing Road"),
        "王小芳 2": ("6.00", "6.00", "极光 Aurora Xintiandi"),
    }
    assert {row["employee_id"]: row["amount"] for row in files[1]} == {
        world.guides[0]: "3.00",
        world.guides[2]: "6.00",
    }
    rendering = month_pb2.RenderStatementRequest(
        brand_id=world.brand_id, guide_id=world.guides[2], month=message_of(month)
    )
    slip = (await MonthServiceStub(world.guide(2).channel("commission")).RenderStatement(rendering)).pdf
    assert slip == (await months_of(world).RenderStatement(rendering)).pdf
    with pypdfium2.PdfDocument(slip) as document:
        text = document[0].get_textpage().get_text_range()
    for read in ("王小芳 2", "6.00", f"{month:%Y-%m}", (await statement(world, month, 2)).statement_number):
        assert read in text
    assert (
        await refusal(MonthServiceStub(world.guide(0).channel("commission")).RenderStatement(rendering))
    ).code == grpc.StatusCode.PERMISSION_DENIED


async def test_statements_are_listed_by_number(running: Running) -> None:
    """Page by page; none while the month is open."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    for guide in range(3):
        await sold(world, 10_000, guide)
    request = month_pb2.ListStatementsRequest(brand_id=world.brand_id, month=message_of(month), page_size=2)
    assert not (await months_of(world).ListStatements(request)).statements
    after_month(running, month)
    await close(world, month)
    first = await months_of(world).ListStatements(request)
    request.page_token = first.next_page_token
    second = await months_of(world).ListStatements(request)
    numbers = [made.statement_number for made in (*first.statements, *second.statements)]
    assert numbers == [f"{month:%Y-%m}-{place:06}" for place in (1, 2, 3)]
    assert not second.next_page_token
    missing = month_pb2.GetStatementRequest(
        brand_id=world.brand_id, pool_store_id=world.xintiandi, month=message_of(month)
    )
    assert (await refusal(months_of(world).GetStatement(missing))).reason == "STATEMENT_UNKNOWN"


async def test_a_statement_that_is_not_what_the_journal_says_is_found(running: Running) -> None:
    """Two closed months agree; a fen more in a statement of the first is told, and the one after it too."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    after_month(running, month)
    await close(world, month)
    after_month(running, next_month(month))
    await close(world, next_month(month))
    verdict = await verified(world)
    assert (verdict.agrees, verdict.statement_count) == (True, 2)
    key = f"{world.brand_id}|{month:%Y-%m}|guide:{world.guides[0]}"
    statements = running.database("commission")["statements"]
    statements.update_one({"_id": key}, {"$inc": {"earned_minor": 1, "closing_payable_minor": 1}})
    verdict = await verified(world)
    assert not verdict.agrees
    assert list(verdict.differing_statement_numbers) == [
        f"{month:%Y-%m}-000001",
        f"{next_month(month):%Y-%m}-000001",
    ]


async def verified(world: World) -> verification_pb2.BooksVerdict:
    """What is found when all books are looked at."""
    verification = VerificationServiceStub(world.admin.channel("commission"))
    request = verification_pb2.VerifyBooksRequest(brand_id=world.brand_id)
    told = [one async for one in verification.VerifyBooks(request, metadata=world.admin.metadata, timeout=30)]
    verdict: verification_pb2.BooksVerdict = told[-1].verdict
    return verdict
