"""Sales performance over the wire: for whom a sale is counted, on which day, and who is ahead."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import grpc
import pytest

from daogou.commission.v1 import performance_pb2 as pb
from daogou.commission.v1.ledger_pb2 import GuideCreditRole
from daogou.commission.v1.order_event_pb2 import EventOutcome, OrderEventKind
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from daogou.members.v1 import directory_pb2
from tests.rpc.running import Running, eventually, refusal
from tests.rpc.world import (
    Order,
    World,
    a_world,
    flagship_of,
    line_of,
    plan_of,
    refund_of,
    request_id,
)

POS: Final = Channel.CHANNEL_POS
TMALL: Final = Channel.CHANNEL_TMALL
COAT: Final = line_of("coat", 10_000)
Figures = tuple[int, int, int, int]
"""Sold, refunded, net, orders."""


def day_of(day: date) -> Date:
    return Date(year=day.year, month=day.month, day=day.day)


def month_of(day: date) -> Date:
    return Date(year=day.year, month=day.month)


def range_of(first: Date, last: Date | None = None) -> pb.PeriodRange:
    return pb.PeriodRange(first=first, last=last or first)


def told(figures: pb.SalesFigures) -> Figures:
    return figures.sold_minor, figures.refunded_minor, figures.net_minor, figures.order_count


async def of_store(world: World, store_id: str, *ends: Date) -> list[Figures]:
    """The figures of each period of a store; of them all last."""
    reply = await world.admin.performance.GetStorePerformance(
        pb.GetStorePerformanceRequest(brand_id=world.brand_id, store_id=store_id, range=range_of(*ends))
    )
    return [*(told(one.figures) for one in reply.periods), told(reply.total)]


async def of_brand(world: World, *ends: Date) -> list[Figures]:
    """The figures of each period of the brand; of them all last."""
    reply = await world.admin.performance.GetBrandPerformance(
        pb.GetBrandPerformanceRequest(brand_id=world.brand_id, range=range_of(*ends))
    )
    return [*(told(one.figures) for one in reply.periods), told(reply.total)]


async def of_guide(world: World, index: int, *ends: Date) -> list[pb.GuidePeriodFigures]:
    """The figures of each period of a guide; of them all last."""
    reply = await world.admin.performance.GetGuidePerformance(
        pb.GetGuidePerformanceRequest(
            brand_id=world.brand_id, guide_id=world.guides[index], range=range_of(*ends)
        )
    )
    return [*reply.periods, reply.total]


def today(world: World) -> Date:
    """The day of the business calendar on which an order of two hours ago was paid a minute later."""
    paid = world.running.now() - timedelta(hours=2) + timedelta(minutes=1)
    return day_of(paid.astimezone(ZoneInfo("Asia/Shanghai")).date())


def sold_at(world: World, placed: datetime, store_id: str = "") -> Order:
    """An order at a till, placed when it is said."""
    return Order(
        POS, f"till-{secrets.token_hex(6)}", placed, {"selling_store_id": store_id or world.nanjing_road}
    )


def refund_at(order: Order, after: timedelta, amount: int, number: int = 1) -> Any:
    """Money that was paid back some time after the order was placed."""
    return order.event(
        f"REFUND:{number}",
        OrderEventKind.ORDER_EVENT_KIND_REFUNDED,
        after=after,
        refund_lines=[refund_of("coat", amount)],
    )


async def sell(world: World, *events: Any) -> None:
    """Reports events, all of which must be taken in."""
    results = await world.ingest(*events)
    assert {one.outcome for one in results} == {EventOutcome.EVENT_OUTCOME_APPLIED}, results


# ---- for whom, on which day -------------------------------------------------------------------------


async def test_a_sale_on_tmall_counts_for_both_stores_the_guide_and_once_for_the_brand(
    running: Running,
) -> None:
    """No plan is in force: nothing is posted, and the sale is counted all the same, however often told."""
    world = await a_world(running, member=False)
    _, identity = await world.bound(0)
    running.later(hours=3)
    order, day = world.order(identity=identity), today(world)
    await sell(world, order.placed(COAT))
    assert await of_brand(world, day) == [(0, 0, 0, 0)] * 2
    await sell(world, order.paid(COAT))
    for _ in range(2):
        await world.ingest(order.paid(COAT), order.placed(COAT))
    whole = (10_000, 0, 10_000, 1)
    assert await of_store(world, world.flagship, day) == [whole] * 2
    assert await of_store(world, world.nanjing_road, day) == [whole] * 2
    assert await of_store(world, world.xintiandi, day) == [(0, 0, 0, 0)] * 2
    assert await of_brand(world, day) == [whole] * 2
    assert await of_brand(world, month_of(date(day.year, day.month, 1))) == [whole] * 2
    [hers, _] = await of_guide(world, 0, day)
    assert (told(hers.all), told(hers.owned), told(hers.served)) == (whole, whole, (0, 0, 0, 0))
    explained = await world.explained(order)
    assert not explained.entries
    assert explained.credits_agree
    [credit] = explained.guide_sales_credits
    assert (credit.guide_id, credit.role) == (world.guides[0], GuideCreditRole.GUIDE_CREDIT_ROLE_OWNER)
    assert {one.store_id: one.sold_minor for one in explained.sales_credits} == {
        world.flagship: 10_000,
        world.nanjing_road: 10_000,
    }


async def test_who_owns_and_who_serves_are_told_apart_and_both_in_one_is_one_sale(running: Running) -> None:
    """Bound to the first; served once by herself, once by the second, and a stranger by the second."""
    world = await a_world(running, plan=plan_of(), member=False)
    _, identity = await world.bound(0)
    running.later(hours=3)
    day = today(world)
    served = [
        world.order(POS, identity=identity, serving_guide_id=world.guides[0]),
        world.order(POS, identity=identity, serving_guide_id=world.guides[1]),
        world.order(POS, identity=world.identity(), serving_guide_id=world.guides[1]),
    ]
    for order, price in zip(served, (100, 20, 3), strict=True):
        await sell(world, order.paid(line_of("coat", price)))
    [first, _] = await of_guide(world, 0, day)
    assert [one.sold_minor for one in (first.all, first.owned, first.served)] == [120, 120, 100]
    assert [one.order_count for one in (first.all, first.owned, first.served)] == [2, 2, 1]
    [second, _] = await of_guide(world, 1, day)
    assert [one.sold_minor for one in (second.all, second.owned, second.served)] == [23, 3, 23]
    assert await of_brand(world, day) == [(123, 0, 123, 3)] * 2
    assert await of_store(world, world.nanjing_road, day) == [(123, 0, 123, 3)] * 2


async def test_a_refund_counts_on_the_day_it_is_made_and_the_month_before_stays(running: Running) -> None:
    """Sold in June, some of it back in June, some in August; July has figures of 0."""
    world = await a_world(running, member=False)
    order = sold_at(world, datetime(2026, 6, 10, 4, tzinfo=UTC))
    await sell(world, order.paid(COAT))
    await sell(
        world,
        refund_at(order, timedelta(days=1), 1_000, 1),
        refund_at(order, timedelta(days=60), 4_000, 2),
    )
    june, august = Date(year=2026, month=6), Date(year=2026, month=8)
    by_month = [(10_000, 1_000, 9_000, 1), (0, 0, 0, 0), (0, 4_000, -4_000, 0), (10_000, 5_000, 5_000, 1)]
    assert await of_store(world, world.nanjing_road, june, august) == by_month
    assert await of_brand(world, june, august) == by_month
    tenth, eleventh = (Date(year=2026, month=6, day=day) for day in (10, 11))
    assert await of_brand(world, tenth, eleventh) == [
        (10_000, 0, 10_000, 1),
        (0, 1_000, -1_000, 0),
        (10_000, 1_000, 9_000, 1),
    ]
    assert (await world.explained(order)).credits_agree


# In Shanghai a day begins at 16:00 UTC. In New York at 5:00, and from 8 March to 1 November 2026 at 4:00.
MIDNIGHTS: Final = [
    ("Asia/Shanghai", datetime(2026, 7, 31, 16, tzinfo=UTC), date(2026, 8, 1)),
    ("Asia/Shanghai", datetime(2026, 8, 14, 16, tzinfo=UTC), date(2026, 8, 15)),
    ("America/New_York", datetime(2026, 3, 8, 5, tzinfo=UTC), date(2026, 3, 8)),
    ("America/New_York", datetime(2026, 3, 9, 4, tzinfo=UTC), date(2026, 3, 9)),
    ("America/New_York", datetime(2026, 4, 1, 4, tzinfo=UTC), date(2026, 4, 1)),
    ("America/New_York", datetime(2026, 11, 1, 4, tzinfo=UTC), date(2026, 11, 1)),
    ("America/New_York", datetime(2026, 11, 2, 5, tzinfo=UTC), date(2026, 11, 2)),
]


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
async def test_days_and_months_begin_at_the_brands_local_midnight(zone: str, running: Running) -> None:
    """Paid a millisecond before, it is the day before; also where the clocks are changed."""
    world = await a_world(running, member=False, time_zone=zone)
    for _, midnight, day in (one for one in MIDNIGHTS if one[0] == zone):
        before, hour = day - timedelta(days=1), timedelta(hours=1)
        ends = (day_of(before), day_of(day)) if day.day != 1 else (month_of(before), month_of(day))
        [*was, _] = await of_brand(world, *ends)
        late, early = (sold_at(world, midnight - hour) for _ in range(2))
        await sell(
            world,
            late.paid(line_of("coat", 20), after=hour - timedelta(milliseconds=1)),
            refund_at(late, hour - timedelta(milliseconds=1), 5),
            early.paid(line_of("coat", 300), after=hour),
            refund_at(early, hour, 40),
        )
        [*found, _] = await of_brand(world, *ends)
        assert [amount - old for amount, old in zip(found[0], was[0], strict=True)] == [20, 5, 15, 1], day
        assert [amount - old for amount, old in zip(found[1], was[1], strict=True)] == [300, 40, 260, 1], day


async def test_what_waits_for_its_attribution_is_counted_when_it_has_it(running: Running) -> None:
    """On the day it was paid."""
    world = await a_world(running, member=False)
    order, day = world.order(shop_id=f"new-{world.shop_id}"), today(world)
    [result] = await world.ingest(order.paid(COAT))
    assert result.outcome == EventOutcome.EVENT_OUTCOME_PARKED
    assert await of_brand(world, day) == [(0, 0, 0, 0)] * 2
    assert (await world.explained(order)).credits_agree
    await world.admin.directory.CreateStore(
        directory_pb2.CreateStoreRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            store=flagship_of("Second flagship", f"new-{world.shop_id}"),
        )
    )
    running.later(seconds=70)

    async def counted() -> bool:
        return (await of_brand(world, day))[0] == (10_000, 0, 10_000, 1)

    await eventually(counted, "the order is attributed and counted")


# ---- leaderboards -----------------------------------------------------------------------------------

NETS: Final = (300, 500, 300, 100, 500, 700)
"""What the guides of the contest sold."""


@pytest.fixture(scope="module")
async def contest(running: Running) -> World:
    """Six guides who served strangers on 5 May; the last sold in Xintiandi."""
    world = await a_world(running, guides=6, member=False)
    placed = datetime(2026, 5, 5, 2, tzinfo=UTC)
    for index, price in enumerate(NETS):
        order = sold_at(world, placed, world.store_of_guide(index))
        order.fields["serving_guide_id"] = world.guides[index]
        await sell(world, order.paid(line_of("coat", price + 9)), refund_at(order, timedelta(hours=1), 9))
    return world


FIFTH: Final = Date(year=2026, month=5, day=5)
MAY: Final = Date(year=2026, month=5)


@pytest.mark.parametrize("period", [FIFTH, MAY], ids=["day", "month"])
async def test_guides_are_ranked_by_net_and_equals_share_a_rank(period: Date, contest: World) -> None:
    """700; twice 500; twice 300; 100: the ranks 1, 2, 2, 4, 4, 6, on one page or on many."""
    by_id = sorted(range(6), key=lambda index: (-NETS[index], contest.guides[index]))
    wanted = [
        (rank, contest.guides[index], NETS[index])
        for rank, index in zip((1, 2, 2, 4, 4, 6), by_id, strict=True)
    ]
    for size in (0, 1, 2, 4, 6, 1000):
        found, request = [], pb.ListGuideLeaderboardRequest(brand_id=contest.brand_id, period=period)
        request.page_size = size
        while True:
            reply = await contest.connector.performance.ListGuideLeaderboard(request)
            assert len(reply.guides) <= (size or 100)
            found += [(one.rank, one.guide_id, one.figures.net_minor) for one in reply.guides]
            assert {told(one.figures)[1:] for one in reply.guides} <= {(9, net, 1) for net in NETS}
            request.page_token = reply.next_page_token
            if not request.page_token:
                break
        assert found == wanted, size
        assert reply.currency_code == "CNY"


async def test_stores_are_ranked_too(contest: World) -> None:
    """Nanjing Road sold 800, Xintiandi 1,600; the flagship nothing, and is not listed."""
    reply = await contest.admin.performance.ListStoreLeaderboard(
        pb.ListStoreLeaderboardRequest(brand_id=contest.brand_id, period=MAY)
    )
    assert [(one.rank, one.store_id, told(one.figures)) for one in reply.stores] == [
        (1, contest.xintiandi, (1_636, 36, 1_600, 4)),
        (2, contest.nanjing_road, (818, 18, 800, 2)),
    ]
    empty = await contest.admin.performance.ListStoreLeaderboard(
        pb.ListStoreLeaderboardRequest(brand_id=contest.brand_id, period=Date(year=2026, month=4))
    )
    assert not empty.stores


async def test_a_guide_and_a_manager_are_told_their_own_places_and_nobody_elses(contest: World) -> None:
    """The third sold 300, as the first did; her manager's store is second of two."""
    performance = contest.guide(2).performance
    request = pb.GetGuideRankRequest(brand_id=contest.brand_id, guide_id=contest.guides[2], period=FIFTH)
    reply = await performance.GetGuideRank(request)
    assert (reply.guide.rank, reply.guide.figures.net_minor, reply.ranked_count) == (4, 300, 6)
    request.guide_id = contest.guides[3]
    assert (await refusal(performance.GetGuideRank(request))).reason == "NOT_YOURS"
    board = pb.ListGuideLeaderboardRequest(brand_id=contest.brand_id, period=FIFTH)
    assert (await refusal(performance.ListGuideLeaderboard(board))).reason == "ROLE_NOT_ADMITTED"

    managing = contest.manager().performance
    own = pb.GetStoreRankRequest(
        brand_id=contest.brand_id, store_id=contest.nanjing_road, period=Date(year=2026, month=5)
    )
    found = await managing.GetStoreRank(own)
    assert (found.store.rank, found.store.figures.net_minor, found.ranked_count) == (2, 800, 2)
    own.store_id = contest.xintiandi
    assert (await refusal(managing.GetStoreRank(own))).reason == "NOT_YOUR_STORE"


