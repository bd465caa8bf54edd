"""Feeds over the wire: one counts, the others are turned away by item, and what is reported is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from chassis.times import from_timestamp, to_timestamp
from daogou.commission.v1 import feed_pb2
from daogou.commission.v1.feed_pb2_grpc import FeedServiceStub
from daogou.commission.v1.order_event_pb2 import (
    EventOutcome,
    EventResult,
    IngestOrderEventsRequest,
    OrderEvent,
)
from daogou.common.v1.channel_pb2 import Channel
from tests.rpc.running import Caller, Running, eventually, refusal
from tests.rpc.test_operations import samples_of
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.feed_pb2_grpc import FeedServiceAsyncStub

TMALL, POS = Channel.CHANNEL_TMALL, Channel.CHANNEL_POS
COAT: Final = line_of("coat", 10_000)
APPLIED: Final = (EventOutcome.EVENT_OUTCOME_APPLIED, "")
DUPLICATE: Final = (EventOutcome.EVENT_OUTCOME_DUPLICATE, "")
TURNED_AWAY: Final = (EventOutcome.EVENT_OUTCOME_REJECTED, "NOT_AUTHORITATIVE_FEED")


@pytest.fixture
async def fresh(running: Running) -> World:
    """A brand without feeds."""
    return await a_world(running, plan=plan_of())


def feeds(caller: Caller) -> FeedServiceAsyncStub:
    return FeedServiceStub(caller.channel("commission"))


def registration(world: World, feed_id: str, **more: Any) -> feed_pb2.RegisterFeedRequest:
    """The request that makes a feed the flagship's, unless another shop is named."""
    named = {"channel": TMALL, "shop_id": world.shop_id, "request_id": request_id(), **more}
    return feed_pb2.RegisterFeedRequest(brand_id=world.brand_id, feed_id=feed_id, **named)


async def registered(world: World, feed_id: str, **more: Any) -> feed_pb2.Feed:
    """Makes a feed the authoritative one."""
    return (await feeds(world.admin).RegisterFeed(registration(world, feed_id, **more))).feed


async def listed(world: World) -> list[feed_pb2.Feed]:
    reply = await feeds(world.connector).ListFeeds(feed_pb2.ListFeedsRequest(brand_id=world.brand_id))
    return list(reply.feeds)


async def reported(world: World, feed_id: str, time: datetime) -> datetime:
    """Reports how far a feed has come; how far the service says it has."""
    request = feed_pb2.ReportSyncedThroughRequest(
        brand_id=world.brand_id, feed_id=feed_id, synced_through_time=to_timestamp(time)
    )
    return from_timestamp((await feeds(world.connector).ReportSyncedThrough(request)).synced_through_time)


async def delivered(world: World, feed_id: str, *events: OrderEvent) -> list[tuple[int, str]]:
    """What became of events that a feed delivers; an empty name: nobody's."""
    request = IngestOrderEventsRequest(brand_id=world.brand_id, feed_id=feed_id, events=events)
    results: list[EventResult] = list((await world.connector.events.IngestOrderEvents(request)).results)
    return [(result.outcome, result.error.reason) for result in results]


async def until_turned_away(world: World, feed_id: str) -> None:
    """Waits until the service has noticed that a feed is no longer authoritative for the flagship."""

    async def is_turned_away() -> bool:
        return await delivered(world, feed_id, world.order().placed(COAT)) == [TURNED_AWAY]

    await eventually(is_turned_away, "the former feed is turned away")


async def test_a_brand_without_feeds_takes_events_from_anybody(fresh: World) -> None:
    """So it begins; its orders need no registration to be paid for."""
    assert await listed(fresh) == []
    order = fresh.order()
    assert await delivered(fresh, "", order.placed(COAT)) == [APPLIED]
    assert await delivered(fresh, "anybody", order.paid(COAT)) == [APPLIED]
    assert (await fresh.explained(order)).books_agree


async def test_only_the_authoritative_feed_delivers_and_its_neighbours_are_not_affected(
    fresh: World,
) -> None:
    """Two systems that each report a payment under an id of their own would have it paid for twice."""
    await registered(fresh, "erp")
    await until_turned_away(fresh, "")
    order, at_the_till = fresh.order(), fresh.order(POS)
    assert await delivered(fresh, "erp", order.placed(COAT), order.paid(COAT)) == [APPLIED, APPLIED]
    with fresh.running.nothing_written(fresh.brand_id):
        assert await delivered(fresh, "other", order.paid(COAT, number=2), order.paid(COAT)) == [
            TURNED_AWAY,
            TURNED_AWAY,
        ]
        assert await delivered(fresh, "", fresh.order().paid(COAT)) == [TURNED_AWAY]
    mixed = [fresh.order().paid(COAT), at_the_till.paid(COAT), fresh.order(order_id="").paid(COAT)]
    mixed[2].ClearField("order_id")
    assert await delivered(fresh, "other", *mixed) == [
        TURNED_AWAY,
        APPLIED,
        (EventOutcome.EVENT_OUTCOME_REJECTED, "INVALID_FIELDS"),
    ]
    assert await delivered(fresh, "erp", order.paid(COAT)) == [DUPLICATE]


