"""Payouts over the wire: each statement paid once, and the next month begins with what was not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from chassis.ids import new_id
from daogou.commission.v1 import ledger_pb2, payout_pb2
from daogou.commission.v1.payout_pb2 import Payout
from daogou.commission.v1.payout_pb2_grpc import PayoutServiceStub
from daogou.common.v1.date_pb2 import Date
from tests.rpc.running import Running, refusal
from tests.rpc.test_months import after_month, close, message_of, mid_month, sold, statement
from tests.rpc.world import World, a_world, plan_of

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.payout_pb2_grpc import PayoutServiceAsyncStub

DONE: Final = payout_pb2.PAYOUT_STATE_DONE
ALREADY_PAID: Final = payout_pb2.PAYOUT_REFUSAL_ALREADY_PAID
NO_STATEMENT: Final = payout_pb2.PAYOUT_REFUSAL_NO_STATEMENT
NOTHING_PAYABLE: Final = payout_pb2.PAYOUT_REFUSAL_NOTHING_PAYABLE


def payouts(world: World) -> PayoutServiceAsyncStub:
    return PayoutServiceStub(world.admin.channel("commission"))


async def paid(world: World, month: date, batch_id: str, *guides: int) -> Payout:
    """Records a batch: of these guides, or of all."""
    request = payout_pb2.MarkPaidRequest(
        brand_id=world.brand_id,
        batch_id=batch_id,
        month=message_of(month),
        guide_ids=[world.guides[guide] for guide in guides],
    )
    return (await payouts(world).MarkPaid(request)).payout


def refused_of(payout: Payout, world: World) -> dict[int, int]:
    """Why guides were not paid, by their number."""
    return {world.guides.index(one.guide_id): one.reason for one in payout.refused}


async def accounts(world: World) -> dict[int, int]:
    told = await world.trial_balance()
    assert told.total_minor == 0
    return {one.account: one.amount_minor for one in told.accounts}


async def a_closed_month(running: Running) -> tuple[World, date]:
    """Guides 0 and 1 are owed 3.00 and 6.00, guide 2 owes 3.00, guide 3 has no statement."""
    month = mid_month(running)
    world = await a_world(running, guides=4, plan=plan_of())
    await sold(world, 10_000, 0)
    await sold(world, 20_000, 1)
    planted = {
        "_id": f"{world.brand_id}|ADJUSTED|planted",
        "brand_id": world.brand_id,
        "cause": "ADJUSTMENT:planted",
        "posting_month": f"{month:%Y-%m}",
        "recorded_time": running.now(),
        "currency_code": "CNY",
        "postings": [
            {
                "account": account,
                "payee": payee,
                "line_id": "",
                "kind": "ADJUSTED",
                "origin_month": f"{month:%Y-%m}",
                "amount_minor": amount,
            }
            for account, payee, amount in (
                ("PAYABLE", f"guide:{world.guides[2]}", 300),
                ("EXPENSE", "", -300),
            )
        ],
    }
    running.database("commission")["journal"].insert_one(planted)
    after_month(running, month)
    await close(world, month)
    return world, month


async def test_a_batch_pays_what_statements_end_with_and_names_whom_it_does_not(running: Running) -> None:
    world, month = await a_closed_month(running)
    payout = await paid(world, month, "2026-run-1", 0, 2, 3)
    assert (payout.state, payout.paid_count, payout.paid_minor, payout.currency_code) == (DONE, 1, 300, "CNY")
    assert refused_of(payout, world) == {2: NOTHING_PAYABLE, 3: NO_STATEMENT}
    assert [await world.owed(guide) for guide in range(4)] == [0, 600, -300, 0]
    rest = await paid(world, month, "2026-run-2")
    assert (rest.paid_count, rest.paid_minor, refused_of(rest, world)) == (1, 600, {0: ALREADY_PAID})
    assert (await accounts(world))[ledger_pb2.ACCOUNT_PAID] == -900
    request = ledger_pb2.ListEntriesRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    last = (await world.admin.ledger.ListEntries(request)).entries[0]
    assert last.cause == "PAYOUT:2026-run-1"
    assert last.posting_month.month == month.month % 12 + 1
    assert {(one.account, one.amount_minor, one.kind) for one in last.postings} == {
        (ledger_pb2.ACCOUNT_PAYABLE, 300, ledger_pb2.POSTING_KIND_PAID_OUT),
        (ledger_pb2.ACCOUNT_PAID, -300, ledger_pb2.POSTING_KIND_PAID_OUT),
    }


async def test_a_repeat_pays_nothing_and_the_same_batch_is_nothing_else(running: Running) -> None:
    """However the guides are sorted; many calls at once are one batch."""
    world, month = await a_closed_month(running)
    first, *others = await asyncio.gather(*[paid(world, month, "run", 0, 1) for _ in range(5)])
    assert all(other == first for other in others)
    assert await paid(world, month, "run", 1, 0, 1) == first
    assert (first.paid_count, first.paid_minor, first.refused_count) == (2, 900, 0)
    assert (await accounts(world))[ledger_pb2.ACCOUNT_PAID] == -900
    read = payout_pb2.GetPayoutRequest(brand_id=world.brand_id, batch_id="run")
    assert (await payouts(world).GetPayout(read)).payout == first
    for changed in ((0,), (0, 1, 2), ()):
        refused = await refusal(paid(world, month, "run", *changed))
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "BATCH_ID_REUSED")
    records = running.documents("commission", "audit", {"action": "MarkPaid", "brand_id": world.brand_id})
    assert {record["subject"]["batch_id"] for record in records} == {"run"}


async def test_batches_that_race_for_the_same_guides_pay_each_once(running: Running) -> None:
    world, month = await a_closed_month(running)
    made = await asyncio.gather(*[paid(world, month, f"run-{number}") for number in range(6)])
    assert sum(payout.paid_minor for payout in made) == 900
    assert sum(payout.paid_count for payout in made) == 2
    assert sum(payout.refused_count for payout in made) == 10
    assert (await accounts(world))[ledger_pb2.ACCOUNT_PAID] == -900


async def test_what_is_not_paid_is_carried_into_the_next_statement_and_paid_with_it(
    running: Running,
) -> None:
    """Were the older statement paid after the newer is there, its amount would be paid twice."""
    world, month = await a_closed_month(running)
    await paid(world, month, "run", 0)
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    refused = await refusal(paid(world, following, "early"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MONTH_NOT_CLOSED")
    after_month(running, following)
    await close(world, following)
    first, second = await statement(world, following, 0), await statement(world, following, 1)
    assert (first.opening_payable_minor, first.paid_out_minor, first.closing_payable_minor) == (300, -300, 0)
    assert (second.opening_payable_minor, second.closing_payable_minor) == (600, 600)
    refused = await refusal(paid(world, month, "late"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MONTH_CARRIED_ON")
    assert (await paid(world, month, "run", 0)).paid_minor == 300, "a repeat is answered all the same"
    payout = await paid(world, following, "next")
    assert (payout.paid_count, payout.paid_minor) == (1, 600)
    assert [await world.owed(guide) for guide in (0, 1)] == [0, 0]


async def test_payouts_are_listed_the_last_first(running: Running) -> None:
    world, month = await a_closed_month(running)
    made = [await paid(world, month, f"run-{number}", number) for number in range(3)]

    async def page(**more: Any) -> payout_pb2.ListPayoutsResponse:
        request = payout_pb2.ListPayoutsRequest(brand_id=world.brand_id, **more)
        return await payouts(world).ListPayouts(request)

    whole = list((await page()).payouts)
    assert [one.batch_id for one in whole] == ["run-2", "run-1", "run-0"]
    assert [one.refused_count for one in whole] == [1, 0, 0]
    assert [one.paid_minor for one in reversed(whole)] == [one.paid_minor for one in made]
    first = await page(page_size=2)
    rest = await page(page_size=2, page_token=first.next_page_token)
    assert [*first.payouts, *rest.payouts] == whole
    assert not rest.next_page_token


BAD: Final[Mapping[str, tuple[Callable[[World], Awaitable[object]], str, set[str]]]] = {
    "nothing": (
        lambda w: payouts(w).MarkPaid(payout_pb2.MarkPaidRequest(brand_id=w.brand_id)),
        "INVALID_FIELDS",
        {"batch_id", "month"},
    ),
    "a day for a month": (
        lambda w: payouts(w).MarkPaid(
            payout_pb2.MarkPaidRequest(
                brand_id=w.brand_id, batch_id="run", month=Date(year=2026, month=1, day=2)
            )
        ),
        "INVALID_FIELDS",
        {"month"},
    ),
    "a guide who is no id": (
        lambda w: payouts(w).MarkPaid(
            payout_pb2.MarkPaidRequest(
                brand_id=w.brand_id,
                batch_id="a|b",
                month=Date(year=2026, month=1),
                guide_ids=[new_id(), "guide"],
            )
        ),
        "INVALID_FIELDS",
        {"batch_id", "guide_ids[1]"},
    ),
    "a month that was never closed": (
        lambda w: paid(w, date(2026, 1, 1), "run"),
        "MONTH_NOT_CLOSED",
        set(),
    ),
    "reading a payout that is none": (
        lambda w: payouts(w).GetPayout(payout_pb2.GetPayoutRequest(brand_id=w.brand_id, batch_id="none")),
        "PAYOUT_UNKNOWN",
        set(),
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_wrong_is_refused_and_nothing_is_written(world: World, case: str) -> None:
    call, reason, fields = BAD[case]
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(call(world))
    assert (refused.reason, refused.fields) == (reason, fields)