async def test_who_sold_nothing_has_no_rank_and_figures_of_0(contest: World) -> None:
    """Nor has who is nobody here."""
    for store_id in (contest.flagship, "a" * 16):
        found = await contest.admin.performance.GetStoreRank(
            pb.GetStoreRankRequest(brand_id=contest.brand_id, store_id=store_id, period=MAY)
        )
        assert not found.HasField("store")
        assert found.ranked_count == 2
        assert await of_store(contest, store_id, MAY) == [(0, 0, 0, 0)] * 2


async def test_her_own_figures_are_a_guides_and_a_managers_to_read(contest: World) -> None:
    """Theirs alone."""
    hers = pb.GetGuidePerformanceRequest(
        brand_id=contest.brand_id, guide_id=contest.guides[0], range=range_of(MAY)
    )
    reply = await contest.guide(0).performance.GetGuidePerformance(hers)
    assert told(reply.total.served) == (309, 9, 300, 1)
    assert (await refusal(contest.guide(1).performance.GetGuidePerformance(hers))).reason == "NOT_YOURS"
    shop = pb.GetStorePerformanceRequest(
        brand_id=contest.brand_id, store_id=contest.nanjing_road, range=range_of(MAY)
    )
    assert told((await contest.manager().performance.GetStorePerformance(shop)).total)[2] == 800
    other = contest.manager(contest.xintiandi).performance
    assert (await refusal(other.GetStorePerformance(shop))).reason == "NOT_YOUR_STORE"