async def test_the_tills_have_a_feed_of_their_own(fresh: World) -> None:
    """Orders that name no shop are a source by themselves, on each channel."""
    feed = await registered(fresh, "till", channel=POS, shop_id="")
    assert (feed.feed_id, feed.shop_id) == ("till", "")

    async def is_turned_away() -> bool:
        return await delivered(fresh, "erp", fresh.order(POS).paid(COAT)) == [TURNED_AWAY]

    await eventually(is_turned_away, "nobody else delivers for the tills")
    assert await delivered(fresh, "till", fresh.order(POS).paid(COAT)) == [APPLIED]
    in_a_shop = fresh.order(POS, shop_id="kiosk")
    assert await delivered(fresh, "erp", in_a_shop.paid(COAT), fresh.order().paid(COAT)) == [APPLIED, APPLIED]


async def test_a_handover_holds_at_once_for_the_new_feed_and_soon_for_the_old(fresh: World) -> None:
    """The new one's first event is taken in although the service remembers the old one."""
    first = await registered(fresh, "old")
    order = fresh.order()
    assert await delivered(fresh, "old", order.placed(COAT)) == [APPLIED]
    await reported(fresh, "old", fresh.running.now() - timedelta(hours=1))
    standing = await registered(fresh, "new")
    assert await delivered(fresh, "new", order.placed(COAT), order.paid(COAT)) == [DUPLICATE, APPLIED]
    await until_turned_away(fresh, "old")
    [former] = standing.former
    assert (former.feed_id, former.from_time) == ("old", first.from_time)
    assert former.until_time == standing.from_time
    assert standing.HasField("synced_through_time"), "what the old one had delivered is there"
    refused = await refusal(reported(fresh, "old", fresh.running.now()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "FEED_UNKNOWN")


async def test_what_a_feed_has_reported_counts_for_all_its_shops_and_never_goes_back(fresh: World) -> None:
    now = fresh.running.now()
    await registered(fresh, "erp")
    assert await reported(fresh, "erp", now - timedelta(hours=2)) == now - timedelta(hours=2)
    await registered(fresh, "erp", shop_id="outlet")
    assert await reported(fresh, "erp", now - timedelta(hours=3)) == now - timedelta(hours=3)
    assert await reported(fresh, "erp", now - timedelta(hours=1)) == now - timedelta(hours=1)
    assert await reported(fresh, "erp", now - timedelta(hours=4)) == now - timedelta(hours=1)
    synced = {from_timestamp(feed.synced_through_time) for feed in await listed(fresh)}
    assert synced == {now - timedelta(hours=1)}


async def test_a_retired_feed_is_not_waited_for_and_still_the_only_one(fresh: World) -> None:
    """The shop is closed; a refund of last week still comes, from its own feed."""
    await registered(fresh, "erp")
    order = fresh.order()
    assert await delivered(fresh, "erp", order.paid(COAT)) == [APPLIED]
    request = feed_pb2.RetireFeedRequest(
        brand_id=fresh.brand_id,
        request_id=request_id(),
        feed_id="erp",
        channel=TMALL,
        shop_id=fresh.shop_id,
    )
    retired = (await feeds(fresh.admin).RetireFeed(request)).feed
    assert retired.HasField("retire_time")
    assert (await feeds(fresh.admin).RetireFeed(request)).feed == retired
    assert [feed.retire_time for feed in await listed(fresh)] == [retired.retire_time]
    await until_turned_away(fresh, "other")
    assert await delivered(fresh, "erp", order.refunded(goodwill_minor=100)) == [APPLIED]
    back = await registered(fresh, "erp")
    assert not back.HasField("retire_time")
    assert back.from_time == retired.from_time


async def test_a_repeat_of_a_registration_changes_nothing_though_others_came_after_it(fresh: World) -> None:
    """The first call's answer was lost; by the time it is sent again another feed has taken over."""
    request = registration(fresh, "old")
    first = await feeds(fresh.admin).RegisterFeed(request)
    await registered(fresh, "new")
    assert await feeds(fresh.admin).RegisterFeed(request) == first
    assert [feed.feed_id for feed in await listed(fresh)] == ["new"]
    for changed in ({"feed_id": "third"}, {"shop_id": "outlet"}, {"channel": POS}):
        other = feed_pb2.RegisterFeedRequest()
        other.CopyFrom(request)
        for name, value in changed.items():
            setattr(other, name, value)
        refused = await refusal(feeds(fresh.admin).RegisterFeed(other))
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_who_registered_which_feed_is_in_the_audit_log(fresh: World) -> None:
    await registered(fresh, "erp")
    query = {"brand_id": fresh.brand_id, "action": "RegisterFeed"}
    [record] = fresh.running.documents("commission", "audit", query)
    subject = {"brand_id": fresh.brand_id, "feed_id": "erp", "channel": "TMALL", "shop_id": fresh.shop_id}
    assert (record["subject"], record["role"]) == (subject, "ROLE_BRAND_ADMIN")


async def test_the_feed_furthest_behind_shows_in_the_metrics(fresh: World) -> None:
    """Of all brands, in seconds: some feed of these tests has never reported, for a year by then."""
    await registered(fresh, "silent")
    fresh.running.later(days=365)

    async def shows() -> bool:
        found = samples_of(fresh.running, "commission")
        [behind] = [value for name, _, value in found if name == "daogou_commission_feed_behind_seconds"]
        return behind >= timedelta(days=365).total_seconds()

    await eventually(shows, "a year behind")


# ---- what is refused --------------------------------------------------------------------------------

Bad = tuple[Callable[[World], Awaitable[object]], str, frozenset[str]]


def _retired(world: World, **changed: Any) -> Awaitable[object]:
    named = {"feed_id": "erp", "channel": TMALL, "shop_id": world.shop_id, **changed}
    request = feed_pb2.RetireFeedRequest(brand_id=world.brand_id, request_id=request_id(), **named)
    return feeds(world.admin).RetireFeed(request)


def _registered(world: World, **changed: Any) -> Awaitable[object]:
    return feeds(world.admin).RegisterFeed(registration(world, changed.pop("feed_id", "new"), **changed))


BAD: Final[Mapping[str, Bad]] = {
    "a registration of nothing": (
        lambda w: feeds(w.admin).RegisterFeed(feed_pb2.RegisterFeedRequest(brand_id=w.brand_id)),
        "INVALID_FIELDS",
        frozenset({"request_id", "feed_id", "channel"}),
    ),
    "a registration of which all is wrong": (
        lambda w: _registered(w, feed_id="a|b", channel=99, shop_id="of shops", request_id="x"),
        "INVALID_FIELDS",
        frozenset({"request_id", "feed_id", "channel", "shop_id"}),
    ),
    "a feed of Tmall for no shop": (
        lambda w: _registered(w, shop_id=""),
        "INVALID_FIELDS",
        frozenset({"shop_id"}),
    ),
    "a feed of Taobao for no shop": (
        lambda w: _registered(w, shop_id="", channel=Channel.CHANNEL_TAOBAO),
        "INVALID_FIELDS",
        frozenset({"shop_id"}),
    ),
    "retiring nothing": (
        lambda w: feeds(w.admin).RetireFeed(feed_pb2.RetireFeedRequest(brand_id=w.brand_id)),
        "INVALID_FIELDS",
        frozenset({"request_id", "feed_id", "channel"}),
    ),
    "retiring another's feed": (
        lambda w: _retired(w, feed_id="other"),
        "NOT_AUTHORITATIVE_FEED",
        frozenset(),
    ),
    "retiring where there is none": (
        lambda w: _retired(w, shop_id="nowhere"),
        "NOT_AUTHORITATIVE_FEED",
        frozenset(),
    ),
    "a report of nothing": (
        lambda w: feeds(w.connector).ReportSyncedThrough(
            feed_pb2.ReportSyncedThroughRequest(brand_id=w.brand_id)
        ),
        "INVALID_FIELDS",
        frozenset({"feed_id", "synced_through_time"}),
    ),
    "a report of tomorrow": (
        lambda w: reported(w, "erp", w.running.now() + timedelta(days=1)),
        "SYNCED_IN_FUTURE",
        frozenset(),
    ),
    "a report of nobody": (
        lambda w: reported(w, "nobody", w.running.now() - timedelta(days=1)),
        "FEED_UNKNOWN",
        frozenset(),
    ),
}


@pytest.fixture(scope="module")
async def own(running: Running) -> World:
    """A brand with one feed, which the refusals change nothing about."""
    world = await a_world(running, plan=plan_of(), member=False)
    await registered(world, "erp")
    return world


@pytest.mark.parametrize("case", BAD)
async def test_what_is_wrong_is_refused_and_nothing_is_written(own: World, case: str) -> None:
    call, reason, fields = BAD[case]
    with own.running.nothing_written(own.brand_id):
        refused = await refusal(call(own))
    assert (refused.reason, refused.fields) == (reason, set(fields))


async def test_a_feed_that_is_misnamed_in_a_delivery_is_refused_as_such(own: World) -> None:
    request = IngestOrderEventsRequest(brand_id=own.brand_id, feed_id="a|b", events=[own.order().paid(COAT)])
    refused = await refusal(own.connector.events.IngestOrderEvents(request))
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", {"feed_id"})
