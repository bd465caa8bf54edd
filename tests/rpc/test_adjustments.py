"""Adjustments and opening balances over the wire: two persons, one entry, and what another system owed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import grpc
import pytest

from chassis.ids import new_id
from daogou.commission.v1 import adjustment_pb2, ledger_pb2
from daogou.commission.v1.adjustment_pb2 import Adjustment, AdjustmentState, OpeningBalance
from daogou.commission.v1.adjustment_pb2_grpc import AdjustmentServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from tests.rpc.running import Caller, Running, refusal
from tests.rpc.test_months import after_month, close, message_of, mid_month, sold, statement
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.adjustment_pb2_grpc import AdjustmentServiceAsyncStub

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
IMPORTED: Final = (adjustment_pb2.OPENING_BALANCE_OUTCOME_IMPORTED, "")
DUPLICATE: Final = (adjustment_pb2.OPENING_BALANCE_OUTCOME_DUPLICATE, "")
REFUSED: Final = adjustment_pb2.OPENING_BALANCE_OUTCOME_UNSPECIFIED


@pytest.fixture
async def fresh(running: Running) -> World:
    """A brand of which nothing is known yet."""
    return await a_world(running, plan=plan_of())


def adjustments(caller: Caller) -> AdjustmentServiceAsyncStub:
    return AdjustmentServiceStub(caller.channel("commission"))


def second(world: World) -> AdjustmentServiceAsyncStub:
    """Another person of head office."""
    return adjustments(world.running.caller("BRAND_ADMIN", brand=world.brand_id, subject="the second"))


def this_month(running: Running) -> date:
    return running.now().astimezone(SHANGHAI).date().replace(day=1)


def proposal(world: World, amount_minor: int, **more: Any) -> adjustment_pb2.ProposeAdjustmentRequest:
    """The request that something be owed to the first guide."""
    named = {
        "request_id": request_id(),
        "reason": "forgotten bonus 补发",
        "guide_id": world.guides[0],
        **more,
    }
    if "pool_store_id" in more:
        del named["guide_id"]
    return adjustment_pb2.ProposeAdjustmentRequest(
        brand_id=world.brand_id, amount_minor=amount_minor, **named
    )


async def proposed(world: World, amount_minor: int, **more: Any) -> Adjustment:
    request = proposal(world, amount_minor, **more)
    return (await adjustments(world.admin).ProposeAdjustment(request)).adjustment


def approval(adjustment: Adjustment, world: World) -> adjustment_pb2.ApproveAdjustmentRequest:
    return adjustment_pb2.ApproveAdjustmentRequest(
        brand_id=world.brand_id, request_id=request_id(), adjustment_id=adjustment.adjustment_id
    )


def rejection(adjustment: Adjustment, world: World) -> adjustment_pb2.RejectAdjustmentRequest:
    return adjustment_pb2.RejectAdjustmentRequest(
        brand_id=world.brand_id, request_id=request_id(), adjustment_id=adjustment.adjustment_id
    )


async def approved(world: World, amount_minor: int, **more: Any) -> Adjustment:
    """An adjustment that two persons agreed on."""
    one = await proposed(world, amount_minor, **more)
    return (await second(world).ApproveAdjustment(approval(one, world))).adjustment


async def entry(world: World, entry_id: str) -> ledger_pb2.Entry:
    request = ledger_pb2.ExplainEntryRequest(brand_id=world.brand_id, entry_id=entry_id)
    return (await world.admin.ledger.ExplainEntry(request)).entry


async def sums(world: World) -> dict[int, int]:
    """The brand's accounts, which sum to nothing."""
    told = await world.trial_balance()
    assert told.total_minor == 0
    return {one.account: one.amount_minor for one in told.accounts}


# ---- adjustments ------------------------------------------------------------------------------------


async def test_two_persons_change_what_a_guide_is_owed_for_a_reason(fresh: World) -> None:
    """12.34 that no order gives her, borne by her store; until the second agrees nothing is owed."""
    one = await proposed(fresh, 1234, bearing_store_id=fresh.nanjing_road)
    assert (one.state, one.proposer) == (adjustment_pb2.ADJUSTMENT_STATE_PROPOSED, "local-brand_admin")
    assert await fresh.owed(0) == 0
    decided = (await second(fresh).ApproveAdjustment(approval(one, fresh))).adjustment
    assert (decided.state, decided.decider) == (adjustment_pb2.ADJUSTMENT_STATE_APPROVED, "the second")
    assert await fresh.owed(0) == 1234
    posted = await entry(fresh, decided.entry_id)
    assert posted.cause == f"ADJUSTMENT:{one.adjustment_id}"
    assert {(one.account, one.amount_minor, one.kind) for one in posted.postings} == {
        (ledger_pb2.ACCOUNT_PAYABLE, -1234, ledger_pb2.POSTING_KIND_ADJUSTED),
        (ledger_pb2.ACCOUNT_EXPENSE, 1234, ledger_pb2.POSTING_KIND_ADJUSTED),
    }
    [expense] = [one for one in posted.postings if one.account == ledger_pb2.ACCOUNT_EXPENSE]
    assert expense.payee.bearing_store_id == fresh.nanjing_road
    assert await sums(fresh) == {ledger_pb2.ACCOUNT_PAYABLE: -1234, ledger_pb2.ACCOUNT_EXPENSE: 1234}