# ---- what is no question ----------------------------------------------------------------------------

Ask = Callable[[World, Any], Awaitable[object]]

BAD_RANGES: Final[Mapping[str, tuple[pb.PeriodRange | None, set[str]]]] = {
    "none": (None, {"range"}),
    "without ends": (pb.PeriodRange(), {"range.first", "range.last"}),
    "without a last": (pb.PeriodRange(first=FIFTH), {"range.last"}),
    "reversed days": (range_of(FIFTH, Date(year=2026, month=5, day=4)), {"range.last"}),
    "reversed months": (range_of(MAY, Date(year=2026, month=4)), {"range.last"}),
    "401 days": (range_of(FIFTH, Date(year=2027, month=6, day=9)), {"range.last"}),
    "37 months": (range_of(MAY, Date(year=2029, month=5)), {"range.last"}),
    "a day to a month": (range_of(FIFTH, MAY), {"range.last"}),
    "a month to a day": (range_of(MAY, FIFTH), {"range.last"}),
    "days that are none": (
        range_of(Date(year=2027, month=2, day=29), Date(year=2027, month=13, day=1)),
        {"range.first", "range.last"},
    ),
    "a year": (range_of(Date(year=2026), Date(year=2026)), {"range.first", "range.last"}),
    "before there were years": (range_of(Date(year=0, month=1), MAY), {"range.first"}),
    "after the last year": (range_of(MAY, Date(year=10_000, month=1)), {"range.last"}),
}
RANGED: Final[Mapping[str, Ask]] = {
    "store": lambda w, asked: w.admin.performance.GetStorePerformance(
        pb.GetStorePerformanceRequest(brand_id=w.brand_id, store_id=w.flagship, range=asked)
    ),
    "guide": lambda w, asked: w.admin.performance.GetGuidePerformance(
        pb.GetGuidePerformanceRequest(brand_id=w.brand_id, guide_id=w.guides[0], range=asked)
    ),
    "brand": lambda w, asked: w.admin.performance.GetBrandPerformance(
        pb.GetBrandPerformanceRequest(brand_id=w.brand_id, range=asked)
    ),
}


