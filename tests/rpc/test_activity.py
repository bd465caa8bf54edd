"""Bindings that lapse: recorded only when every feed has passed, kept alive by what the policy names."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.members.v1 import activity_pb2, binding_pb2, member_pb2
from daogou.members.v1.activity_pb2_grpc import ActivityServiceStub
from daogou.members.v1.binding_pb2 import BindingCause
from daogou.members.v1.directory_pb2 import RENEW_ON_CONTACT, RENEW_ON_PURCHASE, BindingPolicy
from tests.rpc.running import Caller, Running, eventually, refusal
from tests.rpc.world import World, a_world

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.activity_pb2_grpc import ActivityServiceAsyncStub


def activity(caller: Caller) -> ActivityServiceAsyncStub:
    """The service of activity, called by somebody."""
    stub: ActivityServiceAsyncStub = ActivityServiceStub(caller.channel("members"))
    return stub


async def _report(world: World, time: datetime, feed: str = "tmall") -> datetime:
    request = activity_pb2.ReportSyncedThroughRequest(
        brand_id=world.brand_id, feed_id=feed, synced_through_time=to_timestamp(time)
    )
    reply = await activity(world.connector).ReportSyncedThrough(request)
    return reply.brand_synced_through_time.ToDatetime(tzinfo=time.tzinfo)


async def _bought(world: World, member_id: str, time: datetime) -> None:
    request = activity_pb2.RecordPurchaseRequest(
        brand_id=world.brand_id, member_id=member_id, purchase_time=to_timestamp(time)
    )
    await activity(world.service).RecordPurchase(request)


async def _rows(world: World, member_id: str) -> list[binding_pb2.Binding]:
    request = binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=member_id)
    return list((await world.admin.bindings.ListBindingRows(request)).rows)


async def _stands(world: World, member_id: str) -> bool:
    rows = await _rows(world, member_id)
    return any(not row.HasField("valid_to_time") and not row.HasField("superseded_time") for row in rows)


@pytest.fixture
async def world(running: Running) -> World:
    policy = BindingPolicy(validity_days=30, renew_on=RENEW_ON_PURCHASE)
    return await a_world(running, policy=policy, member=False)


async def test_a_binding_lapses_only_when_every_feed_has_passed_its_end(world: World) -> None:
    member_id, _ = await world.bound()
    await _report(world, world.running.now(), "tmall")
    await _report(world, world.running.now(), "pos")
    world.running.later(days=31)
    now = world.running.now()
    assert await _report(world, now, "tmall") < now, "the other feed is behind"
    # A member whose end both feeds have passed is the sign that the round has looked at all of them.
    assert await _stands(world, member_id), "the tills may still report a purchase"
    await _report(world, now, "pos")

    async def lapsed() -> bool:
        return not await _stands(world, member_id)

    await eventually(lapsed, "the binding lapses")
    ended = next(row for row in await _rows(world, member_id) if row.HasField("valid_to_time"))
    assert ended.cause == BindingCause.BINDING_CAUSE_LAPSED
    assert ended.valid_to_time.ToDatetime(tzinfo=now.tzinfo) >= now - timedelta(seconds=1), "never backdated"


async def test_a_purchase_renews_and_one_that_becomes_known_too_late_revives_nothing(world: World) -> None:
    buyer, _ = await world.bound()
    idle, _ = await world.bound()
    world.running.later(days=20)
    await _bought(world, buyer, world.running.now())
    world.running.later(days=15)
    await _report(world, world.running.now())

    async def lapsed() -> bool:
        return not await _stands(world, idle)

    await eventually(lapsed, "the idle member's binding lapses")
    assert await _stands(world, buyer)
    await _bought(world, idle, world.running.now() - timedelta(days=10))
    assert not await _stands(world, idle)


async def test_nothing_lapses_before_a_feed_has_reported(world: World, running: Running) -> None:
    silent, _ = await world.bound()
    other = await a_world(running, policy=BindingPolicy(validity_days=30), member=False)
    witness, _ = await other.bound()
    running.later(days=40)
    await _report(other, running.now())

    async def lapsed() -> bool:
        return not await _stands(other, witness)

    await eventually(lapsed, "a binding of a brand whose feed has reported lapses")
    assert await _stands(world, silent)


async def test_a_contact_counts_only_by_the_guide_whose_member_he_is(running: Running) -> None:
    policy = BindingPolicy(validity_days=30, renew_on=RENEW_ON_CONTACT)
    world = await a_world(running, policy=policy, member=False)
    member_id, _ = await world.bound(0)
    for guide, reason in ((0, ""), (1, "NOT_HER_MEMBER")):
        request = activity_pb2.RecordContactRequest(
            brand_id=world.brand_id,
            guide_id=world.guides[guide],
            member_id=member_id,
            contact_time=to_timestamp(running.now()),
        )
        call = activity(world.guide(guide)).RecordContact(request)
        if reason:
            assert (await refusal(call)).reason == reason
        else:
            assert (await call).HasField("last_contact_time")


async def test_activity_in_the_future_or_of_a_stranger_is_refused(world: World) -> None:
    tomorrow = world.running.now() + timedelta(days=1)
    with world.running.nothing_written(world.brand_id):
        early = await refusal(_bought(world, "a" * 16, tomorrow))
        strange = await refusal(_bought(world, "a" * 16, world.running.now()))
        ahead = await refusal(_report(world, tomorrow))
    assert (early.code, early.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ACTIVITY_IN_FUTURE")
    assert (strange.code, strange.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBER_UNKNOWN")
    assert ahead.reason == "ACTIVITY_IN_FUTURE"


async def test_an_earlier_report_takes_nothing_back(world: World) -> None:
    now = world.running.now()
    assert await _report(world, now) == now
    assert await _report(world, now - timedelta(days=1)) == now


async def test_many_purchases_are_noted_in_one_call_each_by_itself(world: World) -> None:
    """One that cannot be noted affects no other; members who were merged are noted under who they are now."""
    members = [(await world.bound(0)) for _ in range(3)]
    (first, _), (second, _), (third, card) = members
    merged = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=second, identity=card)
    )
    assert merged.member.member_id == second
    now = world.running.now()
    times = [now - timedelta(hours=hours) for hours in (5, 4, 3, 2)]
    asked = [
        activity_pb2.Purchase(member_id=first, purchase_time=to_timestamp(times[0])),
        activity_pb2.Purchase(member_id="b" * 16, purchase_time=to_timestamp(times[0])),
        activity_pb2.Purchase(member_id=first, purchase_time=to_timestamp(times[1])),
        activity_pb2.Purchase(member_id="not an id"),
        activity_pb2.Purchase(member_id=first, purchase_time=to_timestamp(now + timedelta(hours=1))),
        activity_pb2.Purchase(member_id=third, purchase_time=to_timestamp(times[3])),
        activity_pb2.Purchase(member_id=second, purchase_time=to_timestamp(times[2])),
    ]
    request = activity_pb2.BatchRecordPurchasesRequest(brand_id=world.brand_id, purchases=asked)
    for _ in range(2):
        reply = await activity(world.service).BatchRecordPurchases(request)
        assert [result.error.reason for result in reply.results] == [
            *("", "MEMBER_UNKNOWN", "", "INVALID_FIELDS", "ACTIVITY_IN_FUTURE", "", ""),
        ]
        assert {one.field for one in reply.results[3].error.violations} == {"member_id", "purchase_time"}
    documents = {
        found["member_id"]: found
        for found in world.running.documents("members", "members", {"brand_id": world.brand_id})
    }
    assert documents[first]["last_purchase_time"].replace(tzinfo=now.tzinfo) == times[1]
    assert documents[second]["last_purchase_time"].replace(tzinfo=now.tzinfo) == times[3]
    assert set(documents[second]["activity_by_origin"]) == {second, third}