async def test_a_negative_adjustment_takes_back_and_one_of_a_pool_is_the_pools(fresh: World) -> None:
    await approved(fresh, -500)
    await approved(fresh, 700, pool_store_id=fresh.xintiandi)
    assert await fresh.owed(0) == -500
    assert await fresh.owed_to_pool(fresh.xintiandi) == 700
    assert (await sums(fresh))[ledger_pb2.ACCOUNT_EXPENSE] == 200


async def test_whoever_proposed_it_decides_nothing(fresh: World) -> None:
    """Neither for nor against; and what was decided stays so."""
    one = await proposed(fresh, 100)
    with fresh.running.nothing_written(fresh.brand_id):
        for refused in (
            await refusal(adjustments(fresh.admin).ApproveAdjustment(approval(one, fresh))),
            await refusal(adjustments(fresh.admin).RejectAdjustment(rejection(one, fresh))),
        ):
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SAME_PERSON")
    rejected = (await second(fresh).RejectAdjustment(rejection(one, fresh))).adjustment
    assert (rejected.state, rejected.entry_id) == (adjustment_pb2.ADJUSTMENT_STATE_REJECTED, "")
    refused = await refusal(second(fresh).ApproveAdjustment(approval(one, fresh)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADJUSTMENT_DECIDED")
    assert await fresh.owed(0) == 0


async def test_a_repeat_of_any_step_does_it_once(fresh: World) -> None:
    """Whatever came after it; the same request id for something else is refused."""
    request = proposal(fresh, 300)
    first = await adjustments(fresh.admin).ProposeAdjustment(request)
    approving = approval(first.adjustment, fresh)
    decided = await second(fresh).ApproveAdjustment(approving)
    assert await adjustments(fresh.admin).ProposeAdjustment(request) == first
    assert await second(fresh).ApproveAdjustment(approving) == decided
    assert await fresh.owed(0) == 300
    changed = proposal(fresh, 301, request_id=request.request_id)
    refused = await refusal(adjustments(fresh.admin).ProposeAdjustment(changed))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_of_many_who_decide_at_once_one_does(fresh: World) -> None:
    """For and against: posted once or not at all, as the answers say."""
    one = await proposed(fresh, 100)
    deciding = [second(fresh).ApproveAdjustment(approval(one, fresh)) for _ in range(4)]
    against = [second(fresh).RejectAdjustment(rejection(one, fresh)) for _ in range(4)]
    outcomes = await asyncio.gather(*deciding, *against, return_exceptions=True)
    [done] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert await fresh.owed(0) == (100 if isinstance(done, adjustment_pb2.ApproveAdjustmentResponse) else 0)
    assert {outcome.code() for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)} <= {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
    }


async def test_an_adjustment_counts_in_its_month_or_where_that_is_closed_in_the_open_one(
    running: Running,
) -> None:
    """Found in the review before the close it still counts in the month; approved after it, in the next."""
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    await sold(world, 10_000)
    after_month(running, month)
    await approved(world, 50, month=message_of(month))
    late = await proposed(world, 7, month=message_of(month))
    await approved(world, 1000)
    await close(world, month)
    made = await statement(world, month, 0)
    assert (made.earned_minor, made.adjusted_minor, made.closing_payable_minor) == (300, 50, 350)
    decided = (await second(world).ApproveAdjustment(approval(late, world))).adjustment
    posted = await entry(world, decided.entry_id)
    assert posted.posting_month.month == month.month % 12 + 1
    assert {one.origin_month.month for one in posted.postings} == {month.month}
    assert (await statement(world, month, 0)) == made, "a statement stands"
    assert await world.owed(0) == 1357


async def test_adjustments_are_listed_the_last_first_page_by_page_and_by_state(fresh: World) -> None:
    order = fresh.order()
    await fresh.ingest(order.paid(line_of("coat", 100)))
    named = {"channel": order.channel, "order_id": order.order_id}
    kept = [await proposed(fresh, amount, **named) for amount in (1, 2, 3)]
    done = await approved(fresh, 4)

    async def page(**more: Any) -> adjustment_pb2.ListAdjustmentsResponse:
        request = adjustment_pb2.ListAdjustmentsRequest(brand_id=fresh.brand_id, **more)
        return await adjustments(fresh.admin).ListAdjustments(request)

    whole = [*(await page()).adjustments]
    assert whole == [done, *reversed(kept)]
    assert (whole[-1].channel, whole[-1].order_id) == (order.channel, order.order_id)
    first = await page(page_size=3)
    rest = await page(page_size=3, page_token=first.next_page_token)
    assert [*first.adjustments, *rest.adjustments] == whole
    assert not rest.next_page_token
    waiting: AdjustmentState.ValueType = adjustment_pb2.ADJUSTMENT_STATE_PROPOSED
    assert list((await page(state=waiting)).adjustments) == list(reversed(kept))
    refused = await refusal(page(state=waiting, page_token=first.next_page_token))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_who_proposed_and_who_approved_is_in_the_audit_log(fresh: World) -> None:
    done = await approved(fresh, 5)
    records = fresh.running.documents("commission", "audit", {"subject.adjustment_id": done.adjustment_id})
    told = sorted((record["action"], record["caller"]) for record in records)
    assert told == [("ApproveAdjustment", "the second"), ("ProposeAdjustment", "local-brand_admin")]


BAD: Final[Mapping[str, tuple[Callable[[World], Awaitable[object]], str, set[str]]]] = {
    "nothing": (
        lambda w: adjustments(w.admin).ProposeAdjustment(
            adjustment_pb2.ProposeAdjustmentRequest(brand_id=w.brand_id)
        ),
        "INVALID_FIELDS",
        {"request_id", "payee", "reason"},
    ),
    "no amount": (lambda w: proposed(w, 0), "INVALID_FIELDS", {"amount_minor"}),
    "more than there is money": (lambda w: proposed(w, 10**12 + 1), "INVALID_FIELDS", {"amount_minor"}),
    "a novel for a reason": (lambda w: proposed(w, 1, reason="x" * 201), "INVALID_FIELDS", {"reason"}),
    "an order of no channel": (lambda w: proposed(w, 1, order_id="o"), "INVALID_FIELDS", {"channel"}),
    "a channel and no order": (
        lambda w: proposed(w, 1, channel=Channel.CHANNEL_POS),
        "INVALID_FIELDS",
        {"order_id"},
    ),
    "an order that nobody knows": (
        lambda w: proposed(w, 1, channel=Channel.CHANNEL_POS, order_id="unknown"),
        "ORDER_UNKNOWN",
        set(),
    ),
    "a guide who is none": (lambda w: proposed(w, 1, guide_id=new_id()), "GUIDE_UNKNOWN", set()),
    "a pool that is none": (lambda w: proposed(w, 1, pool_store_id=new_id()), "STORE_UNKNOWN", set()),
    "a bearer who is none": (lambda w: proposed(w, 1, bearing_store_id=new_id()), "STORE_UNKNOWN", set()),
    "a day for a month": (
        lambda w: proposed(w, 1, month=Date(year=2026, month=1, day=1)),
        "INVALID_FIELDS",
        {"month"},
    ),
    "a month to come": (
        lambda w: proposed(w, 1, month=Date(year=9999, month=1)),
        "MONTH_IN_FUTURE",
        set(),
    ),
    "approving what is not there": (
        lambda w: second(w).ApproveAdjustment(approval(Adjustment(adjustment_id=new_id()), w)),
        "ADJUSTMENT_UNKNOWN",
        set(),
    ),
    "balances of no month": (
        lambda w: adjustments(w.admin).ImportOpeningBalances(
            adjustment_pb2.ImportOpeningBalancesRequest(brand_id=w.brand_id)
        ),
        "INVALID_FIELDS",
        {"month", "balances"},
    ),
    "balances of a month to come": (
        lambda w: imported(w, date(9999, 1, 1), OpeningBalance(guide_id=w.guides[0], payable_minor=1)),
        "MONTH_IN_FUTURE",
        set(),
    ),
    "a thousand and one balances": (
        lambda w: imported(w, this_month(w.running), *[OpeningBalance()] * 1001),
        "INVALID_FIELDS",
        {"balances"},
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_wrong_is_refused_and_nothing_is_written(world: World, case: str) -> None:
    call, reason, fields = BAD[case]
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(call(world))
    assert (refused.reason, refused.fields) == (reason, fields)


# ---- opening balances -------------------------------------------------------------------------------


async def imported(world: World, month: date, *balances: OpeningBalance) -> list[tuple[int, str]]:
    """What became of balances that are taken over in a month."""
    request = adjustment_pb2.ImportOpeningBalancesRequest(
        brand_id=world.brand_id, month=message_of(month), balances=balances
    )
    results = (await adjustments(world.admin).ImportOpeningBalances(request)).results
    return [(result.outcome, result.error.reason) for result in results]


async def test_what_another_system_owed_is_taken_over_once_for_each_payee(fresh: World) -> None:
    """Payable and held, of a guide and of a pool; against CLEARING."""
    month = this_month(fresh.running)
    first, pool = fresh.guides[0], fresh.nanjing_road
    balances = [
        OpeningBalance(guide_id=first, payable_minor=1000, held_minor=250),
        OpeningBalance(guide_id=fresh.guides[1], payable_minor=-40),
        OpeningBalance(pool_store_id=pool, held_minor=7),
    ]
    assert await imported(fresh, month, *balances) == [IMPORTED] * 3
    assert [await fresh.owed(guide) for guide in (0, 1)] == [1000, -40]
    assert await sums(fresh) == {
        ledger_pb2.ACCOUNT_PAYABLE: -960,
        ledger_pb2.ACCOUNT_HELD: -257,
        ledger_pb2.ACCOUNT_CLEARING: 1217,
    }
    assert await imported(fresh, month, *balances) == [DUPLICATE] * 3
    assert (await sums(fresh))[ledger_pb2.ACCOUNT_CLEARING] == 1217


async def test_one_bad_balance_does_not_fail_its_neighbours(fresh: World) -> None:
    """Also where one payee comes twice in a call: the first counts."""
    month, guides = this_month(fresh.running), fresh.guides
    outcomes = await imported(
        fresh,
        month,
        OpeningBalance(guide_id=guides[0], payable_minor=5),
        OpeningBalance(),
        OpeningBalance(guide_id=guides[1]),
        OpeningBalance(guide_id=new_id(), payable_minor=5),
        OpeningBalance(pool_store_id=new_id(), payable_minor=5),
        OpeningBalance(guide_id=guides[0], payable_minor=5),
        OpeningBalance(guide_id=guides[0], payable_minor=4, held_minor=1),
        OpeningBalance(guide_id=guides[2], payable_minor=10**12 + 1),
    )
    assert outcomes == [
        IMPORTED,
        (REFUSED, "INVALID_FIELDS"),
        (REFUSED, "INVALID_FIELDS"),
        (REFUSED, "GUIDE_UNKNOWN"),
        (REFUSED, "STORE_UNKNOWN"),
        DUPLICATE,
        (REFUSED, "OPENING_BALANCE_CHANGED"),
        (REFUSED, "INVALID_FIELDS"),
    ]
    assert await sums(fresh) == {ledger_pb2.ACCOUNT_PAYABLE: -5, ledger_pb2.ACCOUNT_CLEARING: 5}


async def test_a_balance_that_was_taken_over_is_changed_by_nothing(fresh: World) -> None:
    """Neither by other amounts nor in another month; many calls at once take it over once."""
    month = this_month(fresh.running)
    rivals = [
        imported(fresh, month, OpeningBalance(guide_id=fresh.guides[0], payable_minor=amount))
        for amount in range(1, 7)
    ]
    outcomes = [outcome for [outcome] in await asyncio.gather(*rivals)]
    [won] = [place for place, outcome in enumerate(outcomes) if outcome == IMPORTED]
    assert sorted(outcomes)[:5] == [(REFUSED, "OPENING_BALANCE_CHANGED")] * 5
    assert await fresh.owed(0) == won + 1
    same = OpeningBalance(guide_id=fresh.guides[0], payable_minor=won + 1)
    before = date(month.year - 1, month.month, 1)
    assert await imported(fresh, before, same) == [(REFUSED, "OPENING_BALANCE_CHANGED")]
    assert await imported(fresh, month, same) == [DUPLICATE]


async def test_nothing_is_taken_over_into_a_closed_month_and_statements_show_it_apart(
    running: Running,
) -> None:
    month = mid_month(running)
    world = await a_world(running, plan=plan_of())
    balance = OpeningBalance(guide_id=world.guides[0], payable_minor=800, held_minor=30)
    assert await imported(world, month, balance) == [IMPORTED]
    after_month(running, month)
    await close(world, month)
    made = await statement(world, month, 0)
    assert (made.opening_balance_minor, made.closing_payable_minor, made.closing_held_minor) == (830, 800, 30)
    other = OpeningBalance(guide_id=world.guides[1], payable_minor=1)
    assert await imported(world, month, balance, other) == [DUPLICATE, (REFUSED, "MONTH_CLOSED")]
    assert await imported(world, this_month(running), other) == [IMPORTED]