@pytest.mark.parametrize("of", RANGED)
async def test_a_range_that_is_none_is_refused_with_what_is_wrong_with_it(of: str, contest: World) -> None:
    for name, (asked, fields) in BAD_RANGES.items():
        found = await refusal(RANGED[of](contest, asked))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"), name
        assert found.fields == fields, name


async def test_the_longest_ranges_are_answered_in_full(contest: World) -> None:
    """400 days and 36 months; also at the end of time."""
    assert len(await of_brand(contest, FIFTH, Date(year=2027, month=6, day=8))) == 401
    assert len(await of_brand(contest, MAY, Date(year=2029, month=4))) == 37
    assert len(await of_brand(contest, Date(year=9999, month=1), Date(year=9999, month=12))) == 13
    assert len(await of_brand(contest, Date(year=1, month=1, day=1), Date(year=1, month=1, day=2))) == 3


def board(page_size: int = 0) -> Ask:
    return lambda w, period: w.admin.performance.ListStoreLeaderboard(
        pb.ListStoreLeaderboardRequest(brand_id=w.brand_id, period=period, page_size=page_size)
    )


RANKED: Final[Mapping[str, Ask]] = {
    "stores": board(),
    "guides": lambda w, period: w.admin.performance.ListGuideLeaderboard(
        pb.ListGuideLeaderboardRequest(brand_id=w.brand_id, period=period)
    ),
    "a store": lambda w, period: w.admin.performance.GetStoreRank(
        pb.GetStoreRankRequest(brand_id=w.brand_id, store_id=w.flagship, period=period)
    ),
    "a guide": lambda w, period: w.admin.performance.GetGuideRank(
        pb.GetGuideRankRequest(brand_id=w.brand_id, guide_id=w.guides[0], period=period)
    ),
}


@pytest.mark.parametrize("of", RANKED)
async def test_a_period_that_is_none_is_refused(of: str, contest: World) -> None:
    for period in (
        None,
        Date(),
        Date(year=2026),
        Date(year=2026, month=2, day=30),
        Date(year=2026, month=5, day=-1),
        Date(month=5, day=5),
    ):
        found = await refusal(RANKED[of](contest, period))
        assert (found.reason, found.fields) == ("INVALID_FIELDS", {"period"}), period


async def test_pages_have_a_size_and_a_token_is_good_for_its_own_list(contest: World) -> None:
    for size in (-1, 1001):
        assert (await refusal(board(size)(contest, MAY))).fields == {"page_size"}
    first = await contest.admin.performance.ListStoreLeaderboard(
        pb.ListStoreLeaderboardRequest(brand_id=contest.brand_id, period=MAY, page_size=1)
    )
    for request in (
        pb.ListStoreLeaderboardRequest(
            brand_id=contest.brand_id, period=FIFTH, page_token=first.next_page_token
        ),
        pb.ListStoreLeaderboardRequest(brand_id=contest.brand_id, period=MAY, page_token="garbage"),
    ):
        found = await refusal(contest.admin.performance.ListStoreLeaderboard(request))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
